//! Attention for both doors.

pub(crate) mod decode;
mod operands;

use std::ffi::CStr;

use fusewire_kernels::attention::{
    Gradients, Pass, Saved, Upstream, backward, forward, mask_backward, sinks_backward,
    slopes_backward,
};
use fusewire_kernels::parallel::Team;
use pyo3::prelude::*;

use self::operands::{Given, Layout, Operands, Options};
use crate::array::{Array, NumpyArray, Real, Stored, with_stored};
use crate::gate::{self, Result};
use crate::torch_abi::{Joined, Library, Operator, Tensor};

/// What a backward pass is given beside the operands: the gradients of output and logarithms, the
/// output and the logarithms.
type Results<A> = (A, Option<A>, A, A);

/// Whether the gradients of query, key and value are wanted.
type Wanted = (bool, bool, bool);

impl<A: Array> Operands<A> {
    fn forward(&self, team: &dyn Team) -> Result<[A; 2]> {
        with_stored!(self.query.dtype("query")?, T => {
            let layout = Layout::of(self)?;
            let attention = self.attention::<T>(&layout)?;
            let mut output = layout.empty::<T, A>(attention.output_shape())?;
            let mut lse = layout.empty_lse::<Real<T>, A>(attention.lse_shape())?;
            let output_view = layout.view_mut(&mut output, "output")?;
            forward(&attention, output_view, layout.lse_mut(&mut lse)?, team)?;
            Ok([output, lse])
        })
    }

    /// What is not wanted comes out empty.
    fn backward(
        &self,
        results: &Results<A>,
        (of_query, of_key, of_value): Wanted,
        team: &dyn Team,
    ) -> Result<[A; 3]> {
        with_stored!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, layout| {
                let empty = |wanted: bool, shape| match wanted {
                    true => layout.empty::<T, A>(shape),
                    false => A::empty::<T>(&[0]),
                };
                let mut query = empty(of_query, pass.attention.query.shape())?;
                let mut key = empty(of_key, pass.attention.key.shape())?;
                let mut value = empty(of_value, pass.attention.value.shape())?;
                let view = |wanted: bool, gradient, name| {
                    wanted.then(|| layout.view_mut(gradient, name)).transpose()
                };
                let gradients = Gradients {
                    query: view(of_query, &mut query, "grad_query")?,
                    key: view(of_key, &mut key, "grad_key")?,
                    value: view(of_value, &mut value, "grad_value")?,
                };
                backward(pass, gradients, team)?;
                Ok([query, key, value])
            })
        })
    }

    fn mask_backward(&self, results: &Results<A>, team: &dyn Team) -> Result<A> {
        with_stored!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, _| {
                let shape = self.mask_gradient_shape(pass.attention.score_shape())?;
                let mut gradient = A::empty::<Real<T>>(&shape)?;
                mask_backward(pass, gradient.view_mut("grad_attn_mask")?, team)?;
                Ok(gradient)
            })
        })
    }

    fn slopes_backward(&self, results: &Results<A>, team: &dyn Team) -> Result<A> {
        with_stored!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, _| {
                let mut gradient = A::empty::<Real<T>>(&pass.attention.score_shape()[..2])?;
                slopes_backward(pass, gradient.view_mut("grad_alibi_slopes")?, team)?;
                Ok(gradient)
            })
        })
    }

    fn sinks_backward(&self, results: &Results<A>, team: &dyn Team) -> Result<A> {
        with_stored!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, _| {
                let mut gradient = A::empty::<Real<T>>(&pass.attention.score_shape()[..2])?;
                sinks_backward(pass, gradient.view_mut("grad_sinks")?, team)?;
                Ok(gradient)
            })
        })
    }

    /// Calls `with` with what every backward pass reads.
    fn pass<T: Stored<Real: Stored>, R>(
        &self,
        results: &Results<A>,
        with: impl FnOnce(&Pass<'_, T>, &Layout) -> Result<R>,
    ) -> Result<R> {
        let (grad_output, grad_lse, output, lse) = results;
        let layout = Layout::of(self)?;
        let attention = self.attention::<T>(&layout)?;
        let grad_lse = grad_lse.as_ref().map(|lse| layout.lse(lse, "grad_lse")).transpose()?;
        let pass = Pass {
            attention: &attention,
            saved: Saved { output: layout.view(output, "output")?, lse: layout.lse(lse, "lse")? },
            upstream: Upstream { output: layout.view(grad_output, "grad_output")?, lse: grad_lse },
        };
        with(&pass, &layout)
    }
}

#[pyfunction]
pub(crate) fn attention(
    py: Python<'_>,
    operands: Given<NumpyArray>,
    options: Options,
) -> PyResult<[NumpyArray; 2]> {
    let operands = Operands::new(operands, options);
    gate::enter(py, |team| operands.forward(team))
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"attention";
    type Arguments = Joined<Given<Tensor>, Options>;
    type Results = [Tensor; 2];

    fn call(Joined(given, options): Self::Arguments, team: &dyn Team) -> Result<[Tensor; 2]> {
        Operands::new(given, options).forward(team)
    }
}

#[pyfunction]
pub(crate) fn attention_backward(
    py: Python<'_>,
    results: Results<NumpyArray>,
    operands: Given<NumpyArray>,
    options: Options,
    wanted: Wanted,
) -> PyResult<[NumpyArray; 3]> {
    let operands = Operands::new(operands, options);
    gate::enter(py, |team| operands.backward(&results, wanted, team))
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"attention_backward";
    type Arguments = Joined<Results<Tensor>, Joined<Given<Tensor>, Joined<Options, Wanted>>>;
    type Results = [Tensor; 3];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 3]> {
        let Joined(results, Joined(given, Joined(options, wanted))) = arguments;
        Operands::new(given, options).backward(&results, wanted, team)
    }
}

/// Both doors of a backward pass for what is added to scores.
macro_rules! backward_doors {
    ($function:ident, $operator:ident, $name:literal, $pass:ident) => {
        #[pyfunction]
        pub(crate) fn $function(
            py: Python<'_>,
            results: Results<NumpyArray>,
            operands: Given<NumpyArray>,
            options: Options,
        ) -> PyResult<NumpyArray> {
            let operands = Operands::new(operands, options);
            gate::enter(py, |team| operands.$pass(&results, team))
        }

        struct $operator;

        impl Operator for $operator {
            const NAME: &CStr = $name;
            type Arguments = Joined<Results<Tensor>, Joined<Given<Tensor>, Options>>;
            type Results = Tensor;

            fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<Tensor> {
                let Joined(results, Joined(given, options)) = arguments;
                Operands::new(given, options).$pass(&results, team)
            }
        }
    };
}

backward_doors!(attention_backward_mask, BackwardMask, c"attention_backward_mask", mask_backward);
backward_doors!(
    attention_backward_slopes,
    BackwardSlopes,
    c"attention_backward_slopes",
    slopes_backward
);
backward_doors!(
    attention_backward_sinks,
    BackwardSinks,
    c"attention_backward_sinks",
    sinks_backward
);

/// Registers the operators whose schemas `ops/attention/{autograd,decode}.py` declare.
pub(crate) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()?;
    library.add::<Backward>()?;
    library.add::<BackwardMask>()?;
    library.add::<BackwardSlopes>()?;
    library.add::<BackwardSinks>()?;
    decode::register(library)
}
