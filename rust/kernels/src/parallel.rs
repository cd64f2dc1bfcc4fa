//! Teams of threads, and the division of outputs into blocks that threads work off.
#![allow(unsafe_code)]

mod blocks;
mod packed;
mod phases;
mod pool;
mod relay;
mod sequences;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fusewire_simd::{FloatMode, Selection};

pub use blocks::{Blocks, Partition, Reversed, all_parts};
pub use packed::{PackedPart, PackedRows};
pub use phases::{Phases, Shift, run_phases};
pub use pool::Pool;
pub use relay::{Relay, Turn};
pub use sequences::{SequenceBlocks, SequenceRows};

/// Threads that can work together.
pub trait Team: Sync {
    /// How many members may work at the same time.
    fn threads(&self) -> usize;

    /// Calls `member(0)`, …, `member(members − 1)`, each exactly once, on up to `threads` threads,
    /// and returns when all have returned. They may run one after another.
    fn run(&self, members: usize, member: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Team for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, members: usize, member: &(dyn Fn(usize) + Sync)) {
        (0..members).for_each(member);
    }
}

/// Calls `work` with the team, where the calling thread and every member flush denormal numbers to
/// zero; afterwards each has its own mode again.
pub fn flushing_denormals<R>(team: &dyn Team, work: impl FnOnce(&dyn Team) -> R) -> R {
    let before = FloatMode::of_thread();
    let _held = before.flushing().hold();
    work(&Flushing { team, before })
}

struct Flushing<'a> {
    team: &'a dyn Team,
    /// The caller's mode.
    before: FloatMode,
}

impl Team for Flushing<'_> {
    fn threads(&self) -> usize {
        self.team.threads()
    }

    fn run(&self, members: usize, member: &(dyn Fn(usize) + Sync)) {
        // Threads that the team starts now keep the mode of this one for as long as they live.
        let _paused = self.before.hold();
        self.team.run(members, &|index| {
            let _held = FloatMode::of_thread().flushing().hold();
            member(index);
        });
    }
}

/// Calls `task(0)`, …, `task(tasks − 1)` once each; the last start first.
///
/// From the last, because where tasks differ in size, as under a causal mask, the last are the
/// heaviest, and light ones at the end even out the load.
pub fn for_each_task(team: &dyn Team, tasks: usize, task: impl Fn(usize) + Sync) {
    let members = team.threads().min(tasks);
    if members <= 1 {
        return (0..tasks).rev().for_each(task);
    }
    let left = AtomicUsize::new(tasks);
    let claim = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    run_members(team, members, &|| {
        while let Ok(claimed) = claim() {
            task(claimed - 1);
        }
    });
}

/// Calls `member` so many times, on threads that run on the caller's instruction set.
fn run_members(team: &dyn Team, members: usize, member: &(dyn Fn() + Sync)) {
    let selection = Selection::of_thread();
    team.run(members, &|_| {
        let _held = selection.hold();
        member();
    });
}

/// Calls `task` once for each part of an output, with the part's index.
///
/// ```
/// use fusewire_kernels::parallel::{Serial, for_each_part};
/// use fusewire_kernels::view::ViewMut;
///
/// let mut data = [0; 6];
/// let rows = ViewMut::contiguous(&mut data, [3, 2]).unwrap().blocks([1, 2]);
/// for_each_part(&Serial, rows, |index, mut row| row.set([0, 1], index));
/// assert_eq!(data, [0, 0, 0, 1, 0, 2]);
/// ```
pub fn for_each_part<P: Partition>(
    team: &dyn Team,
    partition: P,
    task: impl Fn(usize, P::Part) + Sync,
) {
    for_each_task(team, partition.parts(), |index| {
        // SAFETY: each index below `parts` comes once, so no two parts have the same index; the
        // partition owns the exclusive views of the output.
        task(index, unsafe { partition.part(index) });
    });
}

/// [`for_each_part`] with tasks that can fail; all parts are tried, and one failure is returned.
///
/// # Errors
/// If a task fails.
pub fn try_for_each_part<P: Partition>(
    team: &dyn Team,
    partition: P,
    task: impl Fn(usize, P::Part) -> crate::Result<()> + Sync,
) -> crate::Result<()> {
    let failure = Mutex::new(None);
    for_each_part(team, partition, |index, part| {
        if let (Err(error), Ok(mut failure)) = (task(index, part), failure.lock()) {
            failure.get_or_insert(error);
        }
    });
    failure.into_inner().ok().flatten().map_or(Ok(()), Err)
}

/// Work that is done once, by whichever thread comes to it.
pub type Task<'a> = Box<dyn FnOnce() -> crate::Result<()> + Send + 'a>;

/// Does all of the tasks; the last start first.
///
/// # Errors
/// One of those of the tasks; the others are done nevertheless.
pub fn run_tasks(team: &dyn Team, tasks: Vec<Task<'_>>) -> crate::Result<()> {
    let outcomes: Vec<_> = tasks.into_iter().map(|task| Mutex::new((Some(task), Ok(())))).collect();
    for_each_task(team, outcomes.len(), |index| {
        if let Ok(mut entry) = outcomes[index].lock()
            && let Some(task) = entry.0.take()
        {
            entry.1 = task();
        }
    });
    outcomes.into_iter().try_for_each(|entry| entry.into_inner().map_or(Ok(()), |entry| entry.1))
}

#[cfg(test)]
mod tests;
