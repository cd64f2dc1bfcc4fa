//! A walk along sequences with a state `s' = r∘s + a`, cut in time where there are few sequences.

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes};

use crate::Result;
use crate::math::Elementary;
use crate::parallel::{PackedPart, PackedRows, Team, for_each_part};
use crate::rnn::Steps;
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Steps of a chunk, where there are several.
const CHUNK: usize = 256;

/// From this many sequences on, they alone keep the threads busy, and are not cut.
///
/// Only shapes decide about chunks, so that numbers do not depend on the team.
const ENOUGH_SEQUENCES: usize = 16;

/// One step of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The sequence.
    pub(super) sequence: usize,
    /// Its packed row at this step.
    pub(super) row: usize,
    /// Its packed row one step earlier in the recurrence.
    pub(super) previous: Option<usize>,
}

/// What a walk computes at each step, for a vector of units.
pub(super) trait Recurrence<T: Elementary>: Sync {
    /// `r` and `a`.
    fn coefficients<I: Lanes<T>>(
        &self,
        isa: I,
        place: Place,
        unit: usize,
    ) -> (I::Vector, I::Vector);

    /// The next state, and what the step leaves in its row of the results.
    fn step<I: Lanes<T>>(
        &self,
        isa: I,
        place: Place,
        unit: usize,
        state: I::Vector,
        target: &mut [T],
    ) -> I::Vector;
}

/// A walk over all sequences.
pub(super) struct Walk<'a, T, R> {
    pub(super) recurrence: R,
    pub(super) steps: &'a Steps,
    /// Whether it goes against the recurrence's direction, as gradients do.
    pub(super) backwards: bool,
    /// The states before the first step, `(batch, hidden_size)`; `None` is 0.
    pub(super) start: Option<View<'a, T, 2>>,
    /// What the steps leave, a row for each.
    pub(super) results: ViewMut<'a, T, 2>,
    /// The states after the last step, `(batch, hidden_size)`.
    pub(super) end: ViewMut<'a, T, 2>,
}

impl<T: Elementary, R: Recurrence<T>> Walk<'_, T, R> {
    /// Walks.
    pub(super) fn run(self, team: &dyn Team) -> Result<()> {
        let Self { recurrence, steps, backwards, start, results, mut end } = self;
        let [batch, hidden_size] = end.shape();
        let cut = batch < ENOUGH_SEQUENCES && steps.seq_len() >= 2 * CHUNK;
        let length = if cut { CHUNK } else { steps.seq_len().max(1) };
        let chunks = steps.seq_len().div_ceil(length).max(1);
        let shape = [chunks, batch, hidden_size];
        let state = [1, 1, 0];
        let path = Path { steps, ascending: steps.is_reverse() == backwards, length };
        let order = |i: usize| if path.ascending { i } else { chunks - 1 - i };
        // Before each chunk; after the walk over it, behind it.
        let mut states = Scratch::zeros(chunks * batch * hidden_size)?;
        let mut states = ViewMut::contiguous(&mut states, shape)?;
        if let Some(start) = start {
            let mut first = states.reborrow().inner([order(0)]);
            (0..batch).for_each(|row| first.row_mut(row).copy_from_slice(start.row(row)));
        }
        if chunks > 1 {
            let mut retained = Scratch::take(chunks * batch * hidden_size)?;
            let mut added = Scratch::take(chunks * batch * hidden_size)?;
            let mut retained = ViewMut::contiguous(&mut retained, shape)?;
            let mut added = ViewMut::contiguous(&mut added, shape)?;
            let parts = (retained.reborrow().blocks(state), added.reborrow().blocks(state));
            for_each_part(team, parts, |index, (retained, added)| {
                T::dispatch(Summarise {
                    recurrence: &recurrence,
                    path,
                    chunk: index / batch,
                    sequence: index % batch,
                    retained: retained.inner([0]).row_mut(0),
                    added: added.inner([0]).row_mut(0),
                });
            });
            for i in 1..chunks {
                for [row, unit] in
                    (0..batch).flat_map(|row| (0..hidden_size).map(move |unit| [row, unit]))
                {
                    let last = [order(i - 1), row, unit];
                    let next = retained.as_view().get(last) * states.as_view().get(last)
                        + added.as_view().get(last);
                    states.set([order(i), row, unit], next);
                }
            }
        }
        let results = PackedRows::new(results, steps.offsets(), batch, 1).in_chunks(length);
        for_each_part(team, (results, states.reborrow().blocks(state)), |index, (rows, state)| {
            T::dispatch(Run {
                recurrence: &recurrence,
                path,
                chunk: index / batch,
                sequence: index % batch,
                state: state.inner([0]).row_mut(0),
                rows,
            });
        });
        let last = states.as_view().inner([order(chunks - 1)]);
        (0..batch).for_each(|row| end.row_mut(row).copy_from_slice(last.row(row)));
        Ok(())
    }
}

/// How a walk passes over time.
#[derive(Clone, Copy)]
struct Path<'a> {
    steps: &'a Steps,
    ascending: bool,
    /// Steps of a chunk.
    length: usize,
}

impl Path<'_> {
    /// The times of a sequence in a chunk.
    fn times(&self, chunk: usize, sequence: usize) -> Range<usize> {
        let end = self.steps.length(sequence).min((chunk + 1) * self.length);
        (chunk * self.length).min(end)..end
    }

    /// The walk's step number `step` among `times`: its time, and its place.
    #[inline(always)]
    fn place(&self, sequence: usize, times: &Range<usize>, step: usize) -> (usize, Place) {
        let time = if self.ascending { times.start + step } else { times.end - 1 - step };
        let offsets = self.steps.offsets();
        let previous = if self.steps.is_reverse() { time + 1 } else { time.wrapping_sub(1) };
        let exists =
            previous < self.steps.seq_len() && offsets[previous] + sequence < offsets[previous + 1];
        let previous = if exists { Some(offsets[previous] + sequence) } else { None };
        (time, Place { sequence, row: offsets[time] + sequence, previous })
    }
}

/// What a chunk makes of any state: `retained∘s + added`.
struct Summarise<'a, T, R> {
    recurrence: &'a R,
    path: Path<'a>,
    chunk: usize,
    sequence: usize,
    retained: &'a mut [T],
    added: &'a mut [T],
}

impl<T: Elementary, R: Recurrence<T>> Kernel<T> for Summarise<'_, T, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        let times = self.path.times(self.chunk, self.sequence);
        self.retained.fill(T::ONE);
        self.added.fill(T::ZERO);
        for step in 0..times.len() {
            let (_, place) = self.path.place(self.sequence, &times, step);
            for unit in (0..self.added.len()).step_by(I::LANES) {
                let (r, a) = self.recurrence.coefficients(isa, place, unit);
                let retained = &mut self.retained[unit..];
                isa.store_first(retained, isa.mul(r, isa.load_first(retained)));
                let added = &mut self.added[unit..];
                isa.store_first(added, isa.mul_add(r, isa.load_first(added), a));
            }
        }
    }
}

/// The steps of a chunk, from the state before it.
struct Run<'a, T, R> {
    recurrence: &'a R,
    path: Path<'a>,
    chunk: usize,
    sequence: usize,
    state: &'a mut [T],
    rows: PackedPart<'a, T>,
}

impl<T: Elementary, R: Recurrence<T>> Kernel<T> for Run<'_, T, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let times = self.path.times(self.chunk, self.sequence);
        for step in 0..times.len() {
            let (time, place) = self.path.place(self.sequence, &times, step);
            let mut rows = self.rows.step(time);
            let target = rows.row_mut(0);
            for unit in (0..self.state.len()).step_by(I::LANES) {
                let state = &mut self.state[unit..];
                let next = self.recurrence.step(isa, place, unit, isa.load_first(state), target);
                isa.store_first(state, next);
            }
        }
    }
}
