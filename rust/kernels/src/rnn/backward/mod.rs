//! The backward pass, in chunks of steps: step by step the gates' gradients, then from those of a chunk
//! one product for the input and for each weight.

mod direction;
mod run;

use std::marker::PhantomData;

use fusewire_simd::{Kernel, Lanes};

use self::direction::Direction;
use super::cell::Cell;
use super::cut::Cut;
use super::weights::{Sizes, expect};
use super::{Steps, Weights, saved_columns};
use crate::math::Elementary;
use crate::parallel::{Team, flushing_denormals, run_phases, run_tasks};
use crate::view::{View, ViewMut};
use crate::{Error, Result};

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

/// Computes the gradients of a layer's directions, at the same time where there are threads.
///
/// # Errors
/// If shapes do not fit together, rows of gradients are not contiguous, or memory is short.
pub fn backward<T: Elementary, C: Cell>(
    directions: Vec<Backward<'_, T>>,
    team: &dyn Team,
) -> Result<()> {
    for call in &directions {
        check::<T, C>(call)?;
    }
    flushing_denormals(team, |team| {
        T::dispatch(Directions { directions, team, kind: PhantomData::<C> })
    })
}

fn check<T: Elementary, C: Cell>(call: &Backward<'_, T>) -> Result<()> {
    let sizes = call.sizes::<C>()?;
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
    Ok(())
}

impl<T: Elementary> Backward<'_, T> {
    fn sizes<C: Cell>(&self) -> Result<Sizes> {
        let states = [self.hidden, self.gradients.cell.as_view()];
        Sizes::check::<C, T>(self.steps, self.input, states, &self.weights)
    }
}

struct Directions<'a, T, C> {
    directions: Vec<Backward<'a, T>>,
    team: &'a dyn Team,
    kind: PhantomData<C>,
}

impl<T: Elementary, C: Cell> Kernel<T> for Directions<'_, T, C> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { directions, team, .. } = self;
        let Some(first) = directions.first() else { return Ok(()) };
        let team = first.sizes::<C>()?.team(team);
        let count = directions.len();
        let mut directions = directions
            .into_iter()
            .map(|call| {
                let sizes = call.sizes::<C>()?;
                let cut = Cut::new(sizes, count, team.threads());
                Direction::<T, C>::new(isa, call, sizes, cut, team)
            })
            .collect::<Result<Vec<_>>>()?;
        let chunks = directions.iter().map(Direction::chunks).max().unwrap_or(0);
        for chunk in 0..chunks {
            let (mut phases, mut runs) = (Vec::new(), Vec::new());
            for direction in &mut directions {
                direction.begin(chunk, &mut phases, &mut runs)?;
            }
            run_phases(team, &phases, |index, shift| runs[index].shift(isa, shift))?;
            drop(phases);
            let mut tasks = Vec::new();
            for direction in &mut directions {
                direction.multiply(isa, chunk, team.threads(), &mut tasks)?;
            }
            run_tasks(team, tasks)?;
        }
        directions.iter_mut().try_for_each(Direction::finish)
    }
}
