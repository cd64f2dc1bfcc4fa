//! minGRU and minLSTM as scans for both doors; docs in `ops/rnn` tell the operands' shapes.

use std::ffi::CStr;

use fusewire_kernels::parallel::Team;
use fusewire_kernels::rnn::Steps;
use fusewire_kernels::rnn::scan::{Linear, MinGru, MinLstm, Minimal, Positive, Scan, ScanOutcome};
use fusewire_kernels::view::View;
use pyo3::prelude::*;

use crate::array::{Array, Number, NumpyArray, with_number};
use crate::gate::{self, Failure, Result};
use crate::rnn::Layout;
use crate::torch_abi::{Library, Operator, Tensor, Text};

/// Evaluates an expression with the type `$cell` bound to the cell of the name `$kind`.
macro_rules! with_minimal {
    ($kind:expr, $cell:ident => $body:expr) => {
        match $kind {
            "min_gru" => {
                type $cell = MinGru<Linear>;
                $body
            }
            "min_gru_positive" => {
                type $cell = MinGru<Positive>;
                $body
            }
            "min_lstm" => {
                type $cell = MinLstm<Linear>;
                $body
            }
            "min_lstm_positive" => {
                type $cell = MinLstm<Positive>;
                $body
            }
            kind => Err(Failure::Value(format!(
                "the cell must be min_gru or min_lstm, or one of them with _positive behind it, \
                 but is {kind:?}"
            ))),
        }
    };
}

/// A scan's operands, still untyped.
struct Operands<'a, A> {
    gates: &'a A,
    hidden: &'a A,
    layout: Layout<'a>,
}

/// What the backward pass is given beside them.
struct Outcome<'a, A> {
    output: &'a A,
    output_gradient: Option<&'a A>,
    final_gradient: Option<&'a A>,
}

impl<A: Array> Operands<'_, A> {
    /// The output and the final state.
    fn forward(&self, team: &dyn Team) -> Result<[A; 2]> {
        with_number!(self.gates.dtype("the gates' sums")?, T => {
            with_minimal!(self.layout.kind, C => self.forward_with::<T, C>(team))
        })
    }

    fn forward_with<T: Number, C: Minimal>(&self, team: &dyn Team) -> Result<[A; 2]> {
        let steps = self.steps::<T>()?;
        let scan = self.scan::<T>(&steps)?;
        let mut output = A::empty::<T>(&[scan.gates.rows(), scan.hidden.columns()])?;
        let mut last = A::empty::<T>(&scan.hidden.shape())?;
        scan.forward::<C>(output.view_mut("output")?, last.view_mut("the final state")?, team)?;
        Ok([output, last])
    }

    /// The gradients of the gates' sums and of the initial state.
    fn backward(&self, outcome: &Outcome<'_, A>, team: &dyn Team) -> Result<[A; 2]> {
        with_number!(self.gates.dtype("the gates' sums")?, T => {
            with_minimal!(self.layout.kind, C => self.backward_with::<T, C>(outcome, team))
        })
    }

    fn backward_with<T: Number, C: Minimal>(
        &self,
        outcome: &Outcome<'_, A>,
        team: &dyn Team,
    ) -> Result<[A; 2]> {
        let steps = self.steps::<T>()?;
        let scan = self.scan::<T>(&steps)?;
        let mut of_gates = A::empty::<T>(&scan.gates.shape())?;
        let mut of_hidden = A::empty::<T>(&scan.hidden.shape())?;
        let outcome = ScanOutcome {
            output: outcome.output.view("output")?,
            output_gradient: view(outcome.output_gradient, "the gradient of the output")?,
            final_gradient: view(outcome.final_gradient, "the gradient of the final state")?,
        };
        let (gates, hidden) = (of_gates.view_mut("gradient")?, of_hidden.view_mut("gradient")?);
        scan.backward::<C>(outcome, gates, hidden, team)?;
        Ok([of_gates, of_hidden])
    }

    fn steps<T: Number>(&self) -> Result<Steps> {
        let rows = self.gates.view::<T, 2>("the gates' sums")?.rows();
        self.layout.steps(rows, self.hidden.view::<T, 2>("the state")?.rows())
    }

    fn scan<'s, T: Number>(&'s self, steps: &'s Steps) -> Result<Scan<'s, T>> {
        let (gates, hidden) = (self.gates.view("the gates' sums")?, self.hidden.view("the state")?);
        Ok(Scan { steps, gates, hidden })
    }
}

fn view<'a, A: Array, T: Number>(
    gradient: Option<&'a A>,
    name: &str,
) -> Result<Option<View<'a, T, 2>>> {
    gradient.map(|gradient| gradient.view(name)).transpose()
}

#[pyfunction]
pub(crate) fn rnn_scan(
    py: Python<'_>,
    layout: (String, Vec<i64>, bool),
    gates: NumpyArray,
    hidden: NumpyArray,
) -> PyResult<[NumpyArray; 2]> {
    let (kind, batch_sizes, reverse) = &layout;
    let layout = Layout { kind, batch_sizes, reverse: *reverse };
    let operands = Operands { gates: &gates, hidden: &hidden, layout };
    gate::enter(py, |team| operands.forward(team))
}

#[pyfunction]
pub(crate) fn rnn_scan_backward(
    py: Python<'_>,
    layout: (String, Vec<i64>, bool),
    gates: NumpyArray,
    hidden: NumpyArray,
    output: NumpyArray,
    gradients: (Option<NumpyArray>, Option<NumpyArray>),
) -> PyResult<[NumpyArray; 2]> {
    let (kind, batch_sizes, reverse) = &layout;
    let layout = Layout { kind, batch_sizes, reverse: *reverse };
    let operands = Operands { gates: &gates, hidden: &hidden, layout };
    let outcome = Outcome {
        output: &output,
        output_gradient: gradients.0.as_ref(),
        final_gradient: gradients.1.as_ref(),
    };
    gate::enter(py, |team| operands.backward(&outcome, team))
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"rnn_scan";
    type Arguments = (Tensor, Tensor, Text, Vec<i64>, bool);
    type Results = [Tensor; 2];

    fn call(
        (gates, hidden, kind, batch_sizes, reverse): Self::Arguments,
        team: &dyn Team,
    ) -> Result<[Tensor; 2]> {
        let layout = Layout { kind: kind.as_str(), batch_sizes: &batch_sizes, reverse };
        Operands { gates: &gates, hidden: &hidden, layout }.forward(team)
    }
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"rnn_scan_backward";
    type Arguments = (Option<Tensor>, Option<Tensor>, Tensor, Tensor, Tensor, Text, Vec<i64>, bool);
    type Results = [Tensor; 2];

    fn call(
        (grad_output, grad_hidden, gates, hidden, output, kind, batch_sizes, reverse):
            Self::Arguments,
        team: &dyn Team,
    ) -> Result<[Tensor; 2]> {
        let layout = Layout { kind: kind.as_str(), batch_sizes: &batch_sizes, reverse };
        let outcome = Outcome {
            output: &output,
            output_gradient: grad_output.as_ref(),
            final_gradient: grad_hidden.as_ref(),
        };
        Operands { gates: &gates, hidden: &hidden, layout }.backward(&outcome, team)
    }
}

/// Registers the operators whose schemas `ops/rnn/scan.py` declares.
pub(crate) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()?;
    library.add::<Backward>()
}
