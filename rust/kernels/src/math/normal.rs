//! The normal distribution and the activations that are made of it.

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use fusewire_simd::{Lanes, Real};

use super::activation::{gate, gated, relu};
use super::constants::Elementary;
use super::exponential::{exp, polynomial};

/// Where the polynomial's variable is 0.
const MIDDLE: f64 = 3.0 * SQRT_2;
/// At this, `e^(−x²/2)` is 0 in any precision while all else is still a finite number.
const FAR: f64 = 85.0;

/// What a normal distribution has beyond `size`, `½ erfc(size/√2)`, and `e^(−size²/2)`, each with
/// a small relative error wherever it is normal.
#[inline(always)]
fn tail<T: Elementary, I: Lanes<T>>(isa: I, size: I::Vector) -> (I::Vector, I::Vector) {
    let (half, middle) = (isa.splat(T::from_f64(0.5)), isa.splat(T::from_f64(MIDDLE)));
    // What rounding took from the square: an error of the exponent is a relative error of the power.
    let square = isa.mul(size, size);
    let rest = isa.neg_mul_add(size, size, square);
    let power = exp(isa, isa.mul(square, isa.splat(T::from_f64(-0.5))));
    let power = isa.mul_add(isa.mul(power, rest), half, power);

    // One division for the polynomial's variable and for what its value is divided by.
    let sum = isa.add(size, middle);
    let divisor =
        isa.mul_add(size, isa.splat(T::from_f64(2.0 * SQRT_2)), isa.splat(T::from_f64(2.0)));
    let reciprocal = isa.reciprocal(isa.mul(sum, divisor));
    let place = isa.mul(isa.mul(isa.sub(size, middle), divisor), reciprocal);
    let scaled = isa.mul(power, isa.mul(sum, reciprocal));
    (isa.mul(polynomial(isa, T::TAIL, place), scaled), power)
}

/// `|x|`, and at most what [`tail`] takes.
#[inline(always)]
fn size<T: Real, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    // NaN passes as the second operand.
    isa.min(isa.splat(T::from_f64(FAR)), isa.max(isa.sub(isa.zero(), x), x))
}

/// `x · Φ(x)`, with the distribution `Φ(x) = ½ erfc(−x/√2)`: what is positive, less the tail's share.
#[inline(always)]
pub fn gelu<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let size = size(isa, x);
    isa.neg_mul_add(size, tail(isa, size).0, relu(isa, x))
}

/// The derivative of [`gelu`], `Φ(x) + x φ(x)` with the density `φ(x) = e^(−x²/2) / √2π`.
#[inline(always)]
pub fn gelu_derivative<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (tail, power) = tail(isa, size(isa, x));
    let negative = isa.less(x, isa.zero());
    let distribution = isa.select(negative, tail, isa.sub(isa.splat(T::ONE), tail));
    let density = isa.mul(power, isa.splat(T::from_f64(SLOPE / 2.0)));
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
