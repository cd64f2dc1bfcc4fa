//! A layer's operands of both doors, and the passes that they go through once their type is known.

use fusewire_kernels::parallel::{Team, all_parts};
use fusewire_kernels::rnn::{self, Cell, Elman, Gradients, Gru, Lstm, Relu, Tanh, WeightGradients};
use fusewire_kernels::view::{View, ViewMut};

use super::{Layer, Layout, Results, weights_of, with_cell};
use crate::array::{Array, Number, with_number};
use crate::gate::{Failure, Result};

/// A layer's operands, still untyped.
pub(super) struct Operands<'a, A> {
    pub(super) input: &'a A,
    pub(super) hidden: &'a A,
    pub(super) cell: &'a A,
    pub(super) weights: &'a [A],
}

/// What a backward pass is given beside the operands, and what it shall compute.
pub(super) struct Wanted<'a, A> {
    pub(super) output: &'a A,
    pub(super) saved: &'a A,
    /// The gradients of the output, the final hidden state and the final cell state.
    pub(super) gradients: [Option<&'a A>; 3],
    pub(super) for_input: bool,
    pub(super) for_weights: bool,
}

impl<A: Array> Operands<'_, A> {
    /// 1 where states are those of a single step, without a dimension for the directions, which
    /// results lack then too.
    fn alone(&self) -> Result<usize> {
        Ok(usize::from(self.hidden.layout("the state")?.rank == 2))
    }

    pub(super) fn forward(
        &self,
        layout: Layout<'_>,
        keep: bool,
        team: &dyn Team,
    ) -> Result<[A; 4]> {
        with_number!(self.input.dtype("input")?, T => {
            with_cell!(layout.kind, C => self.forward_with::<T, C>(layout, keep, team))
        })
    }

    /// Output, final hidden state, final cell state, and what the backward pass needs.
    fn forward_with<T: Number, C: Cell>(
        &self,
        layout: Layout<'_>,
        keep: bool,
        team: &dyn Team,
    ) -> Result<[A; 4]> {
        let input = self.input.view::<T, 2>("input")?;
        let hidden = each_view::<T, A>(self.hidden, "the state")?;
        let cell = each_view::<T, A>(self.cell, "the cell state")?;
        let [directions, batch, size] = hidden.shape();
        let (total, alone) = (input.rows(), self.alone()?);
        let layer = Layer {
            steps: &layout.directions(directions, total, batch)?,
            weights: &weights_of(self.weights, directions)?,
            input,
            hidden,
            cell,
        };
        let saved = if keep { [directions, total, rnn::saved_columns::<C>(size)] } else { [0; 3] };
        let mut output = A::empty::<T>(&[total, directions * size])?;
        let mut final_hidden = A::empty::<T>(&[directions, batch, size][alone..])?;
        let mut final_cell = A::empty::<T>(&cell.shape()[alone..])?;
        let mut saved = A::empty::<T>(&saved[alone..])?;
        let results = Results {
            output: output.view_mut("output")?,
            hidden: each_view_mut::<T, A, 2, 3>(&mut final_hidden)?,
            cell: each_view_mut::<T, A, 2, 3>(&mut final_cell)?,
            saved: if keep { Some(each_view_mut::<T, A, 2, 3>(&mut saved)?) } else { None },
        };
        layer.forward::<C>(results, team)?;
        Ok([output, final_hidden, final_cell, saved])
    }

    pub(super) fn backward(
        &self,
        layout: Layout<'_>,
        wanted: &Wanted<'_, A>,
        team: &dyn Team,
    ) -> Result<[A; 7]> {
        with_number!(self.input.dtype("input")?, T => {
            with_cell!(layout.kind, C => self.backward_with::<T, C>(layout, wanted, team))
        })
    }

    /// The gradients of the operands, those of input and weights for each direction; what is not
    /// wanted has no numbers in it.
    fn backward_with<T: Number, C: Cell>(
        &self,
        layout: Layout<'_>,
        wanted: &Wanted<'_, A>,
        team: &dyn Team,
    ) -> Result<[A; 7]> {
        let input = self.input.view::<T, 2>("input")?;
        let hidden = each_view::<T, A>(self.hidden, "the state")?;
        let cell = each_view::<T, A>(self.cell, "the cell state")?;
        let [directions, batch, size] = hidden.shape();
        let alone = self.alone()?;
        let steps = layout.directions(directions, input.rows(), batch)?;
        let weights = weights_of::<T, A>(self.weights, directions)?;
        let [rows, depth] = weights[0].input.shape();
        let place = |wanted, shape: &[usize]| {
            let shape = &shape[alone..];
            A::empty::<T>(if wanted { shape } else { &[0; 3][..shape.len()] })
        };
        let mut of_input = place(wanted.for_input, &[directions, input.rows(), depth])?;
        let mut of_hidden = place(true, &hidden.shape())?;
        let mut of_cell = place(true, &cell.shape())?;
        let mut of_weight_ih = place(wanted.for_weights, &[directions, rows, depth])?;
        let mut of_weight_hh = place(wanted.for_weights, &[directions, rows, size])?;
        let mut of_bias_ih = place(wanted.for_weights, &[directions, rows])?;
        let mut of_bias_hh = place(wanted.for_weights, &[directions, rows])?;
        let mut inputs = each::<T, A, 2, 3>(&mut of_input)?;
        let mut weight_gradients = each::<T, A, 2, 3>(&mut of_weight_ih)?
            .zip(each::<T, A, 2, 3>(&mut of_weight_hh)?)
            .zip(each::<T, A, 1, 2>(&mut of_bias_ih)?.zip(each::<T, A, 1, 2>(&mut of_bias_hh)?))
            .map(|((input, hidden), (input_bias, hidden_bias))| WeightGradients {
                input: input.inner([0]),
                hidden: hidden.inner([0]),
                input_bias: input_bias.inner([0]),
                hidden_bias: hidden_bias.inner([0]),
            });
        let states = each::<T, A, 2, 3>(&mut of_hidden)?.zip(each::<T, A, 2, 3>(&mut of_cell)?);
        let output = wanted.output.view::<T, 2>("output")?;
        let saved = each_view::<T, A>(wanted.saved, "saved")?;
        let [of_output, of_final_hidden, of_final_cell] = wanted.gradients;
        let of_output =
            of_output.map(|array| array.view::<T, 2>("the gradient of the output")).transpose()?;
        let of_final_hidden = optional::<T, A>(of_final_hidden, "the state's gradient")?;
        let of_final_cell = optional::<T, A>(of_final_cell, "the cell state's gradient")?;
        let calls = states.enumerate().map(|(index, (hidden_gradient, cell_gradient))| {
            let columns = index * size..(index + 1) * size;
            rnn::Backward {
                steps: &steps[index],
                weights: weights[index],
                input,
                hidden: hidden.inner([index]),
                output: output.slice(1, columns.clone()),
                saved: saved.inner([index]),
                output_gradient: of_output.map(|gradient| gradient.slice(1, columns)),
                final_hidden_gradient: of_final_hidden.map(|gradient| gradient.inner([index])),
                final_cell_gradient: of_final_cell.map(|gradient| gradient.inner([index])),
                gradients: Gradients {
                    // Of a step, what is not wanted is one block without numbers.
                    input: inputs
                        .next()
                        .filter(|_| wanted.for_input)
                        .map(|gradient| gradient.inner([0])),
                    hidden: hidden_gradient.inner([0]),
                    cell: cell_gradient.inner([0]),
                    weights: weight_gradients.next().filter(|_| wanted.for_weights),
                },
            }
        });
        rnn::backward::<T, C>(calls.collect(), team)?;
        Ok([of_input, of_hidden, of_cell, of_weight_ih, of_weight_hh, of_bias_ih, of_bias_hh])
    }
}

fn optional<'a, T: Number, A: Array>(
    array: Option<&'a A>,
    name: &str,
) -> Result<Option<View<'a, T, 3>>> {
    array.map(|array| each_view(array, name)).transpose()
}

/// A state of each direction, or what is kept or asked for beside it; of a step that of the only one.
fn each_view<'a, T: Number, A: Array>(array: &'a A, name: &str) -> Result<View<'a, T, 3>> {
    match array.layout(name)?.rank {
        2 => Ok(array.view::<T, 2>(name)?.alone()),
        _ => array.view(name),
    }
}

/// The same to be written, of `M` dimensions beside that of the directions.
fn each_view_mut<T: Number, A: Array, const M: usize, const N: usize>(
    array: &mut A,
) -> Result<ViewMut<'_, T, N>> {
    let name = "a result";
    if array.layout(name)?.rank == M {
        return Ok(array.view_mut::<T, M>(name)?.alone());
    }
    array.view_mut(name)
}

/// What belongs to each direction, of an array that holds both behind each other.
fn each<T: Number, A: Array, const M: usize, const N: usize>(
    array: &mut A,
) -> Result<std::vec::IntoIter<ViewMut<'_, T, N>>> {
    let mut block = [0; N];
    block[0] = 1;
    Ok(all_parts(each_view_mut::<T, A, M, N>(array)?.blocks(block)).into_iter())
}
