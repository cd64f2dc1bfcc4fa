use std::sync::atomic::{AtomicUsize, Ordering};

use fusewire_simd::FloatMode;

use super::{
    PackedRows, Phases, Pool, Relay, Serial, Team, all_parts, flushing_denormals, for_each_part,
    for_each_task, run_phases, try_for_each_part,
};
use crate::Error;
use crate::view::ViewMut;

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 3, 8] {
        for tasks in [0, 1, 2, 7, 100] {
            let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for_each_task(&Pool::new(threads), tasks, |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn blocks_tile_a_strided_view() {
    let mut data = vec![0_usize; 7 * 10];
    let view = ViewMut::contiguous(&mut data, [7, 10]).expect("70 numbers").transpose();
    let blocks = view.slice(0, 1..10).blocks([4, 3]);
    for_each_part(&Pool::new(2), blocks, |index, mut block| {
        for row in 0..block.rows() {
            for column in 0..block.columns() {
                block.set([row, column], index + 1);
            }
        }
    });
    for row in 0..7 {
        for column in 0..10 {
            let expected = if column == 0 { 0 } else { (column - 1) / 4 * 3 + row / 3 + 1 };
            assert_eq!(data[row * 10 + column], expected);
        }
    }
}

#[test]
fn dimensions_can_stay_whole_and_empty() {
    let parts = AtomicUsize::new(0);
    let wide = ViewMut::<f32, 3>::contiguous(&mut [], [4, 0, 5]).expect("no numbers");
    let empty = ViewMut::<f32, 2>::contiguous(&mut [], [4, 0]).expect("no numbers");
    for_each_part(&Serial, (wide.blocks([2, 0, 0]), empty.blocks([2, 0])), |_, (wide, empty)| {
        assert_eq!((wide.shape(), empty.shape()), ([2, 0, 5], [2, 0]));
        parts.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(parts.into_inner(), 2);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_survives() {
    let pool = Pool::new(2);
    let outcome = std::panic::catch_unwind(|| {
        pool.run(2, &|member| assert_ne!(member, 1, "a member's panic"));
    });
    assert!(outcome.is_err());
    every_task_runs_once();
}

#[test]
fn a_member_may_call_the_pool() {
    let total = AtomicUsize::new(0);
    let pool = Pool::new(2);
    for_each_task(&pool, 4, |_| {
        for_each_task(&pool, 4, |_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(total.into_inner(), 16);
    assert_eq!(Serial.threads(), 1);
}

#[test]
fn a_failure_reaches_the_caller_and_other_parts_are_done() {
    let mut data = vec![0; 5];
    let blocks = ViewMut::contiguous(&mut data, [5]).expect("5 numbers").blocks([1]);
    let outcome = try_for_each_part(&Pool::new(2), blocks, |index, mut part| {
        part.set([0], 1);
        if index == 3 { Err(Error::Value("no".into())) } else { Ok(()) }
    });
    assert_eq!(outcome, Err(Error::Value("no".into())));
    assert_eq!(data, [1; 5]);
}

#[test]
fn a_relay_keeps_the_order_of_turns() {
    for threads in [1, 2, 3] {
        let mut data = vec![1_u64; 6];
        let relay = Relay::new(ViewMut::contiguous(&mut data, [6]).expect("6 numbers").blocks([2]));
        // Tasks begin from the last to the first, and so are the turns.
        for_each_task(&Pool::new(threads), 5, |task| {
            for block in 0..3 {
                let mut turn = relay.take(block, 4 - task).expect("nobody gives up");
                let number = turn.part.as_view().get([1]);
                turn.part.set([1], number * 10 + task as u64);
            }
        });
        drop(relay);
        assert_eq!(data, [1, 143_210, 1, 143_210, 1, 143_210]);
    }
}

#[test]
fn who_waits_for_a_turn_that_will_not_come_is_told() {
    let mut data = vec![0; 2];
    let relay = Relay::new(ViewMut::contiguous(&mut data, [2]).expect("2 numbers").blocks([1]));
    relay.give_up();
    assert!(relay.take(0, 1).is_err());
    let relay = Relay::new(ViewMut::contiguous(&mut data, [2]).expect("2 numbers").blocks([1]));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = relay.guard();
        panic!("a task's panic");
    }));
    assert!(outcome.is_err() && relay.take(1, 1).is_err());
}

#[test]
fn packed_rows_are_cut_by_sequence() {
    // Steps of 5, 3, 3, 0 and 1 rows; the last two sequences have none.
    let offsets = [0, 5, 8, 11, 11, 12];
    let mut data = vec![0_usize; 12 * 2];
    let rows = ViewMut::contiguous(&mut data, [12, 2]).expect("24 numbers");
    for_each_part(&Pool::new(2), PackedRows::new(rows, &offsets, 7, 2), |index, mut part| {
        for step in 0..5 {
            let mut rows = part.step(step);
            for row in 0..rows.rows() {
                rows.row_mut(row).copy_from_slice(&[10 * step + row, index]);
            }
        }
    });
    let sequences = |step: usize| offsets[step + 1] - offsets[step];
    let expected: Vec<usize> = (0..5)
        .flat_map(|step| (0..sequences(step)).flat_map(move |s| [10 * step + s % 2, s / 2]))
        .collect();
    assert_eq!(data, expected);
}

#[test]
fn members_flush_denormals_and_the_caller_gets_its_mode_back() {
    let tiny = || std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
    flushing_denormals(&Pool::new(2), |team| {
        for_each_task(team, 1, |_| assert_eq!(tiny(), 0.0));
        for_each_task(team, 8, |_| assert_eq!(tiny(), 0.0));
    });
    for_each_task(&Pool::new(2), 8, |_| assert!(tiny() > 0.0));
}

/// A team that starts its threads anew each time, and sees which mode they have from the start.
struct Starting(FloatMode);

impl Team for Starting {
    fn threads(&self) -> usize {
        2
    }

    fn run(&self, members: usize, member: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for index in 0..members {
                scope.spawn(move || {
                    assert_eq!(FloatMode::of_thread(), self.0);
                    member(index);
                });
            }
        });
    }
}

#[test]
fn threads_that_start_meanwhile_do_not_flush_denormals_for_ever() {
    let tiny = || std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
    flushing_denormals(&Starting(FloatMode::of_thread()), |team| {
        for_each_task(team, 4, |_| assert_eq!(tiny(), 0.0));
        assert_eq!(tiny(), 0.0);
    });
    assert!(tiny() > 0.0);
}

#[test]
fn shifts_hand_every_phase_to_the_next() {
    const PHASES: usize = 200;
    let (rows, columns, width) = (3, 7, 2);
    // A phase writes the sum of the last one's row, plus its own number, plus the column.
    let expected = |row: usize| {
        (0..PHASES).fold(vec![row as u64; columns], |last, phase| {
            let sum = last.iter().fold(0_u64, |sum, &x| sum.wrapping_add(x));
            (0..columns as u64).map(|c| sum.wrapping_add(phase as u64 + c)).collect()
        })
    };
    for threads in [1, 2, 3, 9] {
        let mut numbers: Vec<Vec<u64>> = (0..3)
            .map(|_| (0..2 * rows * columns).map(|i| (i / columns % rows) as u64).collect())
            .collect();
        let sets: Vec<_> = numbers
            .iter_mut()
            .map(|numbers| {
                let exchange = ViewMut::contiguous(numbers, [2, rows, columns]).expect("fits");
                Phases::new(0..PHASES, exchange, width, (0..4).map(|part| (part, 0)).collect())
            })
            .collect();
        run_phases(&Pool::new(threads), &sets, |_, mut shift| {
            let (part, shifts) = &mut *shift.own;
            assert_eq!(*shifts, shift.phase);
            *shifts += 1;
            for row in 0..rows {
                let sum = shift.last.row(row).iter().fold(0_u64, |sum, &x| sum.wrapping_add(x));
                for (column, number) in shift.next.row_mut(row).iter_mut().enumerate() {
                    *number = sum.wrapping_add((shift.phase + *part * width + column) as u64);
                }
            }
            Ok(())
        })
        .expect("no shift fails");
        drop(sets);
        for numbers in &numbers {
            for row in 0..rows {
                assert_eq!(numbers[(rows + row) * columns..][..columns], expected(row));
            }
        }
    }
}

#[test]
fn a_failed_or_panicking_shift_leaves_nobody_waiting() {
    let run = |work: &(dyn Fn(usize) -> crate::Result<()> + Sync)| {
        let mut numbers = vec![0_u8; 8];
        let exchange = ViewMut::contiguous(&mut numbers, [2, 1, 4]).expect("8 numbers");
        let phases = Phases::new(0..50, exchange, 2, vec![(), ()]);
        run_phases(&Pool::new(2), &[phases], |_, shift| work(shift.phase))
    };
    let no = || Err(Error::Value("no".into()));
    assert_eq!(run(&|phase| if phase == 20 { no() } else { Ok(()) }), no());
    let panics = std::panic::catch_unwind(|| {
        run(&|phase| {
            assert!(phase != 20);
            Ok(())
        })
    });
    assert!(panics.is_err());
}

#[test]
fn packed_rows_are_cut_by_column() {
    let mut data = vec![0_usize; 3 * 5];
    let rows = ViewMut::contiguous(&mut data, [3, 5]).expect("15 numbers");
    for part in all_parts(PackedRows::new(rows, &[0, 2, 3], 2, 2)) {
        for (index, mut run) in part.cut(2, 2).into_iter().enumerate() {
            for step in 0..2 {
                let mut rows = run.step(step);
                (0..rows.rows()).for_each(|row| rows.row_mut(row).fill(index + 1));
            }
        }
    }
    assert_eq!(data, [1, 1, 2, 2, 2].repeat(3));
}
