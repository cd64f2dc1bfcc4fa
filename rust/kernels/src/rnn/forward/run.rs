//! The forward pass of a run of sequences: input products in chunks of steps, then step by step.

use std::marker::PhantomData;
use std::ops::Range;

use fusewire_simd::{Abreast, Element, Factor, Kernel, Lanes, Real, Storage};

use super::Layer;
use crate::Result;
use crate::gemm::{Start, hold_tiles, stored_factors};
use crate::math::Elementary;
use crate::parallel::{PackedPart, Shift};
use crate::rnn::cell::{Cell, ForwardStep};
use crate::rnn::copies::{Factorise, Round, RoundToFactors, Widen, copy};
use crate::rnn::padded;
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Numbers of projected input at a time: half of a second-level cache in float32.
const PROJECTED: usize = 128 << 10;

/// Rows of it at least: the input's weight comes from a far cache, once for all of them.
const PROJECTED_ROWS: usize = 64;

/// Numbers of the hidden state's product at a time, unless a block has more: a third of a first-level
/// cache in float32.
const PRODUCT: usize = 4 << 10;

/// Blocks of it at most: every other step begins with the last ones. A single step reads its weight
/// in as few pieces as can be.
const MOST_BLOCKS: usize = 4;

/// Neighbouring sequences of the batch in one direction.
pub(super) struct Run<'p, 'a, E: Element, C> {
    pub(super) layer: &'p Layer<'a, E, C>,
    sequences: Range<usize>,
    /// Steps whose input is multiplied at a time.
    chunk: usize,
    kind: PhantomData<C>,
}

/// What belongs to one part of a run's units: where its results go, and what only it works with.
pub(super) struct Own<'p, E: Element> {
    units: Range<usize>,
    output: PackedPart<'p, E>,
    saved: PackedPart<'p, E::Real>,
    final_hidden: PackedPart<'p, E>,
    final_cell: PackedPart<'p, E>,
    /// The input of a chunk of steps, in rows of `padded` as many factors.
    inputs: Scratch<E::Factor>,
    /// Its product, in rows of `projected_stride` numbers `[block][gate][unit]`.
    projected: Scratch<E::Real>,
    projected_stride: usize,
    /// Rows of the chunk whose steps are done.
    done: usize,
    /// Blocks whose cells run together.
    group: usize,
    /// The last hidden state as factors; empty where its numbers are factors as they are.
    previous: Scratch<E::Factor>,
    /// The hidden state's product of a group of blocks.
    product: Scratch<E::Real>,
    /// The cell state in rows of whole blocks.
    cell: Scratch<E::Real>,
    cell_stride: usize,
    /// What is written where nothing is kept for the backward pass.
    unsaved: Scratch<E::Real>,
}

impl<'p, E: Element<Real: Elementary>> Own<'p, E> {
    /// A part's states before the first step, which are also the final ones of sequences without one.
    pub(super) fn new<C: Cell, I: Storage<E>>(
        isa: I,
        run: &Run<'_, '_, E, C>,
        units: Range<usize>,
        saved: PackedPart<'p, E::Real>,
        [output, mut final_hidden, mut final_cell]: [PackedPart<'p, E>; 3],
    ) -> Result<Self> {
        let Layer { sizes, hidden, cell, .. } = run.layer;
        let rows = run.rows();
        let blocks = units.len().div_ceil(C::UNITS);
        let most = if run.layer.steps.seq_len() > 1 { blocks.min(MOST_BLOCKS) } else { blocks };
        let group = (PRODUCT / (rows * C::COLUMNS)).clamp(1, most);
        let projected_stride = padded(blocks * C::COLUMNS);
        let cell_stride = if C::HAS_CELL_STATE { padded(blocks * C::UNITS) } else { 0 };
        copy(hidden.slice(0, run.sequences.clone()).slice(1, units.clone()), final_hidden.step(0));
        let mut own_cell = Scratch::zeros(rows * cell_stride)?;
        if C::HAS_CELL_STATE {
            let target = ViewMut::contiguous(&mut own_cell, [rows, cell_stride])?;
            let cell = cell.slice(0, run.sequences.clone()).slice(1, units.clone());
            isa.vectorize(Widen(cell, target.slice(1, 0..units.len())));
            copy(cell, final_cell.step(0));
        }
        Ok(Self {
            output,
            saved,
            final_hidden,
            final_cell,
            inputs: Scratch::take(run.chunk * rows * run.input_stride())?,
            projected: Scratch::take(run.chunk * rows * projected_stride)?,
            projected_stride,
            done: 0,
            group,
            previous: Scratch::take(match E::Factor::DEPTH {
                1 => 0,
                depth => rows * sizes.hidden_size.div_ceil(depth),
            })?,
            product: Scratch::zeros(rows * group * C::COLUMNS)?,
            cell: own_cell,
            cell_stride,
            unsaved: Scratch::take(C::SAVED * C::UNITS)?,
            units,
        })
    }
}

impl<'p, 'a, E: Element<Real: Elementary>, C: Cell> Run<'p, 'a, E, C> {
    pub(super) fn new(layer: &'p Layer<'a, E, C>, sequences: Range<usize>) -> Self {
        let columns = layer.sizes.hidden_size.div_ceil(C::UNITS) * C::COLUMNS;
        let rows = sequences.len().max(1);
        let chunk = (PROJECTED / (rows * padded(columns))).max(PROJECTED_ROWS.div_ceil(rows));
        let chunk = chunk.min(layer.steps.seq_len().max(1));
        Self { layer, sequences, chunk, kind: PhantomData }
    }

    /// Factors from row to row of the input.
    fn input_stride(&self) -> usize {
        padded(self.layer.sizes.input_size.div_ceil(E::Factor::DEPTH))
    }

    /// Sequences of the run.
    pub(super) fn rows(&self) -> usize {
        self.sequences.len()
    }

    /// Numbers from row to row of the hidden state, whose rows are whole blocks.
    pub(super) fn stride(&self) -> usize {
        padded(self.layer.sizes.hidden_size.div_ceil(C::UNITS) * C::UNITS)
    }

    /// The hidden state before and after a step, both of them the initial one, because in a run from
    /// the last step to the first sequences join later.
    pub(super) fn exchange<I: Storage<E>>(&self, isa: I) -> Result<Scratch<E::Real>> {
        let (rows, stride) = (self.rows(), self.stride());
        let mut states = Scratch::zeros(2 * rows * stride)?;
        let source = self.layer.hidden.slice(0, self.sequences.clone());
        for state in states.chunks_exact_mut((rows * stride).max(1)) {
            let target = ViewMut::contiguous(state, [rows, stride])?;
            isa.vectorize(Widen(source, target.slice(1, 0..source.columns())));
        }
        Ok(states)
    }

    /// One part of one step; what is worth vectors is compiled for them block by block.
    pub(super) fn shift<I: Storage<E>>(
        &self,
        isa: I,
        shift: Shift<'_, E::Real, Own<'_, E>>,
    ) -> Result<()> {
        let Shift { phase: step, last, mut next, own } = shift;
        let Layer { steps, sizes, hidden_weight, hidden_bias, .. } = self.layer;
        let _tiles = hold_tiles(isa);
        if step % self.chunk == 0 {
            self.project(isa, step, own)?;
        }
        let active = steps.active(Some(step), self.sequences.clone());
        let previous = last.slice(0, 0..active);
        let hidden = previous.slice(1, 0..sizes.hidden_size);
        let shape = [active, sizes.hidden_size.div_ceil(E::Factor::DEPTH)];
        let hidden = if E::Factor::DEPTH == 1 {
            stored_factors::<E::Factor>(hidden)
        } else {
            let factors = &mut own.previous[..shape[0] * shape[1]];
            isa.vectorize(RoundToFactors(hidden, ViewMut::contiguous(factors, shape)?));
            View::contiguous(factors, shape)?
        };
        let first_block = own.units.start / C::UNITS;
        let mut saved = own.saved.step(steps.time(step));
        let blocks = own.units.len().div_ceil(C::UNITS);
        let groups = blocks.div_ceil(own.group);
        for index in 0..groups {
            // Every other step backwards: what the last one read last is still near.
            let index = if step % 2 == 0 { index } else { groups - 1 - index };
            let group = index * own.group..blocks.min((index + 1) * own.group);
            let columns = group.len() * C::COLUMNS;
            let product = &mut own.product[..active * columns];
            hidden_weight.multiply(
                isa,
                first_block + group.start..first_block + group.end,
                hidden,
                ViewMut::contiguous(product, [active, columns])?,
                Start::Zero,
            )?;
            isa.vectorize::<E::Real, _>(Cells::<E::Real, C> {
                projected: &own.projected[own.done * own.projected_stride..],
                projected_stride: own.projected_stride,
                product: &own.product[..active * columns],
                bias: &hidden_bias[first_block * C::COLUMNS..],
                group,
                previous: previous.slice(1, own.units.start..last.columns()),
                next: next.reborrow(),
                cell: &mut own.cell,
                cell_stride: own.cell_stride,
                saved: self.layer.saves.then(|| saved.reborrow()),
                unsaved: &mut own.unsaved,
                kind: PhantomData,
            });
        }
        own.done += active;
        if self.layer.saves {
            // Padding as well: a result has no number that was not written.
            let kept = blocks * C::SAVED * C::UNITS;
            (0..active).for_each(|row| saved.row_mut(row)[kept..].fill(E::Real::ZERO));
        }
        self.store(isa, step, next.as_view().slice(1, 0..own.units.len()), own)
    }

    /// Multiplies the input of a chunk of steps.
    fn project<I: Storage<E>>(&self, isa: I, step: usize, own: &mut Own<'_, E>) -> Result<()> {
        let Layer { steps, sizes, input, input_weight, input_bias, .. } = self.layer;
        let (stride, columns) = (self.input_stride(), sizes.input_size.div_ceil(E::Factor::DEPTH));
        let mut count = 0;
        for step in step..steps.seq_len().min(step + self.chunk) {
            let from = steps.rows(steps.time(step), self.sequences.clone());
            let active = from.len();
            let rows = &mut own.inputs[count * stride..][..active * stride];
            let rows = ViewMut::contiguous(rows, [active, stride])?.slice(1, 0..columns);
            isa.vectorize(Factorise(input.slice(0, from), rows));
            count += active;
        }
        own.done = 0;
        let inputs = View::contiguous(&own.inputs[..count * stride], [count, stride])?;
        let inputs = inputs.slice(1, 0..columns);
        let target = &mut own.projected[..count * own.projected_stride];
        let blocks = own.units.len().div_ceil(C::UNITS);
        let first_block = own.units.start / C::UNITS;
        let bias = &input_bias[first_block * C::COLUMNS..][..blocks * C::COLUMNS];
        for row in target.chunks_exact_mut(own.projected_stride) {
            row[..bias.len()].copy_from_slice(bias);
        }
        let target = ViewMut::contiguous(target, [count, own.projected_stride])?;
        let target = target.slice(1, 0..blocks * C::COLUMNS);
        let blocks = first_block..first_block + blocks;
        input_weight.multiply(isa, blocks, inputs, target, Start::Accumulate)
    }

    /// Stores the new hidden states, and those of the sequences that end here once more.
    fn store<I: Storage<E>>(
        &self,
        isa: I,
        step: usize,
        hidden: View<'_, E::Real, 2>,
        own: &mut Own<'_, E>,
    ) -> Result<()> {
        let steps = self.layer.steps;
        let active = steps.active(Some(step), self.sequences.clone());
        isa.vectorize(Round(hidden.slice(0, 0..active), own.output.step(steps.time(step))));
        let ending = steps.active(Some(step + 1), self.sequences.clone()).min(active)..active;
        if ending.is_empty() {
            return Ok(());
        }
        let target = own.final_hidden.step(0).slice(0, ending.clone());
        isa.vectorize(Round(hidden.slice(0, ending.clone()), target));
        if C::HAS_CELL_STATE {
            let cell = View::contiguous(&own.cell, [self.rows(), own.cell_stride])?;
            let cell = cell.slice(1, 0..own.units.len()).slice(0, ending.clone());
            isa.vectorize(Round(cell, own.final_cell.step(0).slice(0, ending)));
        }
        Ok(())
    }
}

/// The cell on a group of blocks of the sequences of a step.
struct Cells<'a, T: Real, C> {
    /// The part's rows of the step, in columns of whole blocks.
    projected: &'a [T],
    projected_stride: usize,
    /// The group's rows.
    product: &'a [T],
    /// The part's.
    bias: &'a [T],
    /// The blocks' numbers in their part.
    group: Range<usize>,
    /// The part's columns of the hidden state.
    previous: View<'a, T, 2>,
    next: ViewMut<'a, T, 2>,
    cell: &'a mut [T],
    cell_stride: usize,
    saved: Option<ViewMut<'a, T, 2>>,
    unsaved: &'a mut [T],
    kind: PhantomData<C>,
}

impl<T: Elementary, C: Cell> Kernel<T> for Cells<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let columns = self.group.len() * C::COLUMNS;
        for (row, product) in self.product.chunks_exact(columns).enumerate() {
            let projected = &self.projected[row * self.projected_stride..];
            for (block, product) in self.group.clone().zip(product.chunks_exact(C::COLUMNS)) {
                let saved = match &mut self.saved {
                    Some(saved) => &mut saved.row_mut(row)[block * C::SAVED * C::UNITS..]
                        [..C::SAVED * C::UNITS],
                    None => &mut *self.unsaved,
                };
                let cell = row * self.cell_stride + block * C::CELL_UNITS;
                let step = ForwardStep {
                    projection: &projected[block * C::COLUMNS..][..C::COLUMNS],
                    product,
                    bias: &self.bias[block * C::COLUMNS..][..C::COLUMNS],
                    previous: &self.previous.row(row)[block * C::UNITS..][..C::UNITS],
                    hidden: &mut self.next.row_mut(row)[block * C::UNITS..][..C::UNITS],
                    cell: &mut self.cell[cell..][..C::CELL_UNITS],
                    saved,
                };
                if 2 * I::LANES <= C::UNITS {
                    C::forward(Abreast::<I, 2>(isa), step);
                } else {
                    C::forward(isa, step);
                }
            }
        }
    }
}
