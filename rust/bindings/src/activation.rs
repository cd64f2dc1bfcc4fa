//! Activations for both doors.

use std::ffi::CStr;

use fusewire_kernels::activation::{activate as compute, activate_backward as differentiate};
use fusewire_kernels::parallel::Team;
use pyo3::prelude::*;

use crate::array::{Array, Layout, NumpyArray, with_stored};
use crate::gate::{self, Result, served};
use crate::torch_abi::{Library, Operator, Tensor, Text};

/// The activation of each number of `input`.
fn forward<A: Array>(input: &A, activation: &str, team: &dyn Team) -> Result<A> {
    with_stored!(input.dtype("input")?, T => {
        let Layout { rank, shape, .. } = input.layout("input")?;
        let mut output = A::empty::<T>(&shape[..rank])?;
        let target = output.view_rows_mut("output")?;
        compute(activation.parse()?, input.view_rows::<T>("input")?, target, team)?;
        Ok(output)
    })
}

/// The gradient of the input of [`forward`], from that of its output and what the derivative follows
/// from.
fn backward<A: Array>(grad_output: &A, saved: &A, activation: &str, team: &dyn Team) -> Result<A> {
    with_stored!(grad_output.dtype("grad_output")?, T => {
        let Layout { rank, shape, .. } = grad_output.layout("grad_output")?;
        let mut grad_input = A::empty::<T>(&shape[..rank])?;
        let target = grad_input.view_rows_mut("grad_input")?;
        let gradient = grad_output.view_rows::<T>("grad_output")?;
        differentiate(activation.parse()?, gradient, saved.view_rows("saved")?, target, team)?;
        Ok(grad_input)
    })
}

#[pyfunction]
pub(crate) fn activate(
    py: Python<'_>,
    input: NumpyArray,
    activation: &str,
) -> PyResult<NumpyArray> {
    gate::enter(py, |team| forward(&input, activation, team))
}

#[pyfunction]
pub(crate) fn activate_backward(
    py: Python<'_>,
    grad_output: NumpyArray,
    saved: NumpyArray,
    activation: &str,
) -> PyResult<NumpyArray> {
    gate::enter(py, |team| backward(&grad_output, &saved, activation, team))
}

/// The activation of a tensor, past the dispatcher; nothing where it must see it or say what is wrong.
#[pyfunction]
pub(crate) fn apply_activate(
    py: Python<'_>,
    input: Tensor,
    activation: &str,
) -> PyResult<Option<Tensor>> {
    gate::enter(py, |team| served(forward(&input, activation, team)))
}

/// The gradient of the input of [`apply_activate`], likewise.
#[pyfunction]
pub(crate) fn apply_activate_backward(
    py: Python<'_>,
    grad_output: Tensor,
    saved: Tensor,
    activation: &str,
) -> PyResult<Option<Tensor>> {
    gate::enter(py, |team| served(backward(&grad_output, &saved, activation, team)))
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"activate";
    type Arguments = (Tensor, Text);
    type Results = Tensor;

    fn call((input, activation): Self::Arguments, team: &dyn Team) -> Result<Tensor> {
        forward(&input, activation.as_str(), team)
    }
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"activate_backward";
    type Arguments = (Tensor, Tensor, Text);
    type Results = Tensor;

    fn call((gradient, saved, activation): Self::Arguments, team: &dyn Team) -> Result<Tensor> {
        backward(&gradient, &saved, activation.as_str(), team)
    }
}

/// Registers the operators whose schemas `ops/activation/autograd.py` declares.
pub(crate) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()?;
    library.add::<Backward>()
}
