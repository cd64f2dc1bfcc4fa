//! PyTorch's attention on the CPU: our kernels in the place of its own, for as long as one wants.
//!
//! Results have the layouts of PyTorch's kernels, which compiled code relies on.

use std::ffi::CStr;
use std::sync::Mutex;

use fusewire_kernels::attention::{
    Attention, Band, Gradients, Mask, Pass, Saved, Score, Sequences, Upstream, backward, forward,
};
use fusewire_kernels::parallel::Team;
use fusewire_kernels::scratch::Scratch;
use fusewire_kernels::view::ViewMut;
use pyo3::prelude::*;

use crate::array::{Array, Dtype, Float, Number, Real, Seen, Stored, with_stored};
use crate::gate::{self, Failure, Result};
use crate::torch_abi::{
    self, FlashAttention, Library, Operator, Tensor, flash_attention, flash_attention_backward,
};

/// Puts our kernels in the place of PyTorch's, or takes them away again.
#[pyfunction]
pub(crate) fn replace_sdpa(replaced: bool) -> PyResult<()> {
    static REPLACED: Mutex<Option<Library>> = Mutex::new(None);
    let replace = || -> gate::Result<()> {
        let mut library = REPLACED
            .lock()
            .map_err(|_| Failure::Internal("PyTorch's attention could not be replaced".into()))?;
        if !replaced {
            *library = None;
        } else if !torch_abi::is_attached() {
            return Err(Failure::Internal("PyTorch must be attached first".into()));
        } else if library.is_none() {
            let opened = Library::open(c"aten")?;
            opened.add::<Forward>()?;
            opened.add::<Backward>()?;
            *library = Some(opened);
        }
        Ok(())
    };
    Ok(replace()?)
}

/// The operands of attention whose layouts are known.
struct Operands<'a> {
    of: &'a FlashAttention,
    float: Float,
    query: Seen<'a>,
    key: Seen<'a>,
    value: Seen<'a>,
}

impl<'a> Operands<'a> {
    /// The operands if our kernels compute with all of them, else nothing.
    fn served(of: &'a FlashAttention) -> Option<Self> {
        let seen = [of.query.seen("query"), of.key.seen("key"), of.value.seen("value")];
        let [Ok(query), Ok(key), Ok(value)] = seen else { return None };
        let dtype = query.dtype();
        let alike = key.dtype() == dtype && value.dtype() == dtype;
        let kind = |mask: &Tensor| mask.layout("attn_mask").ok().map(|layout| layout.dtype);
        let mask = of.attn_mask.as_ref().map(kind);
        let masked = mask.is_none_or(|mask| mask == Some(dtype) || mask == Some(Dtype::Bool));
        match dtype {
            Dtype::Float(float) if alike && masked && of.dropout_p == 0.0 => {
                Some(Self { of, float, query, key, value })
            }
            _ => None,
        }
    }

    /// Whether operands are in batches and heads, of which `grouped` ones may be fewer in the keys.
    fn fits(&self, grouped: bool) -> bool {
        let ([_, heads, _, _], [_, kv_heads, _, _], [_, _, _, _]) =
            (self.query.shape(), self.key.shape(), self.value.shape())
        else {
            return false;
        };
        heads == kv_heads || grouped
    }

    fn attention<T: Stored<Real: Stored>>(&self) -> Result<Attention<'a, T>> {
        let of = self.of;
        let (query, key) = (self.query.view("query")?, self.key.view("key")?);
        let ([batch, heads, query_len, head_dim], [_, _, key_len, _]) =
            (query.shape(), key.shape());
        let scores = [batch, heads, query_len, key_len];
        let mask = match &of.attn_mask {
            None => Mask::Absent,
            Some(mask) if mask.layout("attn_mask")?.dtype == Dtype::Bool => {
                Mask::Attend(mask.view_expanded("attn_mask", scores)?)
            }
            Some(mask) => Mask::Bias(mask.view_expanded("attn_mask", scores)?),
        };
        let right = of.is_causal.then_some(0);
        let scale = of.scale.unwrap_or_else(|| 1.0 / (head_dim.max(1) as f64).sqrt());
        Ok(Attention {
            query,
            key,
            value: self.value.view("value")?,
            sequences: Sequences::FULL,
            score: Score { band: Band { right, ..Band::FULL }, mask, ..Score::plain(scale) },
            sinks: None,
            dropout: None,
        })
    }

    fn forward(&self, team: &dyn Team) -> Result<[Tensor; 2]> {
        with_stored!(self.float, T => {
            let attention = self.attention::<T>()?;
            let [batch, heads, query_len] = attention.lse_shape();
            let steps = [(query_len * heads) as isize, 1, heads as isize];
            let mut lse = Tensor::empty_strided::<Real<T>>(&[batch, heads, query_len], &steps)?;
            let output = self.output(&attention, lse.view_mut("lse")?, team)?;
            if self.of.attn_mask.is_some() {
                keep_finite::<Real<T>>(lse.view_mut("lse")?);
            }
            Ok([output, lse])
        })
    }

    /// The output, laid out like the query.
    fn output<T: Stored<Real: Stored>>(
        &self,
        attention: &Attention<'_, T>,
        lse: ViewMut<'_, Real<T>, 3>,
        team: &dyn Team,
    ) -> Result<Tensor> {
        let shape = attention.output_shape();
        let strides = dense_strides(shape, attention.query.strides());
        let mut output = Tensor::empty_strided::<T>(&shape, &strides)?;
        forward(attention, output.view_mut("output")?, lse, team)?;
        Ok(output)
    }

    /// The gradients from those of the output, the output and the logarithms; what is not wanted
    /// comes out empty.
    fn backward(
        &self,
        [grad_output, output, lse]: [&Tensor; 3],
        (of_query, of_key, of_value): (bool, bool, bool),
        team: &dyn Team,
    ) -> Result<[Tensor; 3]> {
        with_stored!(self.float, T => {
            let attention = self.attention::<T>()?;
            let empty = |wanted: bool, [batch, heads, length, size]: [usize; 4]| {
                if !wanted {
                    return Tensor::empty::<T>(&[0]);
                }
                let row = heads * size;
                let strides = [length * row, size, row, 1].map(|step| step as isize);
                Tensor::empty_strided::<T>(&[batch, heads, length, size], &strides)
            };
            let mut query = empty(of_query, attention.query.shape())?;
            let mut key = empty(of_key, attention.key.shape())?;
            let mut value = empty(of_value, attention.value.shape())?;
            let gradients = Gradients {
                query: of_query.then(|| query.view_mut("grad_query")).transpose()?,
                key: of_key.then(|| key.view_mut("grad_key")).transpose()?,
                value: of_value.then(|| value.view_mut("grad_value")).transpose()?,
            };
            let saved = Saved { output: output.view("output")?, lse: lse.view("lse")? };
            let upstream = Upstream { output: grad_output.view("grad_output")?, lse: None };
            backward(&Pass { attention: &attention, saved, upstream }, gradients, team)?;
            Ok([query, key, value])
        })
    }
}

impl FlashAttention {
    fn plain(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        is_causal: bool,
        scale: Option<f64>,
    ) -> Self {
        Self { query, key, value, dropout_p: 0.0, is_causal, attn_mask: None, scale }
    }
}

/// Whether [`attend`] can be called in this process.
#[pyfunction]
pub(crate) fn takes_tensors() -> bool {
    torch_abi::takes_tensors()
}

/// Plain attention of tensors, past the dispatcher; nothing where our kernels do not serve them.
///
/// The second result, for which `keep` asks, is what the backward pass needs.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // PyTorch's own
pub(crate) fn attend(
    py: Python<'_>,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool,
    scale: Option<f64>,
    enable_gqa: bool,
    keep: bool,
) -> PyResult<Option<(Tensor, Option<Tensor>)>> {
    let of = FlashAttention::plain(query, key, value, is_causal, scale);
    gate::enter(py, |team| {
        let Some(operands) = Operands::served(&of).filter(|of| of.fits(enable_gqa)) else {
            return Ok(None);
        };
        if keep {
            let [output, lse] = operands.forward(team)?;
            return Ok(Some((output, Some(lse))));
        }
        with_stored!(operands.float, T => {
            let attention = operands.attention::<T>()?;
            let mut lse = Scratch::<Real<T>>::take(attention.lse_shape().iter().product())?;
            let lse = ViewMut::contiguous(&mut lse, attention.lse_shape())?;
            Ok(Some((operands.output(&attention, lse, team)?, None)))
        })
    })
}

/// The gradients of [`attend`], which served the same operands; what is not wanted comes out empty.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // operands and results of the forward pass
pub(crate) fn attend_backward(
    py: Python<'_>,
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: Option<f64>,
    wanted: (bool, bool, bool),
) -> PyResult<Option<[Tensor; 3]>> {
    let of = FlashAttention::plain(query, key, value, is_causal, scale);
    gate::enter(py, |team| {
        let results = [&grad_output, &output, &lse];
        let operands = Operands::served(&of);
        operands.map(|operands| operands.backward(results, wanted, team)).transpose()
    })
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"_scaled_dot_product_flash_attention_for_cpu";
    type Arguments = (Tensor, Tensor, Tensor, f64, bool, Option<Tensor>, Option<f64>);
    type Results = [Tensor; 2];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 2]> {
        let (query, key, value, dropout_p, is_causal, attn_mask, scale) = arguments;
        let of = FlashAttention { query, key, value, dropout_p, is_causal, attn_mask, scale };
        match Operands::served(&of) {
            Some(operands) => operands.forward(team),
            None => flash_attention(&of),
        }
    }
}

struct Backward;

impl Operator for Backward {
    const NAME: &CStr = c"_scaled_dot_product_flash_attention_for_cpu_backward";
    #[rustfmt::skip]
    type Arguments = (
        Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, f64, bool, Option<Tensor>, Option<f64>,
    );
    type Results = [Tensor; 3];

    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<[Tensor; 3]> {
        let (grad_output, query, key, value, output, lse, ..) = arguments;
        let (.., dropout_p, is_causal, attn_mask, scale) = arguments;
        let of = FlashAttention { query, key, value, dropout_p, is_causal, attn_mask, scale };
        // Where only the logarithms have one, as PyTorch's kernel answers it.
        match Operands::served(&of).filter(|_| grad_output.is_defined()) {
            Some(operands) => {
                operands.backward([&grad_output, &output, &lse], (true, true, true), team)
            }
            None => flash_attention_backward(&of, &grad_output, &output, &lse),
        }
    }
}

/// A query without keys has a sum of 0, whose logarithm PyTorch's kernels write as 0; either's
/// backward pass may follow the other's forward pass.
fn keep_finite<T: Number>(mut lse: ViewMut<'_, T, 3>) {
    let [batch, heads, query_len] = lse.shape();
    for row in 0..batch {
        for query in 0..query_len {
            for head in 0..heads {
                if lse.as_view().get([row, head, query]) == T::NEG_INFINITY {
                    lse.set([row, head, query], T::ZERO);
                }
            }
        }
    }
}

/// The strides that `torch.empty_like` gives a tensor of `shape`, like one with `strides`: those
/// very ones where they leave no gap, else dense ones in their order. Rows stay contiguous.
fn dense_strides(shape: [usize; 4], strides: [isize; 4]) -> [isize; 4] {
    let mut axes = [2, 1, 0];
    // A stable order from the nearest neighbours to the farthest; a stride of 0 stays in its place.
    for sorted in 1..3 {
        for place in (1..=sorted).rev() {
            let (near, far) = (axes[place - 1], axes[place]);
            let (near_step, far_step) = (strides[near], strides[far]);
            if near_step == 0 || far_step == 0 {
                continue;
            }
            if (near_step, shape[near]) <= (far_step, shape[far]) {
                break;
            }
            axes.swap(place - 1, place);
        }
    }
    let (mut dense, mut step) = ([1; 4], shape[3].max(1) as isize);
    for axis in axes {
        dense[axis] = step;
        step *= shape[axis].max(1) as isize;
    }
    let same = (0..4).all(|axis| shape[axis] == 1 || dense[axis] == strides[axis]);
    if same && strides[3] == 1 { strides } else { dense }
}
