//! Powers of two and the natural logarithm.

use std::f64::consts::LN_2;

use fusewire_simd::{Lanes, Real};

use super::constants::Elementary;

/// The polynomial with these coefficients, lowest power first, at `x`.
#[inline(always)]
pub(super) fn polynomial<T: Real, I: Lanes<T>>(
    isa: I,
    coefficients: &[T],
    x: I::Vector,
) -> I::Vector {
    let [lower @ .., highest] = coefficients else { return isa.zero() };
    let mut sum = isa.splat(*highest);
    for &coefficient in lower.iter().rev() {
        sum = isa.mul_add(sum, x, isa.splat(coefficient));
    }
    sum
}

/// `2^x`, within 1 unit in the last place of normal results; exactly 1 at 0, 0 at −∞.
#[inline(always)]
pub fn exp2<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (whole, rest) = isa.split_whole(x, T::HIGHEST_EXPONENT);
    isa.scale_exponent(exp2_of_rest(isa, T::EXP2_MINUS_ONE, rest), whole)
}

/// `2^x` for what will be rounded to 16 bits and is not large: within 3·10⁻⁶ of itself; exactly 1 at 0,
/// 0 at −∞.
#[inline(always)]
pub fn exp2_short<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (shift, rest) = isa.split_power(x, None, T::HIGHEST_EXPONENT);
    isa.shift(exp2_of_rest(isa, T::EXP2_MINUS_ONE_SHORT, rest), shift)
}

/// `2^(x · factor)` without the rounding of that product, for a positive `factor`, where it is not
/// large; exactly 1 at 0, 0 at −∞, and NaN or ∞ at ∞.
#[inline(always)]
pub fn exp2_product<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector, factor: T) -> I::Vector {
    let (shift, rest) = isa.split_power(x, Some(factor), T::HIGHEST_EXPONENT);
    isa.shift(exp2_of_rest(isa, T::EXP2_MINUS_ONE, rest), shift)
}

/// `2^rest` for |rest| ≤ ½ by a polynomial for `(2^rest − 1) / rest`.
#[inline(always)]
fn exp2_of_rest<T: Elementary, I: Lanes<T>>(
    isa: I,
    coefficients: &[T],
    rest: I::Vector,
) -> I::Vector {
    isa.mul_add(polynomial(isa, coefficients, rest), rest, isa.splat(T::ONE))
}

/// `e^x` where it is not large, within 1 unit in the last place of normal results; exactly 1 at 0, 0 at
/// −∞.
///
/// Unlike `2^(x · log₂e)`, whose product is rounded as coarsely as its whole part is large.
#[inline(always)]
pub fn exp<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let (shift, rest) = isa.split_exp(x, T::LOG2_E_PARTS, T::LN_2_PARTS, T::HIGHEST_EXPONENT);
    isa.shift(exp2_of_rest(isa, T::EXP2_MINUS_ONE, rest), shift)
}

/// The natural logarithm of a positive normal number, within 2 units in the last place.
#[inline(always)]
pub fn ln<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    let one = isa.splat(T::ONE);
    let half = isa.splat(T::from_f64(0.5));
    let (mantissa, exponent) = isa.split_exponent(x);
    // To [√½, √2), where the logarithm is smallest.
    let large = isa.less(isa.splat(T::from_f64(std::f64::consts::SQRT_2)), mantissa);
    let mantissa = isa.select(large, isa.mul(mantissa, half), mantissa);
    let exponent = isa.select(large, isa.add(exponent, one), exponent);
    // ln m = 2 atanh((m − 1) / (m + 1))
    let ratio = isa.div(isa.sub(mantissa, one), isa.add(mantissa, one));
    let series = polynomial(isa, T::ATANH, isa.mul(ratio, ratio));
    let rest = isa.mul(isa.add(ratio, ratio), series);
    isa.mul_add(exponent, isa.splat(T::from_f64(LN_2)), rest)
}
