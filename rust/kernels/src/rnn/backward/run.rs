//! The backward recurrence of a run of sequences.

use std::marker::PhantomData;
use std::ops::Range;

use fusewire_simd::{Abreast, Kernel, Lanes, Real};

use crate::Result;
use crate::math::Elementary;
use crate::parallel::{PackedPart, Shift};
use crate::rnn::cell::{BackwardStep, Cell};
use crate::rnn::copies::copy;
use crate::rnn::panels::BackWeight;
use crate::rnn::weights::Sizes;
use crate::rnn::{Steps, padded};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// What the shifts of one direction share.
pub(super) struct Layer<'a, T: Real, C> {
    pub(super) steps: &'a Steps,
    pub(super) sizes: Sizes,
    pub(super) hidden: View<'a, T, 2>,
    pub(super) output: View<'a, T, 2>,
    pub(super) saved: View<'a, T, 2>,
    pub(super) output_gradient: Option<View<'a, T, 2>>,
    pub(super) weight: BackWeight<'a, T, C>,
}

impl<'a, T: Real, C: Cell> Layer<'a, T, C> {
    /// Numbers from row to row of what parts exchange: the gradients of the products with the hidden
    /// state, `[block][gate][unit]`.
    pub(super) fn exchange_stride(&self) -> usize {
        padded(self.sizes.hidden_size.div_ceil(C::UNITS) * C::COLUMNS)
    }

    /// The hidden states of `sequences` before a time: outputs of the step before it, then the
    /// initial states of the sequences that begin here.
    pub(super) fn previous(
        &self,
        time: usize,
        sequences: Range<usize>,
    ) -> (View<'a, T, 2>, View<'a, T, 2>) {
        // The step of a time is found as the time of a step.
        let step = self.steps.time(time);
        let active = self.steps.active(Some(step), sequences.clone());
        let carried = self.steps.active(step.checked_sub(1), sequences.clone()).min(active);
        let from = match step.checked_sub(1) {
            Some(before) => self.steps.rows(self.steps.time(before), sequences.clone()).start,
            None => 0,
        };
        let begins = sequences.start + carried..sequences.start + active;
        (self.output.slice(0, from..from + carried), self.hidden.slice(0, begins))
    }
}

/// What one part of a run's units carries from step to step.
pub(super) struct State<T: Real> {
    pub(super) units: Range<usize>,
    rows: usize,
    /// The gradients of the hidden and the cell state, in rows of whole blocks of units: what lies
    /// behind the last unit stays 0 or is not used.
    hidden: Scratch<T>,
    cell: Scratch<T>,
    strides: [usize; 2],
    /// The gradients of the sums of one block.
    sums: Scratch<T>,
}

impl<T: Elementary> State<T> {
    /// The gradients of the final states.
    pub(super) fn new<C: Cell>(
        sequences: Range<usize>,
        units: Range<usize>,
        [final_hidden, final_cell]: [Option<View<'_, T, 2>>; 2],
    ) -> Result<Self> {
        let rows = sequences.len();
        let stride = padded(units.len().div_ceil(C::UNITS) * C::UNITS);
        let strides = [stride, if C::HAS_CELL_STATE { stride } else { 0 }];
        let load = |gradient: Option<View<'_, T, 2>>, stride: usize| {
            let mut numbers = Scratch::zeros(rows * stride)?;
            if let (Some(gradient), true) = (gradient, stride > 0) {
                let target = ViewMut::contiguous(&mut numbers, [rows, stride])?;
                let source = gradient.slice(0, sequences.clone()).slice(1, units.clone());
                copy(source, target.slice(1, 0..units.len()));
            }
            Ok(numbers)
        };
        Ok(Self {
            rows,
            hidden: load(final_hidden, strides[0])?,
            cell: load(final_cell, strides[1])?,
            strides,
            sums: Scratch::take(C::GRADIENTS * C::UNITS)?,
            units,
        })
    }

    /// The gradient of the hidden state.
    pub(super) fn hidden(&self) -> Result<View<'_, T, 2>> {
        let all = View::contiguous(&self.hidden, [self.rows, self.strides[0]])?;
        Ok(all.slice(1, 0..self.units.len()))
    }

    /// The gradient of the cell state, where there is one.
    pub(super) fn cell(&self) -> Result<View<'_, T, 2>> {
        let all = View::contiguous(&self.cell, [self.rows, self.strides[1]])?;
        Ok(all.slice(1, 0..self.units.len()))
    }
}

/// What belongs to one part of a run's units during a chunk.
pub(super) struct Own<'d, T: Real> {
    /// Where the sums' gradients go, by slot.
    pub(super) sums: Vec<PackedPart<'d, T>>,
    pub(super) state: &'d mut State<T>,
}

/// Neighbouring sequences of the batch in one direction.
pub(super) struct Run<'d, 'a, T: Real, C> {
    pub(super) layer: &'d Layer<'a, T, C>,
    pub(super) sequences: Range<usize>,
    /// The first time of the chunk.
    pub(super) first_time: usize,
    pub(super) kind: PhantomData<C>,
}

impl<T: Elementary, C: Cell> Run<'_, '_, T, C> {
    /// One part of one step, from the last; the phase behind the first step ends the gradients of the
    /// initial states.
    pub(super) fn shift<I: Lanes<T>>(&self, isa: I, shift: Shift<'_, T, Own<'_, T>>) -> Result<()> {
        let Shift { phase, last, next, own: Own { sums, state } } = shift;
        let Layer { steps, sizes, output, saved, output_gradient, weight, .. } = self.layer;
        let later = steps.seq_len() - phase;
        let active = steps.active(Some(later), self.sequences.clone());
        if active > 0 {
            let stride = state.strides[0];
            let hidden = &mut state.hidden[..active * stride];
            let hidden = ViewMut::contiguous(hidden, [active, stride])?;
            let last = last.slice(0, 0..active);
            let last = last.slice(1, 0..sizes.hidden_size.div_ceil(C::UNITS) * C::COLUMNS);
            let hidden = hidden.slice(1, 0..state.units.len());
            weight.multiply(isa, state.units.clone(), last, hidden)?;
        }
        let Some(step) = later.checked_sub(1) else { return Ok(()) };
        let time = steps.time(step);
        let at = steps.rows(time, self.sequences.clone());
        let (before, initial) = self.layer.previous(time, self.sequences.clone());
        let units = state.units.clone();
        let kept = units.start / C::UNITS * C::SAVED * C::UNITS;
        isa.vectorize(Cells::<T, C> {
            saved: saved.slice(0, at.clone()).slice(1, kept..saved.columns()),
            previous: before.slice(1, units.clone()),
            initial: initial.slice(1, units.clone()),
            output: output.slice(0, at.clone()).slice(1, units.clone()),
            output_gradient: output_gradient.map(|all| all.slice(0, at).slice(1, units)),
            exchange: next,
            sums: sums.iter_mut().map(|slot| slot.step(time - self.first_time)).collect(),
            block_sums: &mut state.sums,
            hidden_gradient: &mut state.hidden,
            cell_gradient: &mut state.cell,
            strides: state.strides,
            kind: PhantomData,
        });
        Ok(())
    }
}

/// The cell's gradients at one step.
struct Cells<'a, T, C> {
    saved: View<'a, T, 2>,
    /// The hidden states before the step of the first rows, and of the others.
    previous: View<'a, T, 2>,
    initial: View<'a, T, 2>,
    output: View<'a, T, 2>,
    output_gradient: Option<View<'a, T, 2>>,
    /// Where the gradients of the products with the hidden state go.
    exchange: ViewMut<'a, T, 2>,
    /// Where the gradients of all sums go, by slot.
    sums: Vec<ViewMut<'a, T, 2>>,
    block_sums: &'a mut [T],
    hidden_gradient: &'a mut [T],
    cell_gradient: &'a mut [T],
    /// Numbers from row to row of the two gradients.
    strides: [usize; 2],
    kind: PhantomData<C>,
}

impl<T: Elementary, C: Cell> Kernel<T> for Cells<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let [rows, units] = self.output.shape();
        for row in 0..rows {
            let (saved, output) = (self.saved.row(row), self.output.row(row));
            let previous = match row.checked_sub(self.previous.rows()) {
                None => self.previous.row(row),
                Some(row) => self.initial.row(row),
            };
            let output_gradient = self.output_gradient.map(|all| all.row(row)).unwrap_or_default();
            for (block, first) in (0..units).step_by(C::UNITS).enumerate() {
                let end = units.min(first + C::UNITS);
                let at = row * self.strides[0] + first;
                let cell_at = row * self.strides[1] + block * C::CELL_UNITS;
                let step = BackwardStep {
                    saved: &saved[block * C::SAVED * C::UNITS..][..C::SAVED * C::UNITS],
                    previous: &previous[first..end],
                    hidden: &output[first..end],
                    output_gradient: output_gradient.get(first..end).unwrap_or_default(),
                    hidden_gradient: &mut self.hidden_gradient[at..][..C::UNITS],
                    cell_gradient: &mut self.cell_gradient[cell_at..][..C::CELL_UNITS],
                    sums: self.block_sums,
                };
                if 2 * I::LANES <= C::UNITS {
                    C::backward(Abreast::<I, 2>(isa), step);
                } else {
                    C::backward(isa, step);
                }
                let exchange = &mut self.exchange.row_mut(row)[block * C::COLUMNS..];
                let shared = C::SHARED * C::UNITS;
                exchange[..shared].copy_from_slice(&self.block_sums[..shared]);
                let apart = C::GATES * C::UNITS..C::GRADIENTS * C::UNITS;
                exchange[shared..C::COLUMNS].copy_from_slice(&self.block_sums[apart]);
                for (slot, sums) in self.sums.iter_mut().enumerate() {
                    let from = &self.block_sums[slot * C::UNITS..][..end - first];
                    sums.row_mut(row)[first..end].copy_from_slice(from);
                }
            }
        }
    }
}
