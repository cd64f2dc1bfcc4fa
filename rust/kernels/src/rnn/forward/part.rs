//! The forward pass of a part of the batch: input products in chunks, then step by step.

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes, Real};

use super::Layer;
use crate::Result;
use crate::gemm::{NoEpilogue, Start, multiply_block};
use crate::math::Elementary;
use crate::parallel::PackedPart;
use crate::rnn::cell::{Cell, ForwardStep};
use crate::rnn::panels::CopyRows;
use crate::rnn::{padded, saved_columns};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Numbers of projected input at a time: half of a second-level cache in float32.
const PROJECTED: usize = 128 << 10;

/// Neighbouring sequences of the batch, and where their results go.
pub(super) struct Part<'p, 'a, T: Real, C> {
    pub(super) layer: &'p Layer<'a, T>,
    pub(super) sequences: Range<usize>,
    pub(super) output: PackedPart<'p, T>,
    pub(super) saved: PackedPart<'p, T>,
    pub(super) final_hidden: PackedPart<'p, T>,
    pub(super) final_cell: PackedPart<'p, T>,
    pub(super) kind: std::marker::PhantomData<C>,
}

/// A part's states, in rows of whole blocks of units; what lies behind the last unit stays 0.
struct States<T: Real> {
    /// The hidden state before the step.
    hidden: Scratch<T>,
    /// The hidden state after it.
    next: Scratch<T>,
    cell: Scratch<T>,
    /// Numbers from row to row of the hidden state, and of the cell state.
    strides: [usize; 2],
}

impl<T: Elementary, C: Cell> Part<'_, '_, T, C> {
    /// Runs the sequences; what is worth vectors is compiled for them block by block.
    pub(super) fn run<I: Lanes<T>>(mut self, isa: I) -> Result<()> {
        let Layer { steps, sizes, .. } = self.layer;
        let rows = self.sequences.len();
        let blocks = sizes.hidden_size.div_ceil(C::UNITS);
        let input_stride = padded(sizes.input_size);
        let projected_stride = padded(blocks * C::COLUMNS);
        let chunk = (PROJECTED / (rows * projected_stride)).clamp(1, steps.seq_len().max(1));
        let mut inputs = Scratch::take(chunk * rows * input_stride)?;
        let mut projected = Scratch::take(chunk * rows * projected_stride)?;
        let mut product = Scratch::take(rows * C::COLUMNS)?;
        let mut unsaved = Scratch::take(saved_columns::<C>(sizes.hidden_size))?;
        let mut states = self.initial_states(isa)?;
        for first in (0..steps.seq_len()).step_by(chunk) {
            let chunk = first..steps.seq_len().min(first + chunk);
            let mut count = 0;
            for step in chunk.clone() {
                let from = steps.rows(steps.time(step), self.sequences.clone());
                let active = from.len();
                let to = ViewMut::contiguous(
                    &mut inputs[count * input_stride..][..active * input_stride],
                    [active, input_stride],
                )?;
                let to = to.slice(1, 0..sizes.input_size);
                isa.vectorize(CopyRows(self.layer.input.slice(0, from), to));
                count += active;
            }
            let inputs = View::contiguous(&inputs[..count * input_stride], [count, input_stride])?;
            let target = &mut projected[..count * projected_stride];
            let columns = 0..blocks * C::COLUMNS;
            for row in target.chunks_exact_mut(projected_stride) {
                row[columns.clone()].copy_from_slice(&self.layer.input_bias);
            }
            let mut target = ViewMut::contiguous(target, [count, projected_stride])?;
            for block in 0..blocks {
                let columns = block * C::COLUMNS..(block + 1) * C::COLUMNS;
                multiply_block::<T, _, _>(
                    isa,
                    inputs.slice(1, 0..sizes.input_size),
                    self.layer.input_panels.panel(block)?,
                    target.reborrow().slice(1, columns),
                    Start::Accumulate,
                    &mut NoEpilogue,
                );
            }
            let mut done = 0;
            for step in chunk {
                let active = steps.active(Some(step), self.sequences.clone());
                let projected = &projected[done * projected_stride..];
                let mut saved = self.saved.step(steps.time(step));
                for block in 0..blocks {
                    let hidden = &states.hidden[..active * states.strides[0]];
                    let hidden = View::contiguous(hidden, [active, states.strides[0]])?;
                    let product_rows = &mut product[..active * C::COLUMNS];
                    multiply_block::<T, _, _>(
                        isa,
                        hidden.slice(1, 0..sizes.hidden_size),
                        self.layer.hidden_panels.panel(block)?,
                        ViewMut::contiguous(product_rows, [active, C::COLUMNS])?,
                        Start::Zero,
                        &mut NoEpilogue,
                    );
                    isa.vectorize(Cells::<T, C> {
                        projected: &projected[block * C::COLUMNS..],
                        projected_stride,
                        product: &product[..active * C::COLUMNS],
                        bias: &self.layer.hidden_bias[block * C::COLUMNS..][..C::COLUMNS],
                        block,
                        states: &mut states,
                        saved: self.layer.saves.then(|| saved.reborrow()),
                        unsaved: &mut unsaved,
                        kind: std::marker::PhantomData,
                    });
                }
                if self.layer.saves {
                    // Padding as well: a result has no number that was not written.
                    let kept = blocks * C::SAVED * C::UNITS;
                    (0..active).for_each(|row| saved.row_mut(row)[kept..].fill(T::ZERO));
                }
                std::mem::swap(&mut states.hidden, &mut states.next);
                self.store(isa, step, active, &states)?;
                done += active;
            }
        }
        Ok(())
    }

    /// The initial states; they are also the final ones of sequences without a step.
    fn initial_states<I: Lanes<T>>(&mut self, isa: I) -> Result<States<T>> {
        let Layer { sizes, hidden, cell, .. } = self.layer;
        let rows = self.sequences.len();
        let stride = padded(sizes.hidden_size.div_ceil(C::UNITS) * C::UNITS);
        let strides = [stride, if C::HAS_CELL_STATE { stride } else { 0 }];
        let load = |source: &View<'_, T, 2>, stride: usize| -> Result<Scratch<T>> {
            let mut numbers = Scratch::zeros(rows * stride)?;
            let target = ViewMut::contiguous(&mut numbers, [rows, stride])?;
            let source = source.slice(0, self.sequences.clone());
            isa.vectorize(CopyRows(source, target.slice(1, 0..source.columns())));
            Ok(numbers)
        };
        isa.vectorize(CopyRows(hidden.slice(0, self.sequences.clone()), self.final_hidden.step(0)));
        isa.vectorize(CopyRows(cell.slice(0, self.sequences.clone()), self.final_cell.step(0)));
        Ok(States {
            hidden: load(hidden, strides[0])?,
            next: load(hidden, strides[0])?,
            cell: load(cell, strides[1])?,
            strides,
        })
    }

    /// Stores the new hidden states, and those of the sequences that end here once more.
    fn store<I: Lanes<T>>(
        &mut self,
        isa: I,
        step: usize,
        active: usize,
        states: &States<T>,
    ) -> Result<()> {
        let Layer { steps, sizes, .. } = self.layer;
        let rows = self.sequences.len();
        let hidden = View::contiguous(&states.hidden, [rows, states.strides[0]])?;
        let hidden = hidden.slice(1, 0..sizes.hidden_size);
        let cell = View::contiguous(&states.cell, [rows, states.strides[1]])?;
        let cell = cell.slice(1, 0..sizes.cell_size);
        isa.vectorize(CopyRows(hidden.slice(0, 0..active), self.output.step(steps.time(step))));
        let ending = steps.active(Some(step + 1), self.sequences.clone()).min(active)..active;
        let target = self.final_hidden.step(0).slice(0, ending.clone());
        isa.vectorize(CopyRows(hidden.slice(0, ending.clone()), target));
        let target = self.final_cell.step(0).slice(0, ending.clone());
        isa.vectorize(CopyRows(cell.slice(0, ending), target));
        Ok(())
    }
}

/// The cell on a block of units of the sequences of a step.
struct Cells<'a, T: Real, C> {
    projected: &'a [T],
    projected_stride: usize,
    product: &'a [T],
    bias: &'a [T],
    block: usize,
    states: &'a mut States<T>,
    saved: Option<ViewMut<'a, T, 2>>,
    /// What is written where nothing is kept.
    unsaved: &'a mut [T],
    kind: std::marker::PhantomData<C>,
}

impl<T: Elementary, C: Cell> Kernel<T> for Cells<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let States { hidden, next, cell, strides } = self.states;
        let kept = self.block * C::SAVED * C::UNITS;
        for (row, product) in self.product.chunks_exact(C::COLUMNS).enumerate() {
            let saved = match &mut self.saved {
                Some(saved) => saved.row_mut(row),
                None => &mut *self.unsaved,
            };
            let at = row * strides[0] + self.block * C::UNITS;
            let cell_at = row * strides[1] + self.block * C::CELL_UNITS;
            C::forward(
                isa,
                ForwardStep {
                    projection: &self.projected[row * self.projected_stride..][..C::COLUMNS],
                    product,
                    bias: self.bias,
                    previous: &hidden[at..][..C::UNITS],
                    hidden: &mut next[at..][..C::UNITS],
                    cell: &mut cell[cell_at..][..C::CELL_UNITS],
                    saved: &mut saved[kept..][..C::SAVED * C::UNITS],
                },
            );
        }
    }
}
