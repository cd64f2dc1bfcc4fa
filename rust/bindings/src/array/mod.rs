//! What NumPy arrays and PyTorch tensors have in common: typed, strided memory of a foreign owner.
#![allow(unsafe_code)]

mod numpy;

use std::ffi::c_void;
use std::marker::PhantomData;

use fusewire_kernels::math::Elementary;
use fusewire_kernels::view::{View, ViewMut};
use fusewire_simd::{Bf16, F16};

use crate::gate::{Failure, Result};

pub(crate) use numpy::NumpyArray;

/// Dimensions that an array can have.
pub(crate) const MAX_RANK: usize = 8;

/// A kind of number that operands are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    Float32,
    Float64,
    BFloat16,
    Float16,
}

/// What an operand of numbers may be, in words.
pub(crate) const FLOATS: &str = "float32, float64, bfloat16 or float16";

/// A kind of element that kernels read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    Float(Float),
    /// A byte: 0 is false.
    Bool,
    Int32,
    Int64,
}

impl Dtype {
    /// Bytes of an element.
    fn size(self) -> usize {
        match self {
            Self::Float(Float::Float32) => size_of::<f32>(),
            Self::Float(Float::Float64) => size_of::<f64>(),
            Self::Float(Float::BFloat16) => size_of::<Bf16>(),
            Self::Float(Float::Float16) => size_of::<F16>(),
            Self::Bool => size_of::<u8>(),
            Self::Int32 => size_of::<i32>(),
            Self::Int64 => size_of::<i64>(),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float(Float::Float32) => "float32",
            Self::Float(Float::Float64) => "float64",
            Self::Float(Float::BFloat16) => "bfloat16",
            Self::Float(Float::Float16) => "float16",
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
        }
    }
}

/// A Rust type with its [`Dtype`].
pub(crate) trait Element {
    const DTYPE: Dtype;
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::Bool;
}

impl Element for i32 {
    const DTYPE: Dtype = Dtype::Int32;
}

impl Element for i64 {
    const DTYPE: Dtype = Dtype::Int64;
}

/// A Rust type with its [`Float`].
pub(crate) trait Stored: fusewire_simd::Element<Real: Elementary> {
    const FLOAT: Float;
}

impl Stored for f32 {
    const FLOAT: Float = Float::Float32;
}

impl Stored for f64 {
    const FLOAT: Float = Float::Float64;
}

impl Stored for Bf16 {
    const FLOAT: Float = Float::BFloat16;
}

impl Stored for F16 {
    const FLOAT: Float = Float::Float16;
}

/// What kernels compute with where operands are stored as `T`.
pub(crate) type Real<T> = <T as fusewire_simd::Element>::Real;

/// A type that kernels compute with as it is stored.
pub(crate) trait Number: Stored + Elementary {}

impl<T: Stored + Elementary> Number for T {}

impl<T: Stored> Element for T {
    const DTYPE: Dtype = Dtype::Float(T::FLOAT);
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

impl Layout {
    /// The same numbers as rows: all dimensions before the last as one.
    fn rows(mut self, name: &str) -> Result<Self> {
        let Some(last) = self.rank.checked_sub(1) else {
            let message = format!("{name} must have at least 1 dimension, but is a single number");
            return Err(Failure::Value(message));
        };
        let (mut rows, mut step) = (1, 0);
        for axis in (0..last).rev().filter(|&axis| self.shape[axis] != 1) {
            let expected = step * rows as isize;
            if rows == 1 {
                step = self.strides[axis];
            } else if self.strides[axis] != expected && rows * self.shape[axis] != 0 {
                let shape = &self.shape[..self.rank];
                let message = format!("{name} of shape {shape:?} does not lie as rows");
                return Err(Failure::Value(message));
            }
            rows *= self.shape[axis];
        }
        (self.shape[0], self.shape[1]) = (rows, self.shape[last]);
        (self.strides[0], self.strides[1]) = (step, self.strides[last]);
        self.rank = 2;
        Ok(self)
    }
}

/// An array whose layout has been asked for: each answer of its owner takes time.
pub(crate) struct Seen<'a> {
    layout: Layout,
    array: PhantomData<&'a ()>,
}

impl<'a> Seen<'a> {
    pub(crate) fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.layout.shape[..self.layout.rank]
    }

    /// The elements, to be read.
    pub(crate) fn view<T: Element, const N: usize>(&self, name: &str) -> Result<View<'a, T, N>> {
        let (shape, strides) = geometry::<T, N>(&self.layout, name)?;
        // SAFETY: the array's owner promises readable memory at every position while the array is
        // borrowed; that nobody writes meanwhile is the caller's duty in Python, as for NumPy and
        // PyTorch.
        Ok(unsafe { View::from_raw_parts(self.layout.start.cast::<T>(), shape, strides) })
    }
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
    fn empty<T: Stored>(shape: &[usize]) -> Result<Self>;

    /// The kind of number.
    fn dtype(&self, name: &str) -> Result<Float> {
        match self.layout(name)?.dtype {
            Dtype::Float(float) => Ok(float),
            other => {
                let got = other.name();
                Err(Failure::Type(format!("{name} must be {FLOATS}, but is {got}")))
            }
        }
    }

    /// The array with its layout, to be viewed without asking again.
    fn seen(&self, name: &str) -> Result<Seen<'_>> {
        Ok(Seen { layout: self.layout(name)?, array: PhantomData })
    }

    /// The elements, to be read.
    fn view<T: Element, const N: usize>(&self, name: &str) -> Result<View<'_, T, N>> {
        self.seen(name)?.view(name)
    }

    /// The elements, repeated along dimensions of length 1 and along missing ones before the first.
    fn view_expanded<T: Element, const N: usize>(
        &self,
        name: &str,
        shape: [usize; N],
    ) -> Result<View<'_, T, N>> {
        let mut layout = self.layout(name)?;
        let missing = N.saturating_sub(layout.rank);
        let (lengths, steps) = (layout.shape, layout.strides);
        for axis in 0..N {
            let length = if axis < missing { 1 } else { lengths[axis - missing] };
            layout.shape[axis] = if length == 1 { shape[axis] } else { length };
            layout.strides[axis] = if length == 1 { 0 } else { steps[axis - missing] };
        }
        layout.rank += missing;
        let (shape, strides) = geometry::<T, N>(&layout, name)?;
        // SAFETY: as for `Seen::view`; a step of 0 along a dimension of length 1 stays where it was.
        Ok(unsafe { View::from_raw_parts(layout.start.cast::<T>(), shape, strides) })
    }

    /// The elements as rows: all dimensions before the last as one, where they lie so.
    fn view_rows<T: Element>(&self, name: &str) -> Result<View<'_, T, 2>> {
        let layout = self.layout(name)?.rows(name)?;
        let (shape, strides) = geometry::<T, 2>(&layout, name)?;
        // SAFETY: as for `Seen::view`.
        Ok(unsafe { View::from_raw_parts(layout.start.cast::<T>(), shape, strides) })
    }

    /// The numbers of a new array as rows, to be written.
    fn view_rows_mut<T: Stored>(&mut self, name: &str) -> Result<ViewMut<'_, T, 2>> {
        let layout = self.layout(name)?.rows(name)?;
        let (shape, strides) = geometry::<T, 2>(&layout, name)?;
        // SAFETY: as for `view_mut`.
        Ok(unsafe { ViewMut::from_raw_parts(layout.start.cast::<T>(), shape, strides) })
    }

    /// The numbers of a new array, to be written.
    fn view_mut<T: Stored, const N: usize>(&mut self, name: &str) -> Result<ViewMut<'_, T, N>> {
        let layout = self.layout(name)?;
        let (shape, strides) = geometry::<T, N>(&layout, name)?;
        // SAFETY: the trait promises writable memory without other readers for what came from
        // `empty`, and doors hand out nothing else mutably; no two positions are the same number.
        Ok(unsafe { ViewMut::from_raw_parts(layout.start.cast::<T>(), shape, strides) })
    }
}

fn geometry<T: Element, const N: usize>(
    layout: &Layout,
    name: &str,
) -> Result<([usize; N], [isize; N])> {
    if layout.dtype != T::DTYPE {
        let (expected, got) = (T::DTYPE.name(), layout.dtype.name());
        let told = match (T::DTYPE, layout.dtype) {
            (Dtype::Float(_), Dtype::Float(_)) => format!("{expected} like the first operand"),
            (Dtype::Float(_), _) => FLOATS.into(),
            _ => expected.into(),
        };
        return Err(Failure::Type(format!("{name} must be {told}, but is {got}")));
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

/// Evaluates an expression, a result, with the type `$number` bound to the one that `$dtype` names,
/// of those that kernels compute with as they are stored.
macro_rules! with_number {
    ($dtype:expr, $number:ident => $body:expr) => {
        match $dtype {
            $crate::array::Float::Float32 => {
                type $number = f32;
                $body
            }
            $crate::array::Float::Float64 => {
                type $number = f64;
                $body
            }
            other => Err($crate::gate::Failure::Type(format!(
                "operands must be float32 or float64, but are {}",
                $crate::array::Dtype::Float(other).name()
            ))),
        }
    };
}
pub(crate) use with_number;

/// Evaluates an expression with the type `$stored` bound to the one that `$dtype` names.
macro_rules! with_stored {
    ($dtype:expr, $stored:ident => $body:expr) => {
        match $dtype {
            $crate::array::Float::Float32 => {
                type $stored = f32;
                $body
            }
            $crate::array::Float::Float64 => {
                type $stored = f64;
                $body
            }
            $crate::array::Float::BFloat16 => {
                type $stored = fusewire_simd::Bf16;
                $body
            }
            $crate::array::Float::Float16 => {
                type $stored = fusewire_simd::F16;
                $body
            }
        }
    };
}
pub(crate) use with_stored;
