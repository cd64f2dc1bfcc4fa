//! Attention for both doors.

use std::ffi::CStr;

use fusewire_kernels::attention::{
    Alignment, Attention, Band, Gradients, Mask, Saved, Score, Upstream, backward, forward,
};
use fusewire_kernels::parallel::Team;
use fusewire_kernels::view::View;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Number, NumpyArray, with_number};
use crate::gate::{self, Failure, Result};
use crate::torch_abi::{Library, Operator, Tensor};

/// The operands, still untyped.
struct Operands<A> {
    query: A,
    key: A,
    value: A,
    attn_mask: Option<A>,
    query_lengths: Option<A>,
    key_lengths: Option<A>,
    scale: f64,
    /// Bounds of the window; below 0 is without bound.
    left: i64,
    right: i64,
    bottom_right: bool,
}

/// What a backward pass is given beside the operands.
struct Results<A> {
    grad_output: A,
    grad_lse: Option<A>,
    output: A,
    lse: A,
}

impl<A: Array> Operands<A> {
    fn forward(&self, team: &dyn Team) -> Result<[A; 2]> {
        with_number!(self.query.dtype("query")?, T => {
            let attention = self.attention::<T>()?;
            let mut output = A::empty::<T>(&attention.output_shape())?;
            let mut lse = A::empty::<T>(&attention.lse_shape())?;
            forward(&attention, output.view_mut("output")?, lse.view_mut("lse")?, team)?;
            Ok([output, lse])
        })
    }

    fn backward(&self, results: &Results<A>, team: &dyn Team) -> Result<[A; 3]> {
        with_number!(self.query.dtype("query")?, T => {
            let attention = self.attention::<T>()?;
            let saved =
                Saved { output: results.output.view("output")?, lse: results.lse.view("lse")? };
            let grad_lse = results.grad_lse.as_ref();
            let upstream = Upstream {
                output: results.grad_output.view("grad_output")?,
                lse: grad_lse.map(|grad_lse| grad_lse.view("grad_lse")).transpose()?,
            };
            let mut query = A::empty::<T>(&attention.query.shape())?;
            let mut key = A::empty::<T>(&attention.key.shape())?;
            let mut value = A::empty::<T>(&attention.value.shape())?;
            let gradients = Gradients {
                query: Some(query.view_mut("grad_query")?),
                key: Some(key.view_mut("grad_key")?),
                value: Some(value.view_mut("grad_value")?),
            };
            backward(&attention, saved, upstream, gradients, team)?;
            Ok([query, key, value])
        })
    }

    fn attention<T: Number>(&self) -> Result<Attention<'_, T>> {
        Ok(Attention {
            query: self.query.view("query")?,
            key: self.key.view("key")?,
            value: self.value.view("value")?,
            score: Score {
                scale: self.scale,
                band: Band {
                    left: usize::try_from(self.left).ok(),
                    right: usize::try_from(self.right).ok(),
                    alignment: if self.bottom_right {
                        Alignment::BottomRight
                    } else {
                        Alignment::TopLeft
                    },
                },
                query_lengths: lengths(self.query_lengths.as_ref(), "query_lengths")?,
                key_lengths: lengths(self.key_lengths.as_ref(), "key_lengths")?,
                mask: self.mask()?,
            },
        })
    }

    fn mask<T: Number>(&self) -> Result<Mask<'_, T>> {
        let Some(mask) = &self.attn_mask else { return Ok(Mask::Absent) };
        match mask.layout("attn_mask")?.dtype {
            Dtype::Bool => Ok(Mask::Attend(mask.view("attn_mask")?)),
            Dtype::Float(float) if float == T::FLOAT => Ok(Mask::Bias(mask.view("attn_mask")?)),
            other => Err(Failure::Type(format!(
                "attn_mask must be bool or {}, but is {}",
                Dtype::Float(T::FLOAT).name(),
                other.name()
            ))),
        }
    }
}

fn lengths<'a, A: Array>(lengths: Option<&'a A>, name: &str) -> Result<Option<View<'a, i64, 1>>> {
    lengths.map(|lengths| lengths.view(name)).transpose()
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // the schema of the operator
pub(crate) fn attention(
    py: Python<'_>,
    query: NumpyArray,
    key: NumpyArray,
    value: NumpyArray,
    attn_mask: Option<NumpyArray>,
    query_lengths: Option<NumpyArray>,
    key_lengths: Option<NumpyArray>,
    scale: f64,
    left: i64,
    right: i64,
    bottom_right: bool,
) -> PyResult<[NumpyArray; 2]> {
    let operands = Operands {
        query,
        key,
        value,
        attn_mask,
        query_lengths,
        key_lengths,
        scale,
        left,
        right,
        bottom_right,
    };
    gate::enter(py, |team| operands.forward(team))
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // the schema of the operator
pub(crate) fn attention_backward(
    py: Python<'_>,
    grad_output: NumpyArray,
    grad_lse: Option<NumpyArray>,
    output: NumpyArray,
    lse: NumpyArray,
    query: NumpyArray,
    key: NumpyArray,
    value: NumpyArray,
    attn_mask: Option<NumpyArray>,
    query_lengths: Option<NumpyArray>,
    key_lengths: Option<NumpyArray>,
    scale: f64,
    left: i64,
    right: i64,
    bottom_right: bool,
) -> PyResult<[NumpyArray; 3]> {
    let operands = Operands {
        query,
        key,
        value,
        attn_mask,
        query_lengths,
        key_lengths,
        scale,
        left,
        right,
        bottom_right,
    };
    let results = Results { grad_output, grad_lse, output, lse };
    gate::enter(py, |team| operands.backward(&results, team))
}

/// `Tensor?`.
type Optional = Option<Tensor>;

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"attention";
    type Arguments = (Tensor, Tensor, Tensor, Optional, Optional, Optional, f64, i64, i64, bool);
    type Results = [Tensor; 2];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 2]> {
        let (query, key, value, attn_mask, query_lengths, key_lengths, ..) = arguments;
        let (.., scale, left, right, bottom_right) = arguments;
        Operands {
            query,
            key,
            value,
            attn_mask,
            query_lengths,
            key_lengths,
            scale,
            left,
            right,
            bottom_right,
        }
        .forward(team)
    }
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"attention_backward";
    #[rustfmt::skip]
    type Arguments = (
        Tensor, Optional, Tensor, Tensor,
        Tensor, Tensor, Tensor, Optional, Optional, Optional, f64, i64, i64, bool,
    );
    type Results = [Tensor; 3];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 3]> {
        let (grad_output, grad_lse, output, lse, query, key, value, ..) = arguments;
        let (.., attn_mask, query_lengths, key_lengths, scale, left, right, bottom_right) =
            arguments;
        let results = Results { grad_output, grad_lse, output, lse };
        Operands {
            query,
            key,
            value,
            attn_mask,
            query_lengths,
            key_lengths,
            scale,
            left,
            right,
            bottom_right,
        }
        .backward(&results, team)
    }
}

/// Registers the operators whose schemas `ops/attention/autograd.py` declares.
pub(crate) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()?;
    library.add::<Backward>()
}
