//! Each function on each instruction set against the standard library's in float64.

use fusewire_simd::{Element, Kernel, Lanes, available};

use super::{
    Elementary, exp, exp2, exp2_product, gelu, gelu_derivative, gelu_tanh, gelu_tanh_derivative,
    ln, relu, sigmoid, silu, silu_derivative, tanh,
};

/// A function of one vector, written once for all instruction sets.
trait Function<T: Elementary> {
    fn vector<I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector;
}

struct Map<'a, T, F> {
    values: &'a mut [T],
    function: std::marker::PhantomData<F>,
}

impl<T: Elementary, F: Function<T>> Kernel<T> for Map<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        for part in self.values.chunks_mut(I::LANES) {
            let result = F::vector(isa, isa.load_first(part));
            isa.store_first(part, result);
        }
    }
}

/// Checks `F` on an even grid against `truth`, relative to the truth and at least to `floor`.
fn check<T: Elementary, F: Function<T>>(
    range: (f64, f64),
    truth: fn(f64) -> f64,
    floor: f64,
    bound: f64,
) {
    const POINTS: usize = 20_001;
    let step = (range.1 - range.0) / (POINTS - 1) as f64;
    let inputs: Vec<T> = (0..POINTS).map(|i| T::from_f64(range.0 + i as f64 * step)).collect();
    for isa in available() {
        let mut values = inputs.clone();
        let kernel = Map::<T, F> { values: &mut values, function: std::marker::PhantomData };
        T::dispatch_on(isa, kernel).expect("available");
        for (x, value) in inputs.iter().zip(&values) {
            let expected = truth(x.to_f64());
            let error = (value.to_f64() - expected).abs() / expected.abs().max(floor);
            assert!(error <= bound, "{isa} at {x}: {value}, not {expected} ({error:.1e})");
        }
    }
}

/// The values of `F` at a few points, on each instruction set.
fn at<F: Function<f32>>(inputs: &[f32]) -> Vec<Vec<f32>> {
    let values = available().map(|isa| {
        let mut values = inputs.to_vec();
        let kernel = Map::<f32, F> { values: &mut values, function: std::marker::PhantomData };
        f32::dispatch_on(isa, kernel).expect("available");
        values
    });
    values.collect()
}

macro_rules! function {
    ($name:ident = $function:ident) => {
        struct $name;
        impl<T: Elementary> Function<T> for $name {
            #[inline(always)]
            fn vector<I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
                $function(isa, x)
            }
        }
    };
}

function!(Exp = exp);
function!(Exp2 = exp2);

/// `e^x` as a power of two.
struct Exp2Product;

impl<T: Elementary> Function<T> for Exp2Product {
    #[inline(always)]
    fn vector<I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
        exp2_product(isa, x, T::from_f64(std::f64::consts::LOG2_E))
    }
}

function!(Ln = ln);
function!(Relu = relu);
function!(Sigmoid = sigmoid);
function!(Tanh = tanh);
function!(Silu = silu);
function!(SiluDerivative = silu_derivative);
function!(Gelu = gelu);
function!(GeluDerivative = gelu_derivative);
function!(GeluTanh = gelu_tanh);
function!(GeluTanhDerivative = gelu_tanh_derivative);

/// `1 − erf x` for `x ≥ 0` in float64: the Taylor series of the error function where it is short, the
/// continued fraction of its complement beyond.
fn complementary_error(x: f64) -> f64 {
    const ROOT: f64 = 1.772_453_850_905_516; // √π
    if x < 1.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 1.0 - 2.0 / ROOT * (-x * x).exp() * sum;
    }
    let fraction = (1..200).rev().fold(x, |rest, n| x + f64::from(n) / 2.0 / rest);
    (-x * x).exp() / (ROOT * fraction)
}

fn distribution(x: f64) -> f64 {
    let tail = 0.5 * complementary_error(x.abs() / std::f64::consts::SQRT_2);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Bounds in units of the type's precision (2⁻²³ and 2⁻⁵²).
macro_rules! check_both {
    ($name:ident, $range:expr, $truth:expr, $floor:expr, $units:expr) => {
        check::<f32, $name>($range, $truth, $floor, $units * f64::from(f32::EPSILON));
        check::<f64, $name>($range, $truth, $floor, $units * f64::EPSILON);
    };
}

#[test]
fn powers_of_two() {
    check_both!(Exp2, (-120.0, 120.0), f64::exp2, 0.0, 1.5);
    for values in at::<Exp2>(&[0.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 10.0, -2000.0]) {
        assert_eq!(values[..3], [1.0, 0.0, f32::INFINITY]);
        assert!(values[3].is_nan());
        assert_eq!(values[4..], [1024.0, 0.0]);
    }
}

#[test]
fn exponentials() {
    check_both!(Exp, (-80.0, 80.0), f64::exp, 0.0, 1.5);
    for values in at::<Exp>(&[0.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -2000.0]) {
        assert_eq!(values[..3], [1.0, 0.0, f32::INFINITY]);
        assert!(values[3].is_nan());
        assert_eq!(values[4], 0.0);
    }
}

#[test]
fn powers_of_two_of_products() {
    // The factor's own rounding grows with x; without fused additions so does the product's.
    check_both!(Exp2Product, (-1.0, 1.0), f64::exp, 0.0, 2.0);
    for values in at::<Exp2Product>(&[0.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -2000.0]) {
        assert_eq!(values[..2], [1.0, 0.0]);
        assert!(values[2] == f32::INFINITY || values[2].is_nan());
        assert!(values[3].is_nan());
        assert_eq!(values[4], 0.0);
    }
}

#[test]
fn logarithms() {
    check_both!(Ln, (1e-3, 3.0), f64::ln, 1e-2, 3.0);
    check_both!(Ln, (1.0, 1e9), f64::ln, 1e-2, 3.0);
}

#[test]
fn activations() {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    check_both!(Relu, (-3.0, 3.0), |x| x.max(0.0), 1e-300, 0.0);
    check_both!(Sigmoid, (-60.0, 60.0), logistic, 0.0, 3.0);
    check_both!(Sigmoid, (-8.0, 8.0), logistic, 0.0, 2.0);
    check_both!(Tanh, (-20.0, 20.0), f64::tanh, 1e-12, 2.0);
    check_both!(Tanh, (-1e-3, 1e-3), f64::tanh, 1e-12, 2.0);
    check_both!(Silu, (-10.0, 10.0), |x| x / (1.0 + (-x).exp()), 1e-30, 3.0);
    let slope = |x: f64| {
        let [gate, rest] = [-x, x].map(|x| 1.0 / (1.0 + x.exp()));
        gate * (1.0 + x * rest)
    };
    check_both!(SiluDerivative, (-10.0, 10.0), slope, 0.1, 6.0);
}

#[test]
fn the_normal_distribution() {
    check_both!(Gelu, (-12.0, 12.0), |x| x * distribution(x), 0.1, 16.0);
    let slope = |x: f64| distribution(x) + x * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    check_both!(GeluDerivative, (-12.0, 12.0), slope, 0.1, 32.0);
    let far = [f32::NAN, 0.0, 100.0, -100.0, f32::MAX, -f32::MAX, f32::INFINITY, f32::NEG_INFINITY];
    for values in at::<Gelu>(&far) {
        assert!(values[0].is_nan());
        assert_eq!(values[1..], [0.0, 100.0, 0.0, f32::MAX, 0.0, f32::INFINITY, 0.0]);
    }
}

#[test]
fn the_tanh_form_of_gelu() {
    fn inner(x: f64) -> f64 {
        (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))
    }
    // As sigmoid, ½ (1 + tanh u) does not cancel.
    fn gate(x: f64) -> f64 {
        1.0 / (1.0 + (-2.0 * inner(x)).exp())
    }
    let truth = |x: f64| x * gate(x);
    check_both!(GeluTanh, (-6.0, 6.0), truth, 0.1, 8.0);
    let slope = |x: f64| {
        let steep = (8.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
        gate(x) * (1.0 + x * gate(-x) * steep)
    };
    check_both!(GeluTanhDerivative, (-6.0, 6.0), slope, 0.1, 16.0);
}

#[test]
fn limits_and_nan() {
    let inputs = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0];
    for values in at::<Sigmoid>(&inputs) {
        assert!(values[0].abs() < 1e-29 && values[1] == 1.0 && values[2].is_nan());
        assert_eq!(values[3], 0.5);
    }
    for values in at::<Tanh>(&inputs) {
        assert_eq!(values[..2], [-1.0, 1.0]);
        assert!(values[2].is_nan() && values[3] == 0.0);
    }
    // What is hidden by a large negative number stays hidden.
    let far = [-1e38, -100.0, 1e38, f32::INFINITY, f32::NAN, 0.0];
    for values in at::<Silu>(&far).into_iter().chain(at::<GeluTanh>(&far)) {
        assert_eq!(values[..4], [0.0, 0.0, 1e38, f32::INFINITY]);
        assert!(values[4].is_nan() && values[5] == 0.0);
    }
    for values in at::<SiluDerivative>(&far[..3]) {
        assert_eq!(values[..], [0.0, 0.0, 1.0]);
    }
    for values in at::<Relu>(&inputs) {
        assert_eq!(values[..2], [0.0, f32::INFINITY]);
        assert!(values[2].is_nan() && values[3] == 0.0);
    }
}
