//! What numbers are: as operands store them, as kernels compute with them, as products take them.
#![allow(unsafe_code)]

use std::fmt;

use crate::{Bf16, IsaName, Kernel};

/// Memory without padding in which every pattern of bits, zeros too, is a value.
///
/// # Safety
/// Exactly that must hold for the type.
pub unsafe trait Plain: Copy + Default + Send + Sync + 'static {}

/// A number as an operand stores it: `f32`, `f64`, [`Bf16`] or [`F16`](crate::F16).
pub trait Element: Plain + PartialEq + fmt::Debug + fmt::Display {
    /// What kernels compute with: `f32` for the narrow types.
    type Real: Real;
    /// What products take: pairs for [`Bf16`], which the CPU may multiply two at a time.
    type Factor: Factor<Real = Self::Real>;
    /// The same memory as numbers that are multiplied one by one: for pairs, where the CPU has no
    /// products of those.
    type Single: Element<Real = Self::Real, Single = Self::Single>;
    /// Whether memory holds what kernels compute with: whether the type is its own `Real`.
    const IS_REAL: bool = size_of::<Self>() == size_of::<Self::Real>();
    /// The nearest value to `x`, ties to even.
    fn from_real(x: Self::Real) -> Self;
    /// The same value, exactly.
    fn to_real(self) -> Self::Real;
    /// The factor of up to [`Factor::DEPTH`] numbers; those that are missing are 0.
    fn factor(numbers: &[Self]) -> Self::Factor;
    /// The factors that neighbours are as they lie in memory, less an incomplete last one; `None` for
    /// a type that must be widened first.
    fn as_factors(numbers: &[Self]) -> Option<&[Self::Factor]>;
    /// Whether the selected instruction set multiplies factors as they are; otherwise those of
    /// [`Element::Single`] are faster.
    fn multiplies_factors() -> bool;
    /// Runs `kernel` on the selected instruction set, one that multiplies factors as they are: a kernel
    /// is compiled for no other.
    ///
    /// # Panics
    /// If it does not.
    fn dispatch_multiplying<K: Kernel<Self>>(kernel: K) -> K::Output;
    /// Runs `kernel` on the selected instruction set.
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output;
    /// Runs `kernel` on the instruction set `name`, or returns `None` where the CPU lacks it.
    fn dispatch_on<K: Kernel<Self>>(name: IsaName, kernel: K) -> Option<K::Output>;
}

/// A number that kernels compute with: `f32` or `f64`.
pub trait Real:
    Element<Real = Self, Factor = Self>
    + Factor<Real = Self>
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// −∞.
    const NEG_INFINITY: Self;
    /// Not a number.
    const NAN: Self;
    /// The nearest value to `x`.
    fn from_f64(x: f64) -> Self;
    /// The same value, exactly.
    fn to_f64(self) -> f64;
}

/// The bytes that numbers are.
#[inline(always)]
pub fn bytes<T: Plain>(numbers: &[T]) -> &[u8] {
    // SAFETY: the same memory, which has no padding.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// What a product multiplies in one lane: a number, or a few that are multiplied and summed.
///
/// It is as large as [`Factor::Real`], so that a vector of factors is a vector of numbers whose bits
/// mean something else.
pub trait Factor: Plain + PartialEq + fmt::Debug {
    /// What the product is summed in.
    type Real: Real;
    /// How many numbers a factor holds: that many steps of the depth are one.
    const DEPTH: usize;
}

/// Two neighbours along the depth of a product, the first in the lower half of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Pair(pub [Bf16; 2]);

// SAFETY: two numbers of two bytes, side by side.
unsafe impl Plain for Pair {}

impl Pair {
    /// The pairs that neighbours are as they lie.
    #[inline(always)]
    pub(crate) fn lying(numbers: &[Bf16]) -> &[Self] {
        // SAFETY: a pair is two numbers side by side and aligned as they are.
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len() / 2) }
    }
}

impl Factor for Pair {
    type Real = f32;
    const DEPTH: usize = 2;
}

macro_rules! real {
    ($number:ty) => {
        // SAFETY: a floating-point number has no padding, and any bits are one.
        unsafe impl Plain for $number {}

        impl Factor for $number {
            type Real = Self;
            const DEPTH: usize = 1;
        }

        impl Real for $number {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = Self::NEG_INFINITY;
            const NAN: Self = Self::NAN;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as Self
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
    };
}

real!(f32);
real!(f64);
