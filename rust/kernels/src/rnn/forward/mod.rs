//! The forward pass: runs of sequences in every direction, step by step.

mod run;

use std::marker::PhantomData;
use std::ops::Range;

use fusewire_simd::{Element, Kernel, Storage};

use self::run::{Own, Run};
use super::cell::Cell;
use super::copies::Widen;
use super::cut::Cut;
use super::panels::GateWeight;
use super::weights::{Sizes, expect};
use super::{Steps, Weights, saved_columns};
use crate::math::Elementary;
use crate::parallel::{PackedRows, Phases, Team, all_parts, flushing_denormals, run_phases};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// One layer in one direction. Rows are packed as [`Steps`] tells; cells without a cell state have
/// one of 0 columns.
///
/// Cells compute with [`Element::Real`]; of other types, hidden states are rounded to factors for the
/// products with them, and results once at the end.
pub struct Forward<'a, E: Element> {
    /// How rows are packed, and in what order they come.
    pub steps: &'a Steps,
    /// The parameters.
    pub weights: Weights<'a, E>,
    /// `(total, input_size)`.
    pub input: View<'a, E, 2>,
    /// The initial hidden state, `(batch, hidden_size)`.
    pub hidden: View<'a, E, 2>,
    /// The initial cell state, `(batch, hidden_size)`.
    pub cell: View<'a, E, 2>,
    /// The hidden state after each step, `(total, hidden_size)`.
    pub output: ViewMut<'a, E, 2>,
    /// The hidden state after each sequence's last step, `(batch, hidden_size)`.
    pub final_hidden: ViewMut<'a, E, 2>,
    /// The cell state there, `(batch, hidden_size)`.
    pub final_cell: ViewMut<'a, E, 2>,
    /// What [`backward`](super::backward()) needs, `(total, saved_columns)`; `None` keeps nothing.
    pub saved: Option<ViewMut<'a, E::Real, 2>>,
}

/// Runs the directions of a layer over whole sequences, at the same time where there are threads.
///
/// # Errors
/// If shapes do not fit together, rows of outputs are not contiguous, or memory is short.
pub fn forward<E: Element<Real: Elementary>, C: Cell>(
    directions: Vec<Forward<'_, E>>,
    team: &dyn Team,
) -> Result<()> {
    for call in &directions {
        check::<E, C>(call)?;
    }
    flushing_denormals(team, |team| {
        E::dispatch(Directions { directions, team, kind: PhantomData::<C> })
    })
}

fn check<E: Element, C: Cell>(call: &Forward<'_, E>) -> Result<()> {
    let sizes = call.sizes::<C>()?;
    expect("output", call.output.shape(), [sizes.total, sizes.hidden_size])?;
    expect("the final hidden state", call.final_hidden.shape(), [sizes.batch, sizes.hidden_size])?;
    expect("the final cell state", call.final_cell.shape(), [sizes.batch, sizes.cell_size])?;
    if let Some(saved) = &call.saved {
        let columns = saved_columns::<C>(sizes.hidden_size);
        expect("what is saved", saved.shape(), [sizes.total, columns])?;
    }
    let outputs = [&call.output, &call.final_hidden, &call.final_cell];
    let saved = call.saved.as_ref().is_none_or(ViewMut::has_unit_columns);
    if !(saved && outputs.into_iter().all(ViewMut::has_unit_columns)) {
        return Err(Error::Value("rows of outputs must be contiguous".into()));
    }
    Ok(())
}

impl<E: Element> Forward<'_, E> {
    fn sizes<C: Cell>(&self) -> Result<Sizes> {
        Sizes::check::<C, E>(self.steps, self.input, [self.hidden, self.cell], &self.weights)
    }
}

struct Directions<'a, E: Element, C> {
    directions: Vec<Forward<'a, E>>,
    team: &'a dyn Team,
    kind: PhantomData<C>,
}

/// What the runs of one direction share.
struct Layer<'a, E: Element, C> {
    steps: &'a Steps,
    sizes: Sizes,
    input: View<'a, E, 2>,
    hidden: View<'a, E, 2>,
    cell: View<'a, E, 2>,
    input_weight: GateWeight<'a, E, C>,
    hidden_weight: GateWeight<'a, E, C>,
    /// Per block, gate and unit: what is added to the input's product.
    input_bias: Scratch<E::Real>,
    /// What is added to the hidden state's product alone.
    hidden_bias: Scratch<E::Real>,
    saves: bool,
    /// Where the rows of the final states, a single time's, begin and end.
    state_offsets: [usize; 2],
}

impl<'a, E: Element<Real: Elementary>, C: Cell> Layer<'a, E, C> {
    fn new<I: Storage<E>>(isa: I, call: &Forward<'a, E>, team: &dyn Team) -> Result<Self> {
        let sizes = call.sizes::<C>()?;
        let [input_bias, hidden_bias] =
            arrange_biases::<E, C, I>(isa, &call.weights, sizes.hidden_size)?;
        let weight = |weight, few| GateWeight::new(isa, weight, few, team);
        Ok(Self {
            steps: call.steps,
            sizes,
            input: call.input,
            hidden: call.hidden,
            cell: call.cell,
            input_weight: weight(call.weights.input, sizes.has_few_rows())?,
            hidden_weight: weight(call.weights.hidden, sizes.has_few_sequences())?,
            input_bias,
            hidden_bias,
            saves: call.saved.is_some(),
            state_offsets: [0, sizes.batch],
        })
    }
}

impl<E: Element<Real: Elementary>, C: Cell> Kernel<E> for Directions<'_, E, C> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { directions, team, .. } = self;
        let Some(first) = directions.first() else { return Ok(()) };
        let team = first.sizes::<C>()?.team(team);
        let layers = directions
            .iter()
            .map(|call| Layer::<E, C>::new(isa, call, team))
            .collect::<Result<Vec<_>>>()?;
        let count = layers.len();
        let mut runs = Vec::new();
        let mut owners = Vec::new();
        for (layer, call) in layers.iter().zip(directions) {
            let Sizes { batch, total, hidden_size, .. } = layer.sizes;
            let cut = Cut::new(layer.sizes, count, team.threads());
            let saved = match call.saved {
                Some(saved) => saved,
                None => ViewMut::contiguous(&mut [], [total, 0])?,
            };
            let pack = |view, offsets| all_parts(PackedRows::new(view, offsets, batch, cut.rows));
            let saved = PackedRows::new(saved, layer.steps.offsets(), batch, cut.rows);
            let outputs = pack(call.output, layer.steps.offsets())
                .into_iter()
                .zip(all_parts(saved))
                .zip(pack(call.final_hidden, &layer.state_offsets))
                .zip(pack(call.final_cell, &layer.state_offsets));
            for (index, (((output, saved), final_hidden), final_cell)) in outputs.enumerate() {
                let run = Run::<E, C>::new(layer, cut.sequences(index, batch));
                let columns = cut.units;
                let own = output
                    .cut(cut.parts, columns)
                    .into_iter()
                    .zip(saved.cut(cut.parts, columns * C::SAVED))
                    .zip(final_hidden.cut(cut.parts, columns))
                    .zip(final_cell.cut(cut.parts, columns))
                    .enumerate()
                    .map(|(part, (((output, saved), final_hidden), final_cell))| {
                        let units = cut.part(part, hidden_size);
                        Own::new(isa, &run, units, saved, [output, final_hidden, final_cell])
                    })
                    .collect::<Result<Vec<_>>>()?;
                owners.push((own, cut.units, run.exchange(isa)?));
                runs.push(run);
            }
        }
        let mut phases = Vec::new();
        for ((own, units, exchange), run) in owners.iter_mut().zip(&runs) {
            let stride = run.stride();
            let exchange = ViewMut::contiguous(exchange, [2, run.rows(), stride])?;
            let steps = 0..run.layer.steps.seq_len();
            phases.push(Phases::new(steps, exchange, *units, std::mem::take(own)));
        }
        run_phases(team, &phases, |index, shift| runs[index].shift(isa, shift))
    }
}

/// The biases in the order of the blocks; those of shared gates are added up in the first.
fn arrange_biases<E: Element, C: Cell, I: Storage<E>>(
    isa: I,
    weights: &Weights<'_, E>,
    hidden_size: usize,
) -> Result<[Scratch<E::Real>; 2]> {
    let columns = hidden_size.div_ceil(C::UNITS) * C::COLUMNS;
    let [mut input, mut hidden] = [Scratch::zeros(columns)?, Scratch::zeros(columns)?];
    let mut numbers = Scratch::take(C::GATES * hidden_size)?;
    let mut add = |bias: Option<View<'_, E, 1>>, target: &mut [E::Real], gates: Range<usize>| {
        let Some(bias) = bias else { return Ok(()) };
        let row = ViewMut::contiguous(&mut numbers, [1, C::GATES * hidden_size])?;
        isa.vectorize(Widen(bias.alone(), row));
        for gate in gates {
            let from = numbers[gate * hidden_size..][..hidden_size].chunks(C::UNITS);
            for (units, target) in from.zip(target.chunks_exact_mut(C::COLUMNS)) {
                let target = &mut target[gate * C::UNITS..][..C::UNITS];
                target.iter_mut().zip(units).for_each(|(target, &unit)| *target += unit);
            }
        }
        Ok(())
    };
    add(weights.input_bias, &mut input, 0..C::GATES)?;
    add(weights.hidden_bias, &mut input, 0..C::SHARED)?;
    add(weights.hidden_bias, &mut hidden, C::SHARED..C::GATES)?;
    Ok([input, hidden])
}
