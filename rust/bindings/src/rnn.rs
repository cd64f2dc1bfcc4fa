//! A recurrent layer in one direction for both doors; docs in `ops/rnn` tell the operands' shapes.

use std::ffi::CStr;

use fusewire_kernels::parallel::Team;
use fusewire_kernels::rnn::{
    self, Cell, Elman, Gradients, Gru, Lstm, Relu, Steps, Tanh, WeightGradients, Weights,
};
use pyo3::prelude::*;

use crate::array::{Array, Number, NumpyArray, with_number};
use crate::gate::{self, Failure, Result};
use crate::torch_abi::{Library, Operator, Tensor, Text};

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

/// Which cell, and how the rows of its sequences are packed; no batch sizes stand for equal lengths.
pub(crate) struct Layout<'a> {
    pub(crate) kind: &'a str,
    pub(crate) batch_sizes: &'a [i64],
    pub(crate) reverse: bool,
}

impl Layout<'_> {
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
}

/// A layer's operands, still untyped.
struct Operands<'a, A> {
    input: &'a A,
    hidden: &'a A,
    cell: &'a A,
    weight_ih: &'a A,
    weight_hh: &'a A,
    bias_ih: Option<&'a A>,
    bias_hh: Option<&'a A>,
}

/// What a backward pass is given beside the operands, and what it shall compute.
struct Wanted<'a, A> {
    output: &'a A,
    saved: &'a A,
    /// The gradients of the output, the final hidden state and the final cell state.
    gradients: [Option<&'a A>; 3],
    for_input: bool,
    for_weights: bool,
}

impl<A: Array> Operands<'_, A> {
    fn weights<T: Number>(&self) -> Result<Weights<'_, T>> {
        Ok(Weights {
            input: self.weight_ih.view("weight_ih")?,
            hidden: self.weight_hh.view("weight_hh")?,
            input_bias: self.bias_ih.map(|bias| bias.view("bias_ih")).transpose()?,
            hidden_bias: self.bias_hh.map(|bias| bias.view("bias_hh")).transpose()?,
        })
    }

    fn forward(&self, layout: &Layout<'_>, keep: bool, team: &dyn Team) -> Result<[A; 4]> {
        with_number!(self.input.dtype("input")?, T => {
            with_cell!(layout.kind, C => self.forward_with::<T, C>(layout, keep, team))
        })
    }

    /// Output, final hidden state, final cell state, and what the backward pass needs.
    fn forward_with<T: Number, C: Cell>(
        &self,
        layout: &Layout<'_>,
        keep: bool,
        team: &dyn Team,
    ) -> Result<[A; 4]> {
        let weights = self.weights::<T>()?;
        let (input, hidden) = (self.input.view::<T, 2>("input")?, self.hidden.view("the state")?);
        let cell = self.cell.view::<T, 2>("the cell state")?;
        let (batch, hidden_size) = (hidden.rows(), weights.hidden.columns());
        let steps = layout.steps(input.rows(), batch)?;
        let mut output = A::empty::<T>(&[input.rows(), hidden_size])?;
        let mut final_hidden = A::empty::<T>(&[batch, hidden_size])?;
        let mut final_cell = A::empty::<T>(&[batch, cell.columns()])?;
        let saved_shape =
            if keep { [input.rows(), rnn::saved_columns::<C>(hidden_size)] } else { [0, 0] };
        let mut saved = A::empty::<T>(&saved_shape)?;
        let call = rnn::Forward {
            steps: &steps,
            weights,
            input,
            hidden,
            cell,
            output: output.view_mut("output")?,
            final_hidden: final_hidden.view_mut("final_hidden")?,
            final_cell: final_cell.view_mut("final_cell")?,
            saved: if keep { Some(saved.view_mut("saved")?) } else { None },
        };
        rnn::forward::<T, C>(vec![call], team)?;
        Ok([output, final_hidden, final_cell, saved])
    }

    fn backward(
        &self,
        layout: &Layout<'_>,
        wanted: &Wanted<'_, A>,
        team: &dyn Team,
    ) -> Result<[A; 7]> {
        with_number!(self.input.dtype("input")?, T => {
            with_cell!(layout.kind, C => self.backward_with::<T, C>(layout, wanted, team))
        })
    }

    /// The gradients of the operands in their order; what is not wanted has no numbers in it.
    fn backward_with<T: Number, C: Cell>(
        &self,
        layout: &Layout<'_>,
        wanted: &Wanted<'_, A>,
        team: &dyn Team,
    ) -> Result<[A; 7]> {
        let weights = self.weights::<T>()?;
        let (input, hidden) = (self.input.view::<T, 2>("input")?, self.hidden.view("the state")?);
        let cell = self.cell.view::<T, 2>("the cell state")?;
        let place = |wanted, shape: &[usize]| A::empty::<T>(if wanted { shape } else { &[0] });
        let rows = weights.hidden.rows();
        let mut grad_input = place(wanted.for_input, &input.shape())?;
        let mut grad_hidden = A::empty::<T>(&hidden.shape())?;
        let mut grad_cell = A::empty::<T>(&cell.shape())?;
        let mut grad_weight_ih = place(wanted.for_weights, &weights.input.shape())?;
        let mut grad_weight_hh = place(wanted.for_weights, &weights.hidden.shape())?;
        let mut grad_bias_ih = place(wanted.for_weights, &[rows])?;
        let mut grad_bias_hh = place(wanted.for_weights, &[rows])?;
        let outer = |i: usize, name: &str| wanted.gradients[i].map(|g| g.view(name)).transpose();
        let gradients = Gradients {
            input: if wanted.for_input { Some(grad_input.view_mut("grad_input")?) } else { None },
            hidden: grad_hidden.view_mut("grad_hidden")?,
            cell: grad_cell.view_mut("grad_cell")?,
            weights: if wanted.for_weights {
                Some(WeightGradients {
                    input: grad_weight_ih.view_mut("grad_weight_ih")?,
                    hidden: grad_weight_hh.view_mut("grad_weight_hh")?,
                    input_bias: grad_bias_ih.view_mut("grad_bias_ih")?,
                    hidden_bias: grad_bias_hh.view_mut("grad_bias_hh")?,
                })
            } else {
                None
            },
        };
        let call = rnn::Backward {
            steps: &layout.steps(input.rows(), hidden.rows())?,
            weights,
            input,
            hidden,
            output: wanted.output.view("output")?,
            saved: wanted.saved.view("saved")?,
            output_gradient: outer(0, "the gradient of the output")?,
            final_hidden_gradient: outer(1, "the gradient of the final hidden state")?,
            final_cell_gradient: outer(2, "the gradient of the final cell state")?,
            gradients,
        };
        rnn::backward::<T, C>(vec![call], team)?;
        Ok([
            grad_input,
            grad_hidden,
            grad_cell,
            grad_weight_ih,
            grad_weight_hh,
            grad_bias_ih,
            grad_bias_hh,
        ])
    }
}

/// Cell, batch sizes and whether the recurrence runs backwards, from Python.
type PyLayout = (String, Vec<i64>, bool);
/// A layer's operands from Python, in the order of [`Operands`].
type PyOperands = (
    NumpyArray,
    NumpyArray,
    NumpyArray,
    NumpyArray,
    NumpyArray,
    Option<NumpyArray>,
    Option<NumpyArray>,
);

fn borrow_operands<A>(operands: &(A, A, A, A, A, Option<A>, Option<A>)) -> Operands<'_, A> {
    let (input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh) = operands;
    let (bias_ih, bias_hh) = (bias_ih.as_ref(), bias_hh.as_ref());
    Operands { input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh }
}

#[pyfunction]
pub(crate) fn rnn_layer(
    py: Python<'_>,
    layout: PyLayout,
    operands: PyOperands,
    keep: bool,
) -> PyResult<[NumpyArray; 4]> {
    let (kind, batch_sizes, reverse) = &layout;
    let layout = Layout { kind, batch_sizes, reverse: *reverse };
    gate::enter(py, |team| borrow_operands(&operands).forward(&layout, keep, team))
}

#[pyfunction]
pub(crate) fn rnn_layer_backward(
    py: Python<'_>,
    layout: PyLayout,
    operands: PyOperands,
    results: (NumpyArray, NumpyArray),
    gradients: (Option<NumpyArray>, Option<NumpyArray>, Option<NumpyArray>),
) -> PyResult<[NumpyArray; 7]> {
    let (kind, batch_sizes, reverse) = &layout;
    let layout = Layout { kind, batch_sizes, reverse: *reverse };
    let wanted = Wanted {
        output: &results.0,
        saved: &results.1,
        gradients: [gradients.0.as_ref(), gradients.1.as_ref(), gradients.2.as_ref()],
        for_input: true,
        for_weights: true,
    };
    gate::enter(py, |team| borrow_operands(&operands).backward(&layout, &wanted, team))
}

/// The numbers per row of what a forward pass keeps for the backward pass.
#[pyfunction]
pub(crate) fn rnn_saved_columns(kind: &str, hidden_size: usize) -> PyResult<usize> {
    Ok(with_cell!(kind, C => Ok(rnn::saved_columns::<C>(hidden_size)))?)
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"rnn_layer";
    type Arguments = (
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Option<Tensor>,
        Option<Tensor>,
        Text,
        Vec<i64>,
        bool,
        bool,
    );
    type Results = [Tensor; 4];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 4]> {
        let (
            input,
            hidden,
            cell,
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
            kind,
            sizes,
            reverse,
            keep,
        ) = arguments;
        let layout = Layout { kind: kind.as_str(), batch_sizes: &sizes, reverse };
        let operands = (input, hidden, cell, weight_ih, weight_hh, bias_ih, bias_hh);
        borrow_operands(&operands).forward(&layout, keep, team)
    }
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"rnn_layer_backward";
    type Arguments = (
        Option<Tensor>,
        Option<Tensor>,
        Option<Tensor>,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Tensor,
        Text,
        Vec<i64>,
        bool,
        bool,
        bool,
    );
    type Results = [Tensor; 7];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 7]> {
        let (grad_output, grad_hidden, grad_cell, input, hidden, cell, weight_ih, weight_hh, ..) =
            &arguments;
        let (.., output, saved, kind, batch_sizes, reverse, for_input, for_weights) = &arguments;
        let layout = Layout { kind: kind.as_str(), batch_sizes, reverse: *reverse };
        let operands =
            Operands { input, hidden, cell, weight_ih, weight_hh, bias_ih: None, bias_hh: None };
        let wanted = Wanted {
            output,
            saved,
            gradients: [grad_output.as_ref(), grad_hidden.as_ref(), grad_cell.as_ref()],
            for_input: *for_input,
            for_weights: *for_weights,
        };
        operands.backward(&layout, &wanted, team)
    }
}

/// Registers the operators whose schemas `ops/rnn/autograd.py` declares.
pub(crate) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()?;
    library.add::<Backward>()
}
