//! The backward pass: step by step for the gates' gradients, then one product for each weight.

mod part;
mod sums;

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes};

use self::part::Part;
use self::sums::{column_sums, product_over_rows};
use super::cell::Cell;
use super::panels::Panels;
use super::weights::{Sizes, expect};
use super::{Steps, Weights, padded, part_rows, saved_columns};
use crate::gemm::{Matmul, NoEpilogue, Start, matmul};
use crate::math::Elementary;
use crate::parallel::{PackedRows, Team, flushing_denormals, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Columns of a panel of the recurrent weight: four vectors of the widest registers in float32.
const PANEL: usize = 64;

/// The gradients of one layer in one direction, from those of what [`forward`](super::forward())
/// returned. Rows are packed as [`Steps`] tells; cells without a cell state have one of 0 columns.
pub struct Backward<'a, T> {
    /// As in the forward pass.
    pub steps: &'a Steps,
    /// As in the forward pass; biases are not looked at.
    pub weights: Weights<'a, T>,
    /// As in the forward pass.
    pub input: View<'a, T, 2>,
    /// The initial hidden state, `(batch, hidden_size)`.
    pub hidden: View<'a, T, 2>,
    /// What the forward pass returned, `(total, hidden_size)`.
    pub output: View<'a, T, 2>,
    /// What it kept, `(total, saved_columns)`.
    pub saved: View<'a, T, 2>,
    /// The gradient of the output; `None` is 0.
    pub output_gradient: Option<View<'a, T, 2>>,
    /// The gradient of the final hidden state; `None` is 0.
    pub final_hidden_gradient: Option<View<'a, T, 2>>,
    /// The gradient of the final cell state; `None` is 0.
    pub final_cell_gradient: Option<View<'a, T, 2>>,
    /// What to compute, to be written in full.
    pub gradients: Gradients<'a, T>,
}

/// Where gradients go, in the shape of what they are gradients of.
pub struct Gradients<'a, T> {
    /// Of the input, unless nobody wants it.
    pub input: Option<ViewMut<'a, T, 2>>,
    /// Of the initial hidden state.
    pub hidden: ViewMut<'a, T, 2>,
    /// Of the initial cell state.
    pub cell: ViewMut<'a, T, 2>,
    /// Of the parameters, unless nobody wants them.
    pub weights: Option<WeightGradients<'a, T>>,
}

/// Where the parameters' gradients go.
pub struct WeightGradients<'a, T> {
    /// Of [`Weights::input`].
    pub input: ViewMut<'a, T, 2>,
    /// Of [`Weights::hidden`].
    pub hidden: ViewMut<'a, T, 2>,
    /// Of [`Weights::input_bias`], whether there is one or not.
    pub input_bias: ViewMut<'a, T, 1>,
    /// Of [`Weights::hidden_bias`], whether there is one or not.
    pub hidden_bias: ViewMut<'a, T, 1>,
}

/// Computes a layer's gradients.
///
/// # Errors
/// If shapes do not fit together, rows of gradients are not contiguous, or memory is short.
pub fn backward<T: Elementary, C: Cell>(call: Backward<'_, T>, team: &dyn Team) -> Result<()> {
    let cell = call.gradients.cell.as_view();
    let sizes = Sizes::check::<C, T>(call.steps, call.input, [call.hidden, cell], &call.weights)?;
    let [output, hidden, cell] = [
        [sizes.total, sizes.hidden_size],
        [sizes.batch, sizes.hidden_size],
        [sizes.batch, sizes.cell_size],
    ];
    let saved = [sizes.total, saved_columns::<C>(sizes.hidden_size)];
    expect("output", call.output.shape(), output)?;
    expect("what was saved", call.saved.shape(), saved)?;
    let outer = [
        ("the gradient of the output", &call.output_gradient, output),
        ("the gradient of the final hidden state", &call.final_hidden_gradient, hidden),
        ("the gradient of the final cell state", &call.final_cell_gradient, cell),
    ];
    for (name, gradient, shape) in outer {
        if let Some(gradient) = gradient {
            expect(name, gradient.shape(), shape)?;
        }
    }
    expect("the hidden state's gradient", call.gradients.hidden.shape(), hidden)?;
    let rows = [Some(call.output), Some(call.saved), call.output_gradient];
    let written = [call.gradients.hidden.as_view(), call.gradients.cell.as_view()];
    if rows.into_iter().flatten().chain(written).any(|rows| !rows.has_unit_columns()) {
        return Err(Error::Value("rows of outputs and gradients must be contiguous".into()));
    }
    flushing_denormals(team, |team| compute::<T, C>(call, sizes, team))
}

/// The gates' gradients step by step, and from them all others.
fn compute<T: Elementary, C: Cell>(
    call: Backward<'_, T>,
    sizes: Sizes,
    team: &dyn Team,
) -> Result<()> {
    let Sizes { total, hidden_size, .. } = sizes;
    let stride = padded(C::GRADIENTS * hidden_size);
    let mut sums = Scratch::take(total * stride)?;
    let mut previous = Scratch::take(total * hidden_size)?;
    let Gradients { input: input_gradient, hidden, cell, weights: weight_gradients } =
        call.gradients;
    T::dispatch(Recurrence::<T, C> {
        layer: Layer {
            steps: call.steps,
            sizes,
            hidden: call.hidden,
            output: call.output,
            saved: call.saved,
            output_gradient: call.output_gradient,
            final_gradients: [call.final_hidden_gradient, call.final_cell_gradient],
        },
        weight: call.weights.hidden,
        sums: ViewMut::contiguous(&mut sums, [total, stride])?,
        previous: ViewMut::contiguous(&mut previous, [total, hidden_size])?,
        hidden_gradient: hidden,
        cell_gradient: cell,
        team,
        kind: std::marker::PhantomData,
    })?;
    let sums = View::contiguous(&sums, [total, stride])?;
    let input_sums = sums.slice(1, 0..C::GATES * hidden_size);
    if let Some(c) = input_gradient {
        let (a, b) = (input_sums, call.weights.input);
        matmul(Matmul { a, b, c, start: Start::Zero, epilogue: NoEpilogue }, team)?;
    }
    let Some(mut gradients) = weight_gradients else { return Ok(()) };
    let previous = View::contiguous(&previous, [total, hidden_size])?;
    column_sums(input_sums, gradients.input_bias, team)?;
    product_over_rows(input_sums.transpose(), call.input, gradients.input, team)?;
    for run in runs::<C>() {
        let sums = sums.slice(1, run.slots(hidden_size));
        let gates = run.gates(hidden_size);
        let bias = gradients.hidden_bias.reborrow().slice(0, gates.clone());
        column_sums(sums, bias, team)?;
        let weight = gradients.hidden.reborrow().slice(0, gates);
        product_over_rows(sums.transpose(), previous, weight, team)?;
    }
    Ok(())
}

/// Neighbouring gates whose gradients with respect to the hidden state's product are neighbours.
struct GateRun {
    first_gate: usize,
    first_slot: usize,
    count: usize,
}

impl GateRun {
    /// The rows of the recurrent weight.
    fn gates(&self, hidden_size: usize) -> Range<usize> {
        self.first_gate * hidden_size..(self.first_gate + self.count) * hidden_size
    }

    /// The columns of the sums' gradients.
    fn slots(&self, hidden_size: usize) -> Range<usize> {
        self.first_slot * hidden_size..(self.first_slot + self.count) * hidden_size
    }
}

/// The shared gates, and the others: their second gradients lie behind those of all gates.
fn runs<C: Cell>() -> impl Iterator<Item = GateRun> {
    let shared = GateRun { first_gate: 0, first_slot: 0, count: C::SHARED };
    let apart =
        GateRun { first_gate: C::SHARED, first_slot: C::GATES, count: C::GATES - C::SHARED };
    [shared, apart].into_iter().filter(|run| run.count > 0)
}

/// What the parts share.
struct Layer<'a, T> {
    steps: &'a Steps,
    sizes: Sizes,
    hidden: View<'a, T, 2>,
    output: View<'a, T, 2>,
    saved: View<'a, T, 2>,
    output_gradient: Option<View<'a, T, 2>>,
    final_gradients: [Option<View<'a, T, 2>>; 2],
}

struct Recurrence<'a, T, C> {
    layer: Layer<'a, T>,
    weight: View<'a, T, 2>,
    /// The gradients of the gates' sums, of all steps.
    sums: ViewMut<'a, T, 2>,
    /// The hidden state before each step.
    previous: ViewMut<'a, T, 2>,
    hidden_gradient: ViewMut<'a, T, 2>,
    cell_gradient: ViewMut<'a, T, 2>,
    team: &'a dyn Team,
    kind: std::marker::PhantomData<C>,
}

impl<T: Elementary, C: Cell> Kernel<T> for Recurrence<'_, T, C> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { layer, team, .. } = self;
        let batch = layer.sizes.batch;
        let panels = Panels::pack(isa, self.weight, 1, PANEL, team)?;
        let rows = part_rows(batch, team);
        let (offsets, states) = (layer.steps.offsets(), [0, batch]);
        let parts = (
            PackedRows::new(self.sums, offsets, batch, rows),
            PackedRows::new(self.previous, offsets, batch, rows),
            PackedRows::new(self.hidden_gradient, &states, batch, rows),
            PackedRows::new(self.cell_gradient, &states, batch, rows),
        );
        try_for_each_part(team, parts, |index, (sums, previous, hidden, cell)| {
            Part::<T, C> {
                layer: &layer,
                panels: &panels,
                sequences: index * rows..batch.min((index + 1) * rows),
                sums,
                previous,
                hidden_gradient: hidden,
                cell_gradient: cell,
                kind: std::marker::PhantomData,
            }
            .run(isa)
        })
    }
}
