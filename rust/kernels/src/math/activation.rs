//! The activations of recurrent cells and linear layers.

use std::f64::consts::LOG2_E;

use fusewire_simd::{Lanes, Real};

use super::constants::Elementary;
use super::exponential::{exp2, polynomial};

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

/// Below this, tanh is a polynomial; above, `1 − 2 / (e^2x + 1)` has lost no more than it rounds.
const NEAR_ZERO: f64 = 0.625;

/// The hyperbolic tangent, within 2 units in the last place of itself down to 0.
#[inline(always)]
pub fn tanh<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (one, two) = (isa.splat(T::ONE), isa.splat(T::from_f64(2.0)));
    let negative = isa.less(x, isa.zero());
    let size = isa.select(negative, isa.sub(isa.zero(), x), x);
    let power = exp2(isa, saturate(isa, isa.mul(size, isa.splat(T::from_f64(2.0 * LOG2_E)))));
    let far = isa.neg_mul_add(two, isa.reciprocal(isa.add(power, one)), one);
    let far = isa.select(negative, isa.sub(isa.zero(), far), far);
    let square = isa.mul(x, x);
    let bend = isa.mul(square, polynomial(isa, T::TANH, square));
    let near = isa.mul_add(bend, x, x);
    isa.select(isa.less(size, isa.splat(T::from_f64(NEAR_ZERO))), near, far)
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
