//! The linear layer for both doors.

use std::ffi::CStr;

use fusewire_kernels::linear::{Gradients, Linear, Saved};
use fusewire_kernels::parallel::Team;
use pyo3::prelude::*;

use crate::array::{Array, Layout, NumpyArray, Stored, with_stored};
use crate::gate::{self, Result, served};
use crate::torch_abi::{Library, Operator, Tensor, Text};

/// The layer's operands, still untyped.
struct Operands<'a, A> {
    input: &'a A,
    weight: &'a A,
    bias: Option<&'a A>,
    activation: &'a str,
}

impl<A: Array> Operands<'_, A> {
    fn forward(&self, team: &dyn Team) -> Result<A> {
        with_stored!(self.input.dtype("input")?, T => {
            let layer = self.layer::<T>()?;
            let mut output = self.empty_output(&layer)?;
            layer.forward(output.view_rows_mut("output")?, team)?;
            Ok(output)
        })
    }

    /// The output, and the sums that the activation was applied to.
    fn forward_with_sums(&self, team: &dyn Team) -> Result<[A; 2]> {
        with_stored!(self.input.dtype("input")?, T => {
            let layer = self.layer::<T>()?;
            let (mut output, mut sums) = (self.empty_output(&layer)?, self.empty_output(&layer)?);
            let views = (sums.view_rows_mut("sums")?, output.view_rows_mut("output")?);
            layer.forward_with_sums(views.0, views.1, team)?;
            Ok([output, sums])
        })
    }

    /// Room for the output of `layer`, with the input's dimensions before the last.
    fn empty_output<T: Stored>(&self, layer: &Linear<'_, T>) -> Result<A> {
        let Layout { rank, mut shape, .. } = self.input.layout("input")?;
        shape[rank - 1] = layer.output_shape()[1];
        A::empty::<T>(&shape[..rank])
    }

    fn backward(&self, wanted: &Wanted<'_, A>, team: &dyn Team) -> Result<[A; 3]> {
        with_stored!(self.input.dtype("input")?, T => {
            let layer = self.layer::<T>()?;
            let Layout { rank, shape, .. } = self.input.layout("input")?;
            let [output_size, input_size] = self.weight.view::<T, 2>("weight")?.shape();
            // What is not wanted comes back with no numbers in it.
            let [input, weight, bias] = wanted.gradients;
            let place = |wanted, shape: &[usize]| A::empty::<T>(if wanted { shape } else { &[0] });
            let mut grad_input = place(input, &shape[..rank])?;
            let mut grad_weight = place(weight, &[output_size, input_size])?;
            let mut grad_bias = place(bias, &[output_size])?;
            let gradients = Gradients {
                input: input.then(|| grad_input.view_rows_mut("grad_input")).transpose()?,
                weight: weight.then(|| grad_weight.view_mut("grad_weight")).transpose()?,
                bias: bias.then(|| grad_bias.view_mut("grad_bias")).transpose()?,
            };
            let saved = Saved {
                output: wanted.output.map(|output| output.view_rows("output")).transpose()?,
                sums: wanted.sums.map(|sums| sums.view_rows("sums")).transpose()?,
            };
            layer.backward(wanted.grad_output.view_rows("grad_output")?, saved, gradients, team)?;
            Ok([grad_input, grad_weight, grad_bias])
        })
    }

    fn layer<T: Stored>(&self) -> Result<Linear<'_, T>> {
        let bias = self.bias.map(|bias| bias.view("bias")).transpose()?;
        let (input, weight) = (self.input.view_rows("input")?, self.weight.view("weight")?);
        Ok(Linear::new(input, weight, bias, self.activation.parse()?)?)
    }
}

/// What a backward pass is given beside the operands, and which gradients it shall compute.
struct Wanted<'a, A> {
    grad_output: &'a A,
    output: Option<&'a A>,
    sums: Option<&'a A>,
    /// Of input, weight and bias.
    gradients: [bool; 3],
}

#[pyfunction]
pub(crate) fn linear(
    py: Python<'_>,
    input: NumpyArray,
    weight: NumpyArray,
    bias: Option<NumpyArray>,
    activation: &str,
) -> PyResult<NumpyArray> {
    let operands = Operands { input: &input, weight: &weight, bias: bias.as_ref(), activation };
    gate::enter(py, |team| operands.forward(team))
}

#[pyfunction]
pub(crate) fn linear_backward(
    py: Python<'_>,
    grad_output: NumpyArray,
    input: NumpyArray,
    weight: NumpyArray,
    bias: Option<NumpyArray>,
    output: Option<NumpyArray>,
    activation: &str,
) -> PyResult<[NumpyArray; 3]> {
    let operands = Operands { input: &input, weight: &weight, bias: bias.as_ref(), activation };
    let gradients = [true, true, bias.is_some()];
    let output = output.as_ref();
    let wanted = Wanted { grad_output: &grad_output, output, sums: None, gradients };
    gate::enter(py, |team| operands.backward(&wanted, team))
}

/// The layer of tensors, past the dispatcher; nothing where it must see them or say what is wrong.
#[pyfunction]
pub(crate) fn apply_linear(
    py: Python<'_>,
    input: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    activation: &str,
) -> PyResult<Option<Tensor>> {
    let operands = Operands { input: &input, weight: &weight, bias: bias.as_ref(), activation };
    gate::enter(py, |team| served(operands.forward(team)))
}

/// [`apply_linear`] with the sums that the activation was applied to.
#[pyfunction]
pub(crate) fn apply_linear_with_sums(
    py: Python<'_>,
    input: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    activation: &str,
) -> PyResult<Option<[Tensor; 2]>> {
    let operands = Operands { input: &input, weight: &weight, bias: bias.as_ref(), activation };
    gate::enter(py, |team| served(operands.forward_with_sums(team)))
}

/// The gradients of [`apply_linear`], given its output or the sums, whichever they follow from; what is
/// not wanted comes out empty.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // operands and results of the forward pass
pub(crate) fn apply_linear_backward(
    py: Python<'_>,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    saved: Option<Tensor>,
    activation: &str,
    gradients: [bool; 3],
) -> PyResult<Option<[Tensor; 3]>> {
    let operands = Operands { input: &input, weight: &weight, bias: bias.as_ref(), activation };
    let saved = saved.as_ref();
    let wanted = Wanted { grad_output: &grad_output, output: saved, sums: saved, gradients };
    gate::enter(py, |team| served(operands.backward(&wanted, team)))
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"linear";
    type Arguments = (Tensor, Tensor, Option<Tensor>, Text);
    type Results = Tensor;

    fn call((input, weight, bias, activation): Self::Arguments, team: &dyn Team) -> Result<Tensor> {
        Operands {
            input: &input,
            weight: &weight,
            bias: bias.as_ref(),
            activation: activation.as_str(),
        }
        .forward(team)
    }
}

struct ForwardWithSums;

impl Operator for ForwardWithSums {
    const NAME: &CStr = c"linear_with_sums";
    type Arguments = (Tensor, Tensor, Option<Tensor>, Text);
    type Results = [Tensor; 2];

    fn call(
        (input, weight, bias, activation): Self::Arguments,
        team: &dyn Team,
    ) -> Result<[Tensor; 2]> {
        Operands {
            input: &input,
            weight: &weight,
            bias: bias.as_ref(),
            activation: activation.as_str(),
        }
        .forward_with_sums(team)
    }
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"linear_backward";
    type Arguments =
        (Tensor, Tensor, Tensor, Option<Tensor>, Option<Tensor>, Text, bool, bool, bool);
    type Results = [Tensor; 3];

    fn call(
        (grad_output, input, weight, bias, saved, activation, for_input, for_weight, for_bias):
            Self::Arguments,
        team: &dyn Team,
    ) -> Result<[Tensor; 3]> {
        let operands = Operands {
            input: &input,
            weight: &weight,
            bias: bias.as_ref(),
            activation: activation.as_str(),
        };
        let wanted = Wanted {
            grad_output: &grad_output,
            output: saved.as_ref(),
            sums: saved.as_ref(),
            gradients: [for_input, for_weight, for_bias],
        };
        operands.backward(&wanted, team)
    }
}

/// Registers the operators whose schemas `ops/linear/autograd.py` declares.
pub(crate) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()?;
    library.add::<ForwardWithSums>()?;
    library.add::<Backward>()
}
