//! The activations of recurrent cells and linear layers.

use fusewire_simd::{Lanes, Real};

use super::constants::Elementary;
use super::exponential::{exp, polynomial};

#[inline(always)]
fn saturate<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let bounded = isa.max(isa.splat(-T::SATURATION), x);
    isa.min(isa.splat(T::SATURATION), bounded)
}

/// `max(x, 0)`.
#[inline(always)]
pub fn relu<T: Real, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.max(isa.zero(), x)
}

/// `1 / (1 + e^−x)`.
///
/// Not by `2^(−x · log₂e)`: the rounding of that product would be most of the error.
#[inline(always)]
pub fn sigmoid<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let power = exp(isa, saturate(isa, isa.sub(isa.zero(), x)));
    isa.reciprocal(isa.add(isa.splat(T::ONE), power))
}

/// Below this, tanh is a polynomial; above, `1 − 2 / (e^2x + 1)` has lost no more than it rounds.
const NEAR_ZERO: f64 = 0.625;

/// A hyperbolic tangent, and what it lacks.
struct Tangent<V, M> {
    tanh: V,
    /// `½ (1 − |tanh x|) = 1 / (e^2|x| + 1)`, with a small relative error.
    rest: V,
    negative: M,
    near_zero: M,
}

#[inline(always)]
fn tangent<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> Tangent<I::Vector, I::Mask> {
    let one = isa.splat(T::ONE);
    let negative = isa.less(x, isa.zero());
    let size = isa.select(negative, isa.sub(isa.zero(), x), x);
    let twice = isa.add(size, size);
    let rest = isa.reciprocal(isa.add(exp(isa, saturate(isa, twice)), one));
    // Nothing is left where the power is not one's own: numbers as large as it may be multiplied.
    let rest = isa.select(isa.less(isa.splat(T::SATURATION), twice), isa.zero(), rest);
    let far = isa.neg_mul_add(isa.splat(T::from_f64(2.0)), rest, one);
    let far = isa.select(negative, isa.sub(isa.zero(), far), far);
    let square = isa.mul(x, x);
    let bend = isa.mul(square, polynomial(isa, T::TANH, square));
    let near_zero = isa.less(size, isa.splat(T::from_f64(NEAR_ZERO)));
    let tanh = isa.select(near_zero, isa.mul_add(bend, x, x), far);
    Tangent { tanh, rest, negative, near_zero }
}

/// The hyperbolic tangent, within 2 units in the last place of itself down to 0.
#[inline(always)]
pub fn tanh<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    tangent(isa, x).tanh
}

/// `x · sigmoid(2u)`, as `½ x + ½ x · tanh u`, which rounds once, and where that would cancel, of
/// what tanh lacks.
#[inline(always)]
pub(super) fn gated<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector, u: I::Vector) -> I::Vector {
    let Tangent { tanh, rest, negative, near_zero } = tangent(isa, u);
    let half = isa.mul(x, isa.splat(T::from_f64(0.5)));
    let sum = isa.mul_add(half, tanh, half);
    let low = isa.select(negative, isa.mul(x, rest), sum);
    isa.select(near_zero, sum, low)
}

/// `sigmoid(2u)` and its derivative, `s (1 − s)`; neither loses anything near 0.
#[inline(always)]
pub(super) fn gate<T: Elementary, I: Lanes<T>>(isa: I, u: I::Vector) -> (I::Vector, I::Vector) {
    let Tangent { tanh, rest, negative, near_zero } = tangent(isa, u);
    let (half, quarter) = (isa.splat(T::from_f64(0.5)), isa.splat(T::from_f64(0.25)));
    let middle = isa.mul_add(half, tanh, half);
    let far = isa.select(negative, rest, isa.sub(isa.splat(T::ONE), rest));
    let middle_slope = isa.neg_mul_add(isa.mul(tanh, quarter), tanh, quarter);
    let far_slope = isa.neg_mul_add(rest, rest, rest);
    (isa.select(near_zero, middle, far), isa.select(near_zero, middle_slope, far_slope))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub fn silu<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    gated(isa, x, isa.mul(x, isa.splat(T::from_f64(0.5))))
}

/// The derivative of [`silu`]: `s + x s (1 − s)` with `s = sigmoid(x)`.
#[inline(always)]
pub fn silu_derivative<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (gate, slope) = gate(isa, isa.mul(x, isa.splat(T::from_f64(0.5))));
    isa.mul_add(x, slope, gate)
}
