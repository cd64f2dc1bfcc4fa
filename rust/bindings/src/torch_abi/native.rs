//! PyTorch's own kernels behind the operators that ours can replace, called past the dispatcher.

use std::ptr::{from_ref, null, null_mut};

use super::Handle;
use super::symbols::{Status, check, symbols};
use super::tensor::Tensor;
use crate::gate::Result;

/// The arguments of `aten::_scaled_dot_product_flash_attention_for_cpu`.
pub(crate) struct FlashAttention {
    pub(crate) query: Tensor,
    pub(crate) key: Tensor,
    pub(crate) value: Tensor,
    pub(crate) dropout_p: f64,
    pub(crate) is_causal: bool,
    pub(crate) attn_mask: Option<Tensor>,
    pub(crate) scale: Option<f64>,
}

/// The output, and the logarithms of the sums of exponentials.
pub(crate) fn flash_attention(of: &FlashAttention) -> Result<[Tensor; 2]> {
    let mask = of.attn_mask.as_ref().map(Tensor::handle);
    let [mut output, mut lse] = [null_mut(); 2];
    // SAFETY: all handles are live tensors or null, and the last two arguments are places for
    // the results, which are ours.
    unsafe {
        let status = (symbols().aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu)(
            of.query.handle(),
            of.key.handle(),
            of.value.handle(),
            of.dropout_p,
            i32::from(of.is_causal),
            address(mask.as_ref()),
            address(of.scale.as_ref()),
            &mut output,
            &mut lse,
        );
        own(status, [output, lse])
    }
}

/// The gradients of query, key and value.
pub(crate) fn flash_attention_backward(
    of: &FlashAttention,
    grad_output: &Tensor,
    output: &Tensor,
    lse: &Tensor,
) -> Result<[Tensor; 3]> {
    let mask = of.attn_mask.as_ref().map(Tensor::handle);
    let [mut query, mut key, mut value] = [null_mut(); 3];
    // SAFETY: as in `flash_attention`.
    unsafe {
        let status = (symbols()
            .aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu_backward)(
            grad_output.handle(),
            of.query.handle(),
            of.key.handle(),
            of.value.handle(),
            output.handle(),
            lse.handle(),
            of.dropout_p,
            i32::from(of.is_causal),
            address(mask.as_ref()),
            address(of.scale.as_ref()),
            &mut query,
            &mut key,
            &mut value,
        );
        own(status, [query, key, value])
    }
}

fn address<T>(value: Option<&T>) -> *const T {
    value.map_or(null(), from_ref)
}

/// Takes over the results of a call that succeeded.
///
/// # Safety
/// Where the status is 0, the handles must be owned tensors.
unsafe fn own<const N: usize>(status: Status, handles: [Handle; N]) -> Result<[Tensor; N]> {
    check(status, "compute attention")?;
    // SAFETY: as the caller says.
    Ok(handles.map(|handle| unsafe { Tensor::from_handle(handle) }))
}
