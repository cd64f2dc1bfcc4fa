//! The backward recurrence of a part of the batch.

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes, Real};

use super::{Layer, PANEL, runs};
use crate::Result;
use crate::gemm::{NoEpilogue, Start, multiply_block};
use crate::math::Elementary;
use crate::parallel::PackedPart;
use crate::rnn::cell::{BackwardStep, Cell};
use crate::rnn::padded;
use crate::rnn::panels::{CopyRows, Panels};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Depth of a product at a time: that much of a panel stays in the first-level cache while the rows
/// pass over it.
const DEPTH: usize = 128;

/// Neighbouring sequences of the batch, and where their gradients go.
pub(super) struct Part<'p, 'a, T: Real, C> {
    pub(super) layer: &'p Layer<'a, T>,
    /// The recurrent weight, `(gates · hidden_size, hidden_size)`, in panels of columns.
    pub(super) panels: &'p Panels<T>,
    pub(super) sequences: Range<usize>,
    pub(super) sums: PackedPart<'p, T>,
    pub(super) previous: PackedPart<'p, T>,
    pub(super) hidden_gradient: PackedPart<'p, T>,
    pub(super) cell_gradient: PackedPart<'p, T>,
    pub(super) kind: std::marker::PhantomData<C>,
}

impl<T: Elementary, C: Cell> Part<'_, '_, T, C> {
    /// Runs the sequences; what is worth vectors is compiled for them block by block.
    pub(super) fn run<I: Lanes<T>>(mut self, isa: I) -> Result<()> {
        let Layer { steps, sizes, .. } = self.layer;
        let rows = self.sequences.len();
        // Rows of whole blocks of units: what lies behind the last unit stays 0 or is not used.
        let stride = padded(sizes.hidden_size.div_ceil(C::UNITS) * C::UNITS);
        let strides = [stride, if C::HAS_CELL_STATE { stride } else { 0 }];
        let [final_hidden, final_cell] = self.layer.final_gradients;
        let mut hidden = self.load_final(isa, final_hidden, strides[0])?;
        let mut cell = self.load_final(isa, final_cell, strides[1])?;
        for step in (0..steps.seq_len()).rev() {
            let time = steps.time(step);
            let active = steps.active(Some(step), self.sequences.clone());
            self.load_previous(isa, step);
            let at = steps.rows(time, self.sequences.clone());
            isa.vectorize(Cells::<T, C> {
                saved: self.layer.saved.slice(0, at.clone()),
                previous: self.previous.step(time).as_view(),
                output: self.layer.output.slice(0, at.clone()),
                output_gradient: self.layer.output_gradient.map(|all| all.slice(0, at)),
                sums: self.sums.step(time),
                hidden_gradient: &mut hidden,
                cell_gradient: &mut cell,
                strides,
                kind: std::marker::PhantomData,
            });
            let mut target = ViewMut::contiguous(&mut hidden[..active * stride], [active, stride])?;
            for (panel, first) in (0..sizes.hidden_size).step_by(PANEL).enumerate() {
                let columns = first..sizes.hidden_size.min(first + PANEL);
                let panel = self.panels.panel(panel)?.slice(1, 0..columns.len());
                for run in runs::<C>() {
                    let sums = self.sums.step(time);
                    let sums = sums.as_view().slice(1, run.slots(sizes.hidden_size));
                    let panel = panel.slice(0, run.gates(sizes.hidden_size));
                    for first in (0..panel.rows()).step_by(DEPTH) {
                        let depth = first..panel.rows().min(first + DEPTH);
                        multiply_block::<T, _, _>(
                            isa,
                            sums.slice(1, depth.clone()),
                            panel.slice(0, depth),
                            target.reborrow().slice(1, columns.clone()),
                            Start::Accumulate,
                            &mut NoEpilogue,
                        );
                    }
                }
            }
        }
        let hidden = View::contiguous(&hidden, [rows, strides[0]])?;
        isa.vectorize(CopyRows(
            hidden.slice(1, 0..sizes.hidden_size),
            self.hidden_gradient.step(0),
        ));
        let cell = View::contiguous(&cell, [rows, strides[1]])?;
        isa.vectorize(CopyRows(cell.slice(1, 0..sizes.cell_size), self.cell_gradient.step(0)));
        Ok(())
    }

    /// The gradient of a final state, in rows of `stride` numbers.
    fn load_final<I: Lanes<T>>(
        &self,
        isa: I,
        gradient: Option<View<'_, T, 2>>,
        stride: usize,
    ) -> Result<Scratch<T>> {
        let rows = self.sequences.len();
        let mut numbers = Scratch::zeros(rows * stride)?;
        if let Some(gradient) = gradient {
            let target = ViewMut::contiguous(&mut numbers, [rows, stride])?;
            let source = gradient.slice(0, self.sequences.clone());
            isa.vectorize(CopyRows(source, target.slice(1, 0..source.columns())));
        }
        Ok(numbers)
    }

    /// Collects the hidden states before a step: outputs of the step before it, and the initial
    /// states of sequences that begin here.
    fn load_previous<I: Lanes<T>>(&mut self, isa: I, step: usize) {
        let Layer { steps, hidden, output, .. } = self.layer;
        let active = steps.active(Some(step), self.sequences.clone());
        let carried = steps.active(step.checked_sub(1), self.sequences.clone()).min(active);
        let mut target = self.previous.step(steps.time(step));
        if carried > 0 {
            let from = steps.rows(steps.time(step - 1), self.sequences.clone()).start;
            let source = output.slice(0, from..from + carried);
            isa.vectorize(CopyRows(source, target.reborrow().slice(0, 0..carried)));
        }
        let first = self.sequences.start;
        let source = hidden.slice(0, first + carried..first + active);
        isa.vectorize(CopyRows(source, target.slice(0, carried..active)));
    }
}

/// The cell's gradients at one step.
struct Cells<'a, T, C> {
    saved: View<'a, T, 2>,
    previous: View<'a, T, 2>,
    output: View<'a, T, 2>,
    output_gradient: Option<View<'a, T, 2>>,
    sums: ViewMut<'a, T, 2>,
    hidden_gradient: &'a mut [T],
    cell_gradient: &'a mut [T],
    /// Numbers from row to row of the two gradients.
    strides: [usize; 2],
    kind: std::marker::PhantomData<C>,
}

impl<T: Elementary, C: Cell> Kernel<T> for Cells<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let [rows, hidden_size] = self.output.shape();
        for row in 0..rows {
            let (saved, previous) = (self.saved.row(row), self.previous.row(row));
            let output = self.output.row(row);
            let output_gradient = self.output_gradient.map(|all| all.row(row)).unwrap_or_default();
            let sums = self.sums.row_mut(row);
            for (block, first) in (0..hidden_size).step_by(C::UNITS).enumerate() {
                let end = hidden_size.min(first + C::UNITS);
                let at = row * self.strides[0] + first;
                let cell_at = row * self.strides[1] + block * C::CELL_UNITS;
                C::backward(
                    isa,
                    BackwardStep {
                        saved: &saved[block * C::SAVED * C::UNITS..][..C::SAVED * C::UNITS],
                        previous: &previous[first..end],
                        hidden: &output[first..end],
                        output_gradient: output_gradient.get(first..end).unwrap_or_default(),
                        hidden_gradient: &mut self.hidden_gradient[at..][..C::UNITS],
                        cell_gradient: &mut self.cell_gradient[cell_at..][..C::CELL_UNITS],
                        sums: &mut sums[first..],
                        hidden_size,
                        units: end - first,
                    },
                );
            }
        }
    }
}
