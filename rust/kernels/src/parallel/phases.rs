//! Work in phases that threads share: a step of a recurrence begins when the last one has ended.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Team, run_members};
use crate::Result;
use crate::view::{View, ViewMut};

/// Looks at the other parts' progress before a waiting thread lets others have its core: some ten
/// microseconds, more than the parts of a phase should differ.
const SPINS: usize = 1000;

/// Phases, one after the other, each cut into the same parts.
///
/// What parts tell each other goes through an exchange of two matrices: a phase reads all of what
/// the last phase wrote into one, and each part writes its own columns of the other. A thread prefers
/// the same part in every phase, so that what only this part needs stays in the thread's caches.
pub struct Phases<'a, T, P> {
    phases: Range<usize>,
    /// Of two matrices; only shifts look into it.
    exchange: ViewMut<'a, T, 3>,
    start: *mut T,
    width: usize,
    lanes: Vec<Lane<P>>,
    finished: AtomicUsize,
}

struct Lane<P> {
    /// The first phase that nobody has claimed for this part.
    next: AtomicUsize,
    own: UnsafeCell<P>,
}

// SAFETY: a shift has its part's columns and its part's own state to itself, as `Phases::join` shows.
unsafe impl<T: Send + Sync, P: Send> Sync for Phases<'_, T, P> {}

/// One part of one phase.
pub struct Shift<'t, T, P> {
    /// The number of the phase.
    pub phase: usize,
    /// What the last phase left: the first matrix after an even phase, the second after an odd one.
    pub last: View<'t, T, 2>,
    /// This part's columns of the other matrix.
    pub next: ViewMut<'t, T, 2>,
    /// What belongs to this part alone, in every phase.
    pub own: &'t mut P,
}

impl<'a, T, P> Phases<'a, T, P> {
    /// Phases whose part `i` has the state `own[i]` and the `width` columns from `i · width` on of
    /// `exchange`, which holds two matrices.
    ///
    /// # Panics
    /// If there are not two matrices, or not columns for every part.
    pub fn new(
        phases: Range<usize>,
        mut exchange: ViewMut<'a, T, 3>,
        width: usize,
        own: Vec<P>,
    ) -> Self {
        let [matrices, _, columns] = exchange.shape();
        assert!(matrices == 2 && own.len().saturating_sub(1) * width <= columns);
        let lane = |own| Lane { next: AtomicUsize::new(phases.start), own: UnsafeCell::new(own) };
        let lanes = own.into_iter().map(lane).collect();
        let start = exchange.as_mut_ptr();
        Self { phases, exchange, start, width, lanes, finished: AtomicUsize::new(0) }
    }

    /// Takes shifts until no phase is left, beginning each phase with the part `seat`.
    fn join(&self, seat: usize, work: &impl Fn(Shift<'_, T, P>)) {
        let parts = self.lanes.len();
        for (count, phase) in self.phases.clone().enumerate() {
            self.wait_for(count * parts);
            for part in (0..parts).map(|i| (seat + i) % parts) {
                let lane = &self.lanes[part];
                let claim = || {
                    let (from, to) = (phase, phase + 1);
                    lane.next.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
                };
                if lane.next.load(Ordering::Relaxed) == phase && claim().is_ok() {
                    let _finish = Finish(&self.finished);
                    // SAFETY: the claim gives this part of this phase to this thread alone, and all
                    // shifts of earlier phases have ended, which `wait_for` has seen.
                    work(unsafe { self.shift(phase, part) });
                }
            }
        }
    }

    /// Waits until this many shifts have ended.
    fn wait_for(&self, shifts: usize) {
        let mut spins = 0;
        // Acquire: what those shifts wrote is seen from here on.
        while self.finished.load(Ordering::Acquire) < shifts {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// # Safety
    /// No other shift may have this part, nor write to the matrix that this phase reads.
    unsafe fn shift(&self, phase: usize, part: usize) -> Shift<'_, T, P> {
        let [_, rows, columns] = self.exchange.shape();
        let [matrix, row, column] = self.exchange.strides();
        let half = |index: usize| self.start.wrapping_offset(index as isize * matrix);
        let first = part * self.width;
        let shape = [rows, self.width.min(columns - first)];
        let target = half(phase % 2).wrapping_offset(first as isize * column);
        // SAFETY: shifts of the same phase write other columns of this matrix and read the other
        // matrix; the state is this part's.
        unsafe {
            Shift {
                phase,
                last: View::from_raw_parts(half((phase + 1) % 2), [rows, columns], [row, column]),
                next: ViewMut::from_raw_parts(target, shape, [row, column]),
                own: &mut *self.lanes[part].own.get(),
            }
        }
    }
}

/// Counts a shift as ended when it is dropped, so that after a panic nobody waits for it.
struct Finish<'a>(&'a AtomicUsize);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Runs sets of phases at the same time, `work` being told the index of the shift's set; a set admits one
/// thread per part, and a thread that has finished one goes on to the next with a free place.
///
/// No thread waits for a shift that has not begun, so a team may as well run its members one after
/// the other.
///
/// # Errors
/// One of those of `work`; shifts go on after it.
pub fn run_phases<T: Send + Sync, P: Send>(
    team: &dyn Team,
    sets: &[Phases<'_, T, P>],
    work: impl Fn(usize, Shift<'_, T, P>) -> Result<()> + Sync,
) -> Result<()> {
    let failure = Mutex::new(None);
    let seats: Vec<_> = sets.iter().map(|_| AtomicUsize::new(0)).collect();
    let places = sets.iter().map(|set| set.lanes.len()).sum();
    run_members(team, team.threads().min(places), &|| {
        for (index, (set, seats)) in sets.iter().zip(&seats).enumerate() {
            let seat = seats.fetch_add(1, Ordering::Relaxed);
            if seat < set.lanes.len() {
                set.join(seat, &|shift| {
                    if let (Err(error), Ok(mut failure)) = (work(index, shift), failure.lock()) {
                        failure.get_or_insert(error);
                    }
                });
            }
        }
    });
    failure.into_inner().ok().flatten().map_or(Ok(()), Err)
}
