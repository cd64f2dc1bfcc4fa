//! Whole stacks of layers on tensors straight from Python, past the dispatcher.

use fusewire_kernels::parallel::Team;
use fusewire_kernels::rnn::{Cell, Elman, Gru, Lstm, Relu, Tanh};
use fusewire_kernels::scratch::Scratch;
use fusewire_kernels::view::{View, ViewMut};
use fusewire_simd::Bf16;
use pyo3::prelude::*;

use super::{Layer, Layout, Results, weights_of, with_cell};
use crate::array::{Array, Float, Stored, with_number};
use crate::gate::{self, Failure, Result, served};
use crate::torch_abi::Tensor;

/// Layers of one kind of cell.
struct Stack<'a> {
    layout: Layout<'a>,
    directions: usize,
    /// Layers times directions.
    count: usize,
    input: &'a Tensor,
    /// The initial states, or none for zeros.
    states: &'a [Tensor],
    /// Those of a direction behind those of another, layer by layer.
    weights: &'a [Tensor],
}

impl Stack<'_> {
    /// The highest layer's output, laid out like the input, and the final states of all layers: one,
    /// or two where the cell has a state beside the hidden one.
    fn run<E: Stored, C: Cell>(&self, team: &dyn Team) -> Result<Vec<Tensor>> {
        let layout = self.input.layout("input")?;
        let batch = match (layout.rank, self.layout.batch_sizes.first()) {
            (3, None) => layout.shape[1],
            (2, Some(&size)) => usize::try_from(size).map_err(|_| misfit())?,
            _ => return Err(misfit()),
        };
        let count = self.count;
        if !count.is_multiple_of(self.directions) {
            return Err(misfit());
        }
        let weights = weights_of::<E, Tensor>(self.weights, count)?;
        let size = weights.first().ok_or_else(misfit)?.hidden.columns();
        let state_shape = [count, batch, size];
        let cell_shape = [count, batch, if C::HAS_CELL_STATE { size } else { 0 }];
        let nothing = Scratch::<E>::zeros(batch.saturating_mul(size))?;
        let initial = |index: usize, shape: [usize; 3]| match self.states.get(index) {
            None => {
                let zeros = View::contiguous(&nothing[..batch * shape[2]], [1, batch, shape[2]])?;
                Ok(zeros.broadcast(shape)?)
            }
            Some(state) => Some(state.view::<E, 3>("the state")?)
                .filter(|state| state.shape() == shape)
                .ok_or_else(misfit),
        };
        let (hidden, cell) = (initial(0, state_shape)?, initial(1, cell_shape)?);
        let mut final_hidden = Tensor::empty::<E>(&state_shape)?;
        // Only where there are any, because an empty tensor takes as long to make as another.
        let mut final_cell =
            C::HAS_CELL_STATE.then(|| Tensor::empty::<E>(&cell_shape)).transpose()?;
        let mut shape = layout.shape;
        shape[layout.rank - 1] = self.directions * size;
        let total = rows::<E>(self.input)?.rows();
        let steps = self.layout.directions(self.directions, total, batch)?;
        let mut below: Option<Tensor> = None;
        for first in (0..count).step_by(self.directions) {
            let these = first..first + self.directions;
            let mut output = Tensor::empty::<E>(&shape[..layout.rank])?;
            let layer = Layer {
                steps: &steps,
                weights: &weights[these.clone()],
                input: rows(below.as_ref().unwrap_or(self.input))?,
                hidden: hidden.slice(0, these.clone()),
                cell: cell.slice(0, these.clone()),
            };
            let results = Results {
                output: rows_mut(&mut output)?,
                hidden: final_hidden.view_mut("the state")?.slice(0, these.clone()),
                cell: match &mut final_cell {
                    Some(cell) => cell.view_mut("the cell state")?.slice(0, these),
                    None => ViewMut::contiguous(&mut [], [these.len(), batch, 0])?,
                },
                saved: None,
            };
            layer.forward::<C>(results, team)?;
            below = Some(output);
        }
        let mut results = vec![below.ok_or_else(misfit)?, final_hidden];
        results.extend(final_cell);
        Ok(results)
    }
}

/// Not a word for anybody to read: the way through the dispatcher tells what is wrong, if anything.
fn misfit() -> Failure {
    Failure::Value("the operands are not those of plain layers".into())
}

/// Packed rows, or steps of which one follows the other.
fn rows<E: Stored>(tensor: &Tensor) -> Result<View<'_, E, 2>> {
    match tensor.layout("input")?.rank {
        3 => tensor.view::<E, 3>("input")?.merge_rows().ok_or_else(misfit),
        _ => tensor.view("input"),
    }
}

fn rows_mut<E: Stored>(tensor: &mut Tensor) -> Result<ViewMut<'_, E, 2>> {
    match tensor.layout("output")?.rank {
        3 => tensor.view_mut::<E, 3>("output")?.merge_rows().ok_or_else(misfit),
        _ => tensor.view_mut("output"),
    }
}

/// Runs layers of tensors without gradients; nothing where they are not for our kernels as they are.
///
/// There is an entry of weights for each layer and direction.
#[pyfunction]
pub(crate) fn rnn_layers(
    py: Python<'_>,
    kind: &str,
    batch_sizes: Vec<i64>,
    directions: usize,
    input: Tensor,
    states: Vec<Tensor>,
    weights: Vec<Vec<Tensor>>,
) -> PyResult<Option<Vec<Tensor>>> {
    let layout = Layout::of_layer(kind, &batch_sizes);
    let count = weights.len();
    let weights: Vec<Tensor> = weights.into_iter().flatten().collect();
    let (input, states, weights) = (&input, states.as_slice(), weights.as_slice());
    let stack = Stack { layout, directions, count, input, states, weights };
    gate::enter(py, |team| {
        let run = || match input.dtype("input")? {
            Float::BFloat16 => with_cell!(kind, C => stack.run::<Bf16, C>(team)),
            dtype => with_number!(dtype, T => with_cell!(kind, C => stack.run::<T, C>(team))),
        };
        served(run())
    })
}
