//! What NumPy arrays and PyTorch tensors have in common: typed, strided memory of a foreign owner.
#![allow(unsafe_code)]

mod numpy;

use std::ffi::c_void;

use fusewire_kernels::math::Elementary;
use fusewire_kernels::view::{View, ViewMut};

use crate::gate::{Failure, Result};

pub(crate) use numpy::NumpyArray;

/// Dimensions that an array can have.
pub(crate) const MAX_RANK: usize = 8;

/// A kind of number that kernels compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    Float32,
    Float64,
}

impl Dtype {
    /// Bytes of a number.
    fn size(self) -> usize {
        match self {
            Self::Float32 => size_of::<f32>(),
            Self::Float64 => size_of::<f64>(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }
}

/// A Rust type with its [`Dtype`].
pub(crate) trait Number: Elementary {
    const DTYPE: Dtype;
}

impl Number for f32 {
    const DTYPE: Dtype = Dtype::Float32;
}

impl Number for f64 {
    const DTYPE: Dtype = Dtype::Float64;
}

/// Where an array's numbers lie: the address of the first, and what leads to the others.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) dtype: Dtype,
    pub(crate) start: *mut c_void,
    pub(crate) rank: usize,
    pub(crate) shape: [usize; MAX_RANK],
    /// In numbers, not bytes.
    pub(crate) strides: [isize; MAX_RANK],
}

/// An array that kernels can read, or fill after [`Array::empty`].
///
/// # Safety
/// For as long as the value lives, `layout` must describe aligned memory that is readable, and
/// also writable without any other reader where the value came from `empty`.
pub(crate) unsafe trait Array: Sized + Send + Sync {
    /// Where the numbers lie; an error for what kernels do not compute with, naming `name`.
    fn layout(&self, name: &str) -> Result<Layout>;

    /// A new contiguous array with anything in it.
    fn empty<T: Number>(shape: &[usize]) -> Result<Self>;

    /// The kind of number.
    fn dtype(&self, name: &str) -> Result<Dtype> {
        Ok(self.layout(name)?.dtype)
    }

    /// The numbers, to be read.
    fn view<T: Number, const N: usize>(&self, name: &str) -> Result<View<'_, T, N>> {
        let layout = self.layout(name)?;
        let (shape, strides) = geometry::<T, N>(&layout, name)?;
        // SAFETY: the trait promises readable memory at every position while `self` is borrowed;
        // that nobody writes meanwhile is the caller's duty in Python, as for NumPy and PyTorch.
        Ok(unsafe { View::from_raw_parts(layout.start.cast::<T>(), shape, strides) })
    }

    /// The numbers of a new array, to be written.
    fn view_mut<T: Number, const N: usize>(&mut self, name: &str) -> Result<ViewMut<'_, T, N>> {
        let layout = self.layout(name)?;
        let (shape, strides) = geometry::<T, N>(&layout, name)?;
        // SAFETY: the trait promises writable memory without other readers for what came from
        // `empty`, and doors hand out nothing else mutably; it is contiguous.
        Ok(unsafe { ViewMut::from_raw_parts(layout.start.cast::<T>(), shape, strides) })
    }
}

fn geometry<T: Number, const N: usize>(
    layout: &Layout,
    name: &str,
) -> Result<([usize; N], [isize; N])> {
    if layout.dtype != T::DTYPE {
        let (expected, got) = (T::DTYPE.name(), layout.dtype.name());
        return Err(Failure::Type(format!(
            "{name} must be {expected} like the first operand, but is {got}"
        )));
    }
    if layout.rank != N {
        let shape = &layout.shape[..layout.rank];
        return Err(Failure::Value(format!(
            "{name} must have {N} dimensions, but has shape {shape:?}"
        )));
    }
    Ok((
        std::array::from_fn(|axis| layout.shape[axis]),
        std::array::from_fn(|axis| layout.strides[axis]),
    ))
}

/// Evaluates an expression with the type `$number` bound to the one that `$dtype` names.
macro_rules! with_number {
    ($dtype:expr, $number:ident => $body:expr) => {
        match $dtype {
            $crate::array::Dtype::Float32 => {
                type $number = f32;
                $body
            }
            $crate::array::Dtype::Float64 => {
                type $number = f64;
                $body
            }
        }
    };
}
pub(crate) use with_number;
