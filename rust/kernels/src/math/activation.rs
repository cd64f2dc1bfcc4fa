//! The activations of recurrent cells and linear layers.

use std::f64::consts::LOG2_E;

use fusewire_simd::{Lanes, Real};

use super::exponential::{Elementary, exp2, exp2_minus_one};

/// Beyond this power of two, sigmoid and tanh have long reached their limits in any precision,
/// while its exponential and the reciprocal of that are still normal numbers.
const SATURATION: f64 = 100.0;

#[inline(always)]
fn saturate<T: Real, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let bounded = isa.max(isa.splat(T::from_f64(-SATURATION)), x);
    isa.min(isa.splat(T::from_f64(SATURATION)), bounded)
}

/// `max(x, 0)`.
#[inline(always)]
pub fn relu<T: Real, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.max(isa.zero(), x)
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub fn sigmoid<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let power = exp2(isa, saturate(isa, isa.mul(x, isa.splat(T::from_f64(-LOG2_E)))));
    isa.reciprocal(isa.add(isa.splat(T::ONE), power))
}

/// `tanh x = (e^2x − 1) / (e^2x + 1)`, accurate in relative terms down to 0.
#[inline(always)]
pub fn tanh<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let exponent = saturate(isa, isa.mul(x, isa.splat(T::from_f64(2.0 * LOG2_E))));
    let power = exp2_minus_one(isa, exponent);
    isa.mul(power, isa.reciprocal(isa.add(power, isa.splat(T::from_f64(2.0)))))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub fn silu<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.mul(x, sigmoid(isa, x))
}

/// The derivative of [`silu`]: `s (1 + x (1 − s))` with `s = sigmoid(x)`.
#[inline(always)]
pub fn silu_derivative<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let one = isa.splat(T::ONE);
    let gate = sigmoid(isa, x);
    isa.mul(gate, isa.mul_add(x, isa.sub(one, gate), one))
}
