//! Recurrent layers for both doors; docs in `ops/rnn` tell the operands' shapes.

mod operands;
mod stack;

use std::ffi::CStr;

use fusewire_kernels::parallel::{Team, all_parts};
use fusewire_kernels::rnn::{self, Cell, Elman, Gru, Lstm, Relu, Steps, Tanh, Weights};
use fusewire_kernels::view::{View, ViewMut};
use pyo3::prelude::*;

use crate::array::{Array, NumpyArray, Real, Stored};
use crate::gate::{self, Failure, Result, served};
use crate::torch_abi::{Library, Operator, Tensor, Text};

use operands::{Operands, Wanted};
pub(crate) use stack::rnn_layers;

/// Evaluates an expression with the type `$cell` bound to the cell of the name `$kind`.
macro_rules! with_cell {
    ($kind:expr, $cell:ident => $body:expr) => {
        match $kind {
            "tanh" => {
                type $cell = Elman<Tanh>;
                $body
            }
            "relu" => {
                type $cell = Elman<Relu>;
                $body
            }
            "lstm" => {
                type $cell = Lstm;
                $body
            }
            "gru" => {
                type $cell = Gru;
                $body
            }
            kind => Err(Failure::Value(format!(
                "the cell must be one of tanh, relu, lstm, gru, but is {kind:?}"
            ))),
        }
    };
}
use with_cell;

/// Which cell, and how the rows of its sequences are packed; no batch sizes stand for equal lengths.
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) kind: &'a str,
    pub(crate) batch_sizes: &'a [i64],
    pub(crate) reverse: bool,
}

impl<'a> Layout<'a> {
    /// That of a layer, each of whose directions has an order of its own.
    fn of_layer(kind: &'a str, batch_sizes: &'a [i64]) -> Self {
        Self { kind, batch_sizes, reverse: false }
    }

    pub(crate) fn steps(&self, total: usize, batch: usize) -> Result<Steps> {
        if !self.batch_sizes.is_empty() {
            let sizes: Vec<usize> = self
                .batch_sizes
                .iter()
                .map(|&size| usize::try_from(size))
                .collect::<std::result::Result<_, _>>()
                .map_err(|_| Failure::Value("batch_sizes must not be negative".into()))?;
            return Ok(Steps::new(&sizes, batch, self.reverse)?);
        }
        let seq_len = total.checked_div(batch).unwrap_or(0);
        if seq_len * batch != total {
            return Err(Failure::Value(format!(
                "input must have as many rows for each of {batch} sequences, but has {total}"
            )));
        }
        Ok(Steps::equal(seq_len, batch, self.reverse)?)
    }

    /// Those of the first direction, which runs forward, and of the second, which runs backward.
    fn directions(&self, count: usize, total: usize, batch: usize) -> Result<Vec<Steps>> {
        if !(1..=2).contains(&count) {
            return Err(Failure::Value(format!("there are 1 or 2 directions, not {count}")));
        }
        (0..count).map(|index| Self { reverse: index == 1, ..*self }.steps(total, batch)).collect()
    }
}

/// The weights of each direction: two, or four with biases.
fn weights_of<'a, E: Stored, A: Array>(
    weights: &'a [A],
    directions: usize,
) -> Result<Vec<Weights<'a, E>>> {
    let each = weights.len().checked_div(directions).unwrap_or(0);
    if ![2, 4].contains(&each) || each * directions != weights.len() {
        return Err(Failure::Value(format!(
            "each direction must have 2 or 4 weights, but {directions} have {}",
            weights.len()
        )));
    }
    weights
        .chunks_exact(each)
        .map(|weights| {
            let bias = |index: usize, name| weights.get(index).map(|bias| bias.view(name));
            Ok(Weights {
                input: weights[0].view("weight_ih")?,
                hidden: weights[1].view("weight_hh")?,
                input_bias: bias(2, "bias_ih").transpose()?,
                hidden_bias: bias(3, "bias_hh").transpose()?,
            })
        })
        .collect()
}

/// One layer in its directions. States are `(directions, batch, hidden_size)`, outputs of the
/// directions stand side by side.
struct Layer<'a, E> {
    steps: &'a [Steps],
    weights: &'a [Weights<'a, E>],
    input: View<'a, E, 2>,
    hidden: View<'a, E, 3>,
    cell: View<'a, E, 3>,
}

/// Where its results go.
struct Results<'a, E: Stored> {
    output: ViewMut<'a, E, 2>,
    hidden: ViewMut<'a, E, 3>,
    cell: ViewMut<'a, E, 3>,
    saved: Option<ViewMut<'a, Real<E>, 3>>,
}

impl<E: Stored> Layer<'_, E> {
    fn forward<C: Cell>(&self, results: Results<'_, E>, team: &dyn Team) -> Result<()> {
        let size = results.hidden.shape()[2];
        let outputs = all_parts(results.output.blocks([0, size]));
        let hidden = all_parts(results.hidden.blocks([1, 0, 0]));
        let cell = all_parts(results.cell.blocks([1, 0, 0]));
        let mut saved = results.saved.map(|saved| all_parts(saved.blocks([1, 0, 0])).into_iter());
        let calls = outputs.into_iter().zip(hidden).zip(cell).enumerate();
        let calls = calls.map(|(index, ((output, final_hidden), final_cell))| rnn::Forward {
            steps: &self.steps[index],
            weights: self.weights[index],
            input: self.input,
            hidden: self.hidden.inner([index]),
            cell: self.cell.inner([index]),
            output,
            final_hidden: final_hidden.inner([0]),
            final_cell: final_cell.inner([0]),
            saved: saved.as_mut().and_then(Iterator::next).map(|saved| saved.inner([0])),
        });
        Ok(rnn::forward::<E, C>(calls.collect(), team)?)
    }
}

/// Cell and batch sizes, from Python.
type PyLayout = (String, Vec<i64>);

#[pyfunction]
pub(crate) fn rnn_layer(
    py: Python<'_>,
    layout: PyLayout,
    states: (NumpyArray, NumpyArray, NumpyArray),
    weights: Vec<NumpyArray>,
    keep: bool,
) -> PyResult<[NumpyArray; 4]> {
    let (input, hidden, cell) = &states;
    let operands = Operands { input, hidden, cell, weights: &weights };
    gate::enter(py, |team| operands.forward(Layout::of_layer(&layout.0, &layout.1), keep, team))
}

#[pyfunction]
pub(crate) fn rnn_layer_backward(
    py: Python<'_>,
    layout: PyLayout,
    states: (NumpyArray, NumpyArray, NumpyArray),
    weights: Vec<NumpyArray>,
    results: (NumpyArray, NumpyArray),
    gradients: (Option<NumpyArray>, Option<NumpyArray>, Option<NumpyArray>),
) -> PyResult<[NumpyArray; 7]> {
    let (input, hidden, cell) = &states;
    let operands = Operands { input, hidden, cell, weights: &weights };
    let wanted = Wanted {
        output: &results.0,
        saved: &results.1,
        gradients: [gradients.0.as_ref(), gradients.1.as_ref(), gradients.2.as_ref()],
        for_input: true,
        for_weights: true,
    };
    let layout = Layout::of_layer(&layout.0, &layout.1);
    gate::enter(py, |team| operands.backward(layout, &wanted, team))
}

/// A layer of tensors, past the dispatcher, with what its backward pass needs; nothing where the
/// dispatcher must see them or say what is wrong.
#[pyfunction]
pub(crate) fn apply_rnn_layer(
    py: Python<'_>,
    layout: PyLayout,
    states: (Tensor, Tensor, Tensor),
    weights: Vec<Tensor>,
) -> PyResult<Option<[Tensor; 4]>> {
    let (input, hidden, cell) = &states;
    let operands = Operands { input, hidden, cell, weights: &weights };
    let layout = Layout::of_layer(&layout.0, &layout.1);
    gate::enter(py, |team| served(operands.forward(layout, true, team)))
}

/// The gradients of [`apply_rnn_layer`]; what is not wanted comes out empty.
#[pyfunction]
pub(crate) fn apply_rnn_layer_backward(
    py: Python<'_>,
    layout: PyLayout,
    states: (Tensor, Tensor, Tensor),
    weights: Vec<Tensor>,
    results: (Tensor, Tensor),
    gradients: [Option<Tensor>; 3],
    kinds: (bool, bool),
) -> PyResult<Option<[Tensor; 7]>> {
    let (input, hidden, cell) = &states;
    let operands = Operands { input, hidden, cell, weights: &weights };
    let wanted = Wanted {
        output: &results.0,
        saved: &results.1,
        gradients: gradients.each_ref().map(Option::as_ref),
        for_input: kinds.0,
        for_weights: kinds.1,
    };
    let layout = Layout::of_layer(&layout.0, &layout.1);
    gate::enter(py, |team| served(operands.backward(layout, &wanted, team)))
}

/// The numbers per row of what a forward pass keeps for the backward pass.
#[pyfunction]
pub(crate) fn rnn_saved_columns(kind: &str, hidden_size: usize) -> PyResult<usize> {
    Ok(with_cell!(kind, C => Ok(rnn::saved_columns::<C>(hidden_size)))?)
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"rnn_layer";
    type Arguments = (Tensor, Tensor, Tensor, Vec<Tensor>, Text, Vec<i64>, bool);
    type Results = [Tensor; 4];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 4]> {
        let (input, hidden, cell, weights, kind, sizes, keep) = &arguments;
        let operands = Operands { input, hidden, cell, weights };
        operands.forward(Layout::of_layer(kind.as_str(), sizes), *keep, team)
    }
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"rnn_layer_backward";
    #[rustfmt::skip]
    type Arguments = (
        Option<Tensor>, Option<Tensor>, Option<Tensor>, Tensor, Tensor, Tensor, Vec<Tensor>,
        Tensor, Tensor, Text, Vec<i64>, bool, bool,
    );
    type Results = [Tensor; 7];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 7]> {
        let (grad_output, grad_hidden, grad_cell, input, hidden, cell, weights, ..) = &arguments;
        let (.., output, saved, kind, batch_sizes, for_input, for_weights) = &arguments;
        let operands = Operands { input, hidden, cell, weights };
        let wanted = Wanted {
            output,
            saved,
            gradients: [grad_output.as_ref(), grad_hidden.as_ref(), grad_cell.as_ref()],
            for_input: *for_input,
            for_weights: *for_weights,
        };
        operands.backward(Layout::of_layer(kind.as_str(), batch_sizes), &wanted, team)
    }
}

/// Registers the operators whose schemas `ops/rnn/layer.py` declares.
pub(crate) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()?;
    library.add::<Backward>()
}
