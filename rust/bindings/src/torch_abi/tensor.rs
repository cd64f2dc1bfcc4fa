//! An owned reference to a tensor.

use std::ptr::null_mut;

use super::symbols::{check, symbols};
use super::{Handle, pages};
use crate::array::{Array, Dtype, FLOATS, Float, Layout, MAX_RANK, Stored};
use crate::gate::{Failure, Result};

/// A tensor that this value keeps alive.
pub(crate) struct Tensor(Handle);

// SAFETY: a handle is a reference-counted pointer whose count is atomic; kernels write to the
// tensor's memory only while they hold the value exclusively.
unsafe impl Send for Tensor {}
// SAFETY: as above; the getters only read.
unsafe impl Sync for Tensor {}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and used no more.
        unsafe { (symbols().aoti_torch_delete_tensor_object)(self.0) };
    }
}

impl Tensor {
    /// Takes over a handle.
    ///
    /// # Safety
    /// `handle` must be an owned tensor handle.
    pub(super) unsafe fn from_handle(handle: Handle) -> Self {
        Self(handle)
    }

    /// The handle, for as long as the value lives.
    pub(super) fn handle(&self) -> Handle {
        self.0
    }

    /// Whether there is a tensor behind the handle.
    pub(crate) fn is_defined(&self) -> bool {
        let mut defined = false;
        // SAFETY: the handle is live, and the last argument is a place for the answer.
        let status = unsafe { (symbols().aoti_torch_is_defined)(self.0, &mut defined) };
        status == 0 && defined
    }

    /// Gives the handle away.
    pub(super) fn into_handle(self) -> Handle {
        let handle = self.0;
        std::mem::forget(self);
        handle
    }
}

/// Calls a getter of the shim with a place for its answer.
macro_rules! get {
    ($getter:ident, $handle:expr, $initial:expr) => {{
        let mut answer = $initial;
        // SAFETY: the handle is a live tensor, and the place is of the type that the getter fills.
        let status = unsafe { (symbols().$getter)($handle, &mut answer) };
        check(status, "describe a tensor").map(|()| answer)
    }};
}

impl Tensor {
    /// A new tensor with anything in it; `strides` are those of a permutation of a contiguous one.
    pub(crate) fn empty_strided<T: Stored>(shape: &[usize], strides: &[isize]) -> Result<Self> {
        let (mut sizes, mut steps) = ([1_i64; MAX_RANK], [1_i64; MAX_RANK]);
        for axis in 0..shape.len() {
            (sizes[axis], steps[axis]) = (shape[axis] as i64, strides[axis] as i64);
        }
        let constants = &symbols().constants;
        let dtype = match T::FLOAT {
            Float::Float32 => constants.float32,
            Float::Float64 => constants.float64,
            Float::BFloat16 => constants.bfloat16,
            Float::Float16 => constants.float16,
        };
        let mut handle = null_mut();
        // SAFETY: sizes and strides hold as many numbers as the rank says; the handle is a place
        // for the new reference.
        let status = unsafe {
            (symbols().aoti_torch_empty_strided)(
                shape.len() as i64,
                sizes.as_ptr(),
                steps.as_ptr(),
                dtype,
                constants.cpu,
                -1,
                &mut handle,
            )
        };
        if status == 0 {
            let tensor = Self(handle);
            let numbers = shape.iter().fold(size_of::<T>(), |all, &size| all.saturating_mul(size));
            pages::prefer_huge(get!(aoti_torch_get_data_ptr, tensor.0, null_mut())?, numbers);
            Ok(tensor)
        } else {
            Err(Failure::Memory(format!("PyTorch has no memory for a tensor of shape {shape:?}")))
        }
    }
}

// SAFETY: PyTorch vouches for sizes, strides and memory of a strided CPU tensor, which the handle
// keeps alive, and aligns numbers by their size; a tensor made by `empty` has no other reference.
unsafe impl Array for Tensor {
    fn layout(&self, name: &str) -> Result<Layout> {
        let constants = &symbols().constants;
        if get!(aoti_torch_get_device_type, self.0, 0)? != constants.cpu {
            return Err(Failure::Value(format!(
                "{name} must be on the CPU like the first operand"
            )));
        }
        let dtype = match get!(aoti_torch_get_dtype, self.0, 0)? {
            code if code == constants.float32 => Dtype::Float(Float::Float32),
            code if code == constants.float64 => Dtype::Float(Float::Float64),
            code if code == constants.bfloat16 => Dtype::Float(Float::BFloat16),
            code if code == constants.float16 => Dtype::Float(Float::Float16),
            code if code == constants.bool => Dtype::Bool,
            code if code == constants.int32 => Dtype::Int32,
            code if code == constants.int64 => Dtype::Int64,
            _ => return Err(Failure::Type(format!("{name} must be {FLOATS}"))),
        };
        let rank = get!(aoti_torch_get_dim, self.0, 0)? as usize;
        if rank > MAX_RANK {
            let message = format!("{name} must have at most {MAX_RANK} dimensions, but has {rank}");
            return Err(Failure::Value(message));
        }
        let start = get!(aoti_torch_get_data_ptr, self.0, null_mut())?;
        let (mut shape, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        if rank > 0 {
            let sizes = get!(aoti_torch_get_sizes, self.0, null_mut())?;
            let steps = get!(aoti_torch_get_strides, self.0, null_mut())?;
            for axis in 0..rank {
                // SAFETY: both arrays belong to the tensor and hold `rank` numbers.
                unsafe {
                    shape[axis] = *sizes.add(axis) as usize;
                    strides[axis] = *steps.add(axis) as isize;
                }
            }
        }
        Ok(Layout { dtype, start, rank, shape, strides })
    }

    fn empty<T: Stored>(shape: &[usize]) -> Result<Self> {
        let mut strides = [1_isize; MAX_RANK];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1) as isize);
        }
        Self::empty_strided::<T>(shape, &strides[..shape.len()])
    }
}
