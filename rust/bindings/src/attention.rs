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
use crate::array::{Array, Number, NumpyArray, with_number};
use crate::gate::{self, Result};
use crate::torch_abi::{Joined, Library, Operator, Tensor};

/// What a backward pass is given beside the operands: the gradients of output and logarithms, the
/// output and the logarithms.
type Results<A> = (A, Option<A>, A, A);

impl<A: Array> Operands<A> {
    fn forward(&self, team: &dyn Team) -> Result<[A; 2]> {
        with_number!(self.query.dtype("query")?, T => {
            let layout = Layout::of(self)?;
            let attention = self.attention::<T>(&layout)?;
            let mut output = layout.empty::<T, A>(attention.output_shape())?;
            let mut lse = layout.empty_lse::<T, A>(attention.lse_shape())?;
            let output_view = layout.view_mut(&mut output, "output")?;
            forward(&attention, output_view, layout.lse_mut(&mut lse)?, team)?;
            Ok([output, lse])
        })
    }

    fn backward(&self, results: &Results<A>, team: &dyn Team) -> Result<[A; 3]> {
        with_number!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, layout| {
                let mut query = layout.empty::<T, A>(pass.attention.query.shape())?;
                let mut key = layout.empty::<T, A>(pass.attention.key.shape())?;
                let mut value = layout.empty::<T, A>(pass.attention.value.shape())?;
                let gradients = Gradients {
                    query: Some(layout.view_mut(&mut query, "grad_query")?),
                    key: Some(layout.view_mut(&mut key, "grad_key")?),
                    value: Some(layout.view_mut(&mut value, "grad_value")?),
                };
                backward(pass, gradients, team)?;
                Ok([query, key, value])
            })
        })
    }

    fn mask_backward(&self, results: &Results<A>, team: &dyn Team) -> Result<A> {
        with_number!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, _| {
                let shape = self.mask_gradient_shape(pass.attention.score_shape())?;
                let mut gradient = A::empty::<T>(&shape)?;
                mask_backward(pass, gradient.view_mut("grad_attn_mask")?, team)?;
                Ok(gradient)
            })
        })
    }

    fn slopes_backward(&self, results: &Results<A>, team: &dyn Team) -> Result<A> {
        with_number!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, _| {
                let mut gradient = A::empty::<T>(&pass.attention.score_shape()[..2])?;
                slopes_backward(pass, gradient.view_mut("grad_alibi_slopes")?, team)?;
                Ok(gradient)
            })
        })
    }

    fn sinks_backward(&self, results: &Results<A>, team: &dyn Team) -> Result<A> {
        with_number!(self.query.dtype("query")?, T => {
            self.pass(results, |pass: &Pass<'_, T>, _| {
                let mut gradient = A::empty::<T>(&pass.attention.score_shape()[..2])?;
                sinks_backward(pass, gradient.view_mut("grad_sinks")?, team)?;
                Ok(gradient)
            })
        })
    }

    /// Calls `with` with what every backward pass reads.
    fn pass<T: Number, R>(
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

/// Both doors of a backward pass.
macro_rules! backward_doors {
    ($function:ident, $operator:ident, $name:literal, $pass:ident -> [$results:ty; $of:ty]) => {
        #[pyfunction]
        pub(crate) fn $function(
            py: Python<'_>,
            results: Results<NumpyArray>,
            operands: Given<NumpyArray>,
            options: Options,
        ) -> PyResult<$results> {
            let operands = Operands::new(operands, options);
            gate::enter(py, |team| operands.$pass(&results, team))
        }

        struct $operator;

        impl Operator for $operator {
            const NAME: &CStr = $name;
            type Arguments = Joined<Results<Tensor>, Joined<Given<Tensor>, Options>>;
            type Results = $of;

            fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<$of> {
                let Joined(results, Joined(given, options)) = arguments;
                Operands::new(given, options).$pass(&results, team)
            }
        }
    };
}

backward_doors!(
    attention_backward, Backward, c"attention_backward",
    backward -> [[NumpyArray; 3]; [Tensor; 3]]
);
backward_doors!(
    attention_backward_mask, BackwardMask, c"attention_backward_mask",
    mask_backward -> [NumpyArray; Tensor]
);
backward_doors!(
    attention_backward_slopes, BackwardSlopes, c"attention_backward_slopes",
    slopes_backward -> [NumpyArray; Tensor]
);
backward_doors!(
    attention_backward_sinks, BackwardSinks, c"attention_backward_sinks",
    sinks_backward -> [NumpyArray; Tensor]
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
