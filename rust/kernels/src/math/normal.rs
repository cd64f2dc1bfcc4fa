//! The normal distribution and the activations that are made of it.

use std::f64::consts::{FRAC_2_SQRT_PI, LOG2_E, SQRT_2};

use fusewire_simd::{Lanes, Real};

use super::activation::{gate, gated};
use super::constants::Elementary;
use super::exponential::{exp2, polynomial};

/// Where the polynomial's variable is 0.
const MIDDLE: f64 = 3.0;
/// Beyond this, `e^−x²` is 0 in any precision while `x²` is still a finite number.
const FAR: f64 = 60.0;

/// `erfc z` and `e^−z²` for `z ≥ 0`, each with a small relative error wherever it is normal.
#[inline(always)]
fn tail<T: Elementary, I: Lanes<T>>(isa: I, z: I::Vector) -> (I::Vector, I::Vector) {
    let (one, middle) = (isa.splat(T::ONE), isa.splat(T::from_f64(MIDDLE)));
    let z = isa.min(isa.splat(T::from_f64(FAR)), z);
    // The square and its rounding, times log₂ e and its rounding: an error of the exponent becomes a
    // relative error of the power.
    let square = isa.mul(z, z);
    let square_rest = isa.sub(isa.zero(), isa.neg_mul_add(z, z, square));
    let log2_e = isa.splat(T::from_f64(-LOG2_E));
    let exponent = isa.mul(square, log2_e);
    let rest = isa.mul_add(square, log2_e, isa.sub(isa.zero(), exponent));
    let rest = isa.mul_add(square, isa.splat(-T::LOG2_E_REST), rest);
    let rest = isa.mul_add(square_rest, log2_e, rest);
    let power = exp2(isa, exponent);
    let ln_2 = isa.splat(T::from_f64(std::f64::consts::LN_2));
    let power = isa.mul_add(isa.mul(power, rest), ln_2, power);

    let place = isa.mul(isa.sub(z, middle), isa.reciprocal(isa.add(z, middle)));
    let scaled = isa.mul(polynomial(isa, T::TAIL, place), power);
    let divisor = isa.mul_add(z, isa.splat(T::from_f64(2.0)), one);
    (isa.mul(scaled, isa.reciprocal(divisor)), power)
}

#[inline(always)]
fn magnitude<T: Real, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.max(isa.sub(isa.zero(), x), x)
}

/// The error function, `2/√π ∫₀ˣ e^−t² dt`; its error is relative to 1.
#[inline(always)]
pub fn erf<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (tail, _) = tail(isa, magnitude(isa, x));
    let one = isa.splat(T::ONE);
    let negative = isa.less(x, isa.zero());
    isa.select(negative, isa.sub(tail, one), isa.sub(one, tail))
}

/// The distribution, `Φ(x) = ½ erfc(−x/√2)`, and its density, `e^(−x²/2) / √2π`.
#[inline(always)]
fn normal<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> (I::Vector, I::Vector) {
    let half = isa.splat(T::from_f64(0.5));
    let scaled = isa.mul(x, isa.splat(T::from_f64(1.0 / SQRT_2)));
    let (tail, power) = tail(isa, magnitude(isa, scaled));
    let lower = isa.mul(tail, half);
    let negative = isa.less(x, isa.zero());
    let distribution = isa.select(negative, lower, isa.sub(isa.splat(T::ONE), lower));
    (distribution, isa.mul(power, isa.splat(T::from_f64(FRAC_2_SQRT_PI / (2.0 * SQRT_2)))))
}

/// `x · Φ(x)`.
#[inline(always)]
pub fn gelu<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    isa.mul(x, normal(isa, x).0)
}

/// The derivative of [`gelu`]: `Φ(x) + x φ(x)`.
#[inline(always)]
pub fn gelu_derivative<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (distribution, density) = normal(isa, x);
    isa.mul_add(x, density, distribution)
}

/// `√(2/π)`, and what the cubic term of [`gelu_tanh`] is multiplied with.
const SLOPE: f64 = SQRT_2 * FRAC_2_SQRT_PI / 2.0;
const CUBIC: f64 = 0.044715;

/// `½ x (1 + tanh u)` with `u = √(2/π) (x + 0.044715 x³)`, which is `x · sigmoid(2u)`.
#[inline(always)]
pub fn gelu_tanh<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    gated(isa, x, isa.mul(x, slope(isa, x, CUBIC)))
}

/// `√(2/π) (1 + factor · x²)`.
#[inline(always)]
fn slope<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector, factor: f64) -> I::Vector {
    let factor = isa.splat(T::from_f64(SLOPE * factor));
    isa.mul_add(isa.mul(x, x), factor, isa.splat(T::from_f64(SLOPE)))
}

/// The derivative of [`gelu_tanh`]: `s + x s (1 − s) 2u'` with `s = sigmoid(2u)`.
#[inline(always)]
pub fn gelu_tanh_derivative<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (gate, bend) = gate(isa, isa.mul(x, slope(isa, x, CUBIC)));
    let twice = isa.mul(isa.splat(T::from_f64(2.0)), slope(isa, x, 3.0 * CUBIC));
    isa.mul_add(isa.mul(x, twice), bend, gate)
}
