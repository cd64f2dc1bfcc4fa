//! The forward pass: parts of the batch run the whole sequence without waiting for each other.

mod part;

use fusewire_simd::{Kernel, Lanes, Real};

use self::part::Part;
use super::cell::Cell;
use super::panels::Panels;
use super::weights::{Sizes, expect};
use super::{Steps, Weights, part_rows, saved_columns};
use crate::math::Elementary;
use crate::parallel::{PackedRows, Team, flushing_denormals, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// One layer in one direction. Rows are packed as [`Steps`] tells; cells without a cell state have
/// one of 0 columns.
pub struct Forward<'a, T> {
    /// How rows are packed, and in what order they come.
    pub steps: &'a Steps,
    /// The parameters.
    pub weights: Weights<'a, T>,
    /// `(total, input_size)`.
    pub input: View<'a, T, 2>,
    /// The initial hidden state, `(batch, hidden_size)`.
    pub hidden: View<'a, T, 2>,
    /// The initial cell state, `(batch, hidden_size)`.
    pub cell: View<'a, T, 2>,
    /// The hidden state after each step, `(total, hidden_size)`.
    pub output: ViewMut<'a, T, 2>,
    /// The hidden state after each sequence's last step, `(batch, hidden_size)`.
    pub final_hidden: ViewMut<'a, T, 2>,
    /// The cell state there, `(batch, hidden_size)`.
    pub final_cell: ViewMut<'a, T, 2>,
    /// What [`backward`](super::backward()) needs, `(total, saved_columns)`; `None` keeps nothing.
    pub saved: Option<ViewMut<'a, T, 2>>,
}

/// Runs a layer over whole sequences.
///
/// # Errors
/// If shapes do not fit together, rows of outputs are not contiguous, or memory is short.
pub fn forward<T: Elementary, C: Cell>(call: Forward<'_, T>, team: &dyn Team) -> Result<()> {
    let states = [call.hidden, call.cell];
    let sizes = Sizes::check::<C, T>(call.steps, call.input, states, &call.weights)?;
    expect("output", call.output.shape(), [sizes.total, sizes.hidden_size])?;
    expect("the final hidden state", call.final_hidden.shape(), [sizes.batch, sizes.hidden_size])?;
    expect("the final cell state", call.final_cell.shape(), [sizes.batch, sizes.cell_size])?;
    if let Some(saved) = &call.saved {
        let columns = saved_columns::<C>(sizes.hidden_size);
        expect("what is saved", saved.shape(), [sizes.total, columns])?;
    }
    let outputs = [Some(&call.output), Some(&call.final_hidden), Some(&call.final_cell)];
    if outputs.into_iter().chain([call.saved.as_ref()]).flatten().any(|o| !o.has_unit_columns()) {
        return Err(Error::Value("rows of outputs must be contiguous".into()));
    }
    flushing_denormals(team, |team| {
        T::dispatch(Run { call, sizes, team, kind: std::marker::PhantomData::<C> })
    })
}

struct Run<'a, T: Real, C> {
    call: Forward<'a, T>,
    sizes: Sizes,
    team: &'a dyn Team,
    kind: std::marker::PhantomData<C>,
}

/// What the parts share.
struct Layer<'a, T: Real> {
    steps: &'a Steps,
    sizes: Sizes,
    input: View<'a, T, 2>,
    hidden: View<'a, T, 2>,
    cell: View<'a, T, 2>,
    input_panels: Panels<T>,
    hidden_panels: Panels<T>,
    /// Per gate and unit in the order of the panels: what is added to the input's product.
    input_bias: Scratch<T>,
    /// What is added to the hidden state's product alone.
    hidden_bias: Scratch<T>,
    saves: bool,
}

impl<T: Elementary, C: Cell> Kernel<T> for Run<'_, T, C> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { call, sizes, team, .. } = self;
        let pack = |weight: View<'_, T, 2>| {
            Panels::pack(isa, weight.transpose(), C::GATES, C::UNITS, team)
        };
        let (input_bias, hidden_bias) = arrange_biases::<T, C>(&call.weights, sizes.hidden_size)?;
        let layer = Layer {
            steps: call.steps,
            sizes,
            input: call.input,
            hidden: call.hidden,
            cell: call.cell,
            input_panels: pack(call.weights.input)?,
            hidden_panels: pack(call.weights.hidden)?,
            input_bias,
            hidden_bias,
            saves: call.saved.is_some(),
        };
        let rows = part_rows(sizes.batch, team);
        let empty = &mut [];
        let saved = match call.saved {
            Some(saved) => saved,
            None => ViewMut::contiguous(empty, [sizes.total, 0])?,
        };
        let states = [0, sizes.batch];
        let parts = (
            PackedRows::new(call.output, call.steps.offsets(), sizes.batch, rows),
            PackedRows::new(saved, call.steps.offsets(), sizes.batch, rows),
            PackedRows::new(call.final_hidden, &states, sizes.batch, rows),
            PackedRows::new(call.final_cell, &states, sizes.batch, rows),
        );
        try_for_each_part(team, parts, |index, (output, saved, final_hidden, final_cell)| {
            let sequences = index * rows..sizes.batch.min((index + 1) * rows);
            Part::<T, C> {
                layer: &layer,
                sequences,
                output,
                saved,
                final_hidden,
                final_cell,
                kind: std::marker::PhantomData,
            }
            .run(isa)
        })
    }
}

/// The biases in the order of the panels; those of shared gates are added up in the first.
fn arrange_biases<T: Real, C: Cell>(
    weights: &Weights<'_, T>,
    hidden_size: usize,
) -> Result<(Scratch<T>, Scratch<T>)> {
    let columns = hidden_size.div_ceil(C::UNITS) * C::COLUMNS;
    let (mut input, mut hidden) = (Scratch::zeros(columns)?, Scratch::zeros(columns)?);
    for gate in 0..C::GATES {
        for unit in 0..hidden_size {
            let from = [gate * hidden_size + unit];
            let to = unit / C::UNITS * C::COLUMNS + gate * C::UNITS + unit % C::UNITS;
            let [of_input, of_hidden] = [weights.input_bias, weights.hidden_bias]
                .map(|bias| bias.map_or(T::ZERO, |bias| bias.get(from)));
            if gate < C::SHARED {
                input[to] = of_input + of_hidden;
            } else {
                input[to] = of_input;
                hidden[to] = of_hidden;
            }
        }
    }
    Ok((input, hidden))
}
