//! Every operation on every instruction set of this CPU, against scalars.
#![allow(unsafe_code)]

use std::f64::consts::LOG2_E;

use crate::{Abreast, Element, IsaName, Kernel, Lanes, Real, available};

mod half;

/// Applies one vector operation to slices of any length.
struct Apply<'a, T, F> {
    inputs: [&'a [T]; 3],
    output: &'a mut [T],
    operation: F,
}

/// A vector operation of up to three operands, written once for all instruction sets.
trait Operation<T: Real> {
    fn vector<I: Lanes<T>>(&self, isa: I, a: I::Vector, b: I::Vector, c: I::Vector) -> I::Vector;
    fn scalar(&self, a: f64, b: f64, c: f64) -> f64;
}

impl<T: Real, F: Operation<T>> Apply<'_, T, F> {
    #[inline(always)]
    fn with<I: Lanes<T>>(self, isa: I) {
        let [a, b, c] = self.inputs;
        for start in (0..self.output.len()).step_by(I::LANES) {
            let end = (start + I::LANES).min(self.output.len());
            let load = |slice: &[T]| isa.load_first(&slice[start..end]);
            let result = self.operation.vector(isa, load(a), load(b), load(c));
            isa.store_first(&mut self.output[start..end], result);
        }
    }
}

impl<T: Real, F: Operation<T>> Kernel<T> for Apply<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        self.with(isa);
    }
}

/// The same by three vectors side by side.
struct ApplyAbreast<'a, T, F>(Apply<'a, T, F>);

impl<T: Real, F: Operation<T>> Kernel<T> for ApplyAbreast<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        self.0.with(Abreast::<I, 3>(isa));
    }
}

macro_rules! operation {
    ($name:ident, |$isa:ident, $a:ident, $b:ident, $c:ident| $vector:expr, $scalar:expr) => {
        struct $name;
        impl<T: Real> Operation<T> for $name {
            #[inline(always)]
            fn vector<I: Lanes<T>>(
                &self,
                $isa: I,
                $a: I::Vector,
                $b: I::Vector,
                $c: I::Vector,
            ) -> I::Vector {
                let _ = ($a, $b, $c);
                $vector
            }
            fn scalar(&self, a: f64, b: f64, c: f64) -> f64 {
                let scalar: fn(f64, f64, f64) -> f64 = $scalar;
                scalar(a, b, c)
            }
        }
    };
}

operation!(Add, |isa, a, b, c| isa.add(a, b), |a, b, _| a + b);
operation!(Sub, |isa, a, b, c| isa.sub(a, b), |a, b, _| a - b);
operation!(Mul, |isa, a, b, c| isa.mul(a, b), |a, b, _| a * b);
operation!(Div, |isa, a, b, c| isa.div(a, b), |a, b, _| a / b);
operation!(Min, |isa, a, b, c| isa.min(a, b), |a, b, _| a.min(b));
operation!(Max, |isa, a, b, c| isa.max(a, b), |a, b, _| a.max(b));
operation!(MulAdd, |isa, a, b, c| isa.mul_add(a, b, c), |a, b, c| a * b + c);
operation!(NegMulAdd, |isa, a, b, c| isa.neg_mul_add(a, b, c), |a, b, c| c - a * b);
operation!(Round, |isa, a, b, c| isa.round(a), |a, _, _| a.round_ties_even());
operation!(Reciprocal, |isa, a, b, c| isa.reciprocal(b), |_, b, _| 1.0 / b);
operation!(Scale, |isa, a, b, c| isa.scale_exponent(a, isa.round(c)), |a, _, c| a * c
    .round_ties_even()
    .exp2());
operation!(
    SelectLess,
    |isa, a, b, c| isa.select(isa.less(a, b), isa.splat(T::ONE), c),
    |a, b, c| if a < b { 1.0 } else { c }
);
operation!(
    SplitAndJoin,
    |isa, a, b, c| {
        let (mantissa, exponent) = isa.split_exponent(isa.mul(b, b));
        isa.scale_exponent(mantissa, exponent)
    },
    |_, b, _| b * b
);

operation!(
    SplitWhole,
    |isa, a, b, c| {
        let (whole, rest) = isa.split_whole(a, T::from_f64(100.0));
        isa.scale_exponent(isa.add(isa.splat(T::ONE), rest), whole)
    },
    |a, _, _| joined(a)
);
operation!(
    SplitPower,
    |isa, a, b, c| {
        let factor = T::from_f64(0.75);
        let (power, rest) = isa.split_power(a, Some(factor), T::from_f64(100.0));
        let scaled = isa.shift(isa.add(isa.splat(T::ONE), rest), power);
        let (power, rest) =
            isa.split_power(isa.mul(a, isa.splat(factor)), None, T::from_f64(100.0));
        isa.div(scaled, isa.shift(isa.add(isa.splat(T::ONE), rest), power))
    },
    |_, _, _| 1.0
);
operation!(
    SplitExp,
    |isa, a, b, c| {
        let rounded = T::from_f64(LOG2_E);
        let log2_e = [rounded, T::from_f64(LOG2_E - rounded.to_f64())];
        let ln_2 = [0.693_145_751_953_125, 1.428_606_820_309_417e-6].map(T::from_f64);
        let a = isa.mul(a, isa.splat(T::from_f64(0.03125)));
        let (power, rest) = isa.split_exp(a, log2_e, ln_2, T::from_f64(100.0));
        isa.shift(isa.add(isa.splat(T::ONE), rest), power)
    },
    |a, _, _| joined(a * 0.03125 * LOG2_E)
);

operation!(
    InTurn,
    |isa, a, b, c| {
        let (offset, sum) = isa.in_turn(3, isa.add(a, b));
        assert_eq!(offset, 3);
        sum
    },
    |a, b, _| a + b
);

/// `(1 + r) · 2^n` with `x = n + r`.
fn joined(x: f64) -> f64 {
    let whole = x.round_ties_even();
    (1.0 + (x - whole)) * whole.exp2()
}

fn check<T: Real>(operation: impl Operation<T>, tolerance: f64) {
    let series = |factor: f64, offset: f64| -> Vec<T> {
        (0..67_u32).map(|i| T::from_f64((f64::from(i * 37 % 67) - offset) * factor)).collect()
    };
    let (a, b, c) = (series(0.37, 20.0), series(-0.61, 31.5), series(1.3, 33.0));
    for isa in available() {
        for length in [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 67] {
            let mut outputs = [vec![T::NAN; length], vec![T::NAN; length]];
            let [alone, abreast] = &mut outputs;
            let inputs = [&a[..], &b, &c];
            let kernel = Apply { inputs, output: alone, operation: &operation };
            T::dispatch_on(isa, kernel).expect("available");
            let kernel = Apply { inputs, output: abreast, operation: &operation };
            T::dispatch_on(isa, ApplyAbreast(kernel)).expect("available");
            let [output, abreast] = outputs;
            assert_eq!(output, abreast, "{isa}: vectors side by side give the same numbers");
            for (i, value) in output.iter().enumerate() {
                let [a, b, c] = [a[i], b[i], c[i]].map(T::to_f64);
                let expected = operation.scalar(a, b, c);
                let error = (value.to_f64() - expected).abs();
                // Where terms cancel, the bound is that of the largest of them.
                let bound = tolerance * expected.abs().max((a * b).abs() + c.abs()).max(1.0);
                assert!(error <= bound, "{isa} lane {i} of {length}: {value}, not {expected}");
            }
        }
    }
}

impl<T: Real, F: Operation<T>> Operation<T> for &F {
    #[inline(always)]
    fn vector<I: Lanes<T>>(&self, isa: I, a: I::Vector, b: I::Vector, c: I::Vector) -> I::Vector {
        (**self).vector(isa, a, b, c)
    }
    fn scalar(&self, a: f64, b: f64, c: f64) -> f64 {
        (**self).scalar(a, b, c)
    }
}

macro_rules! check_all {
    ($($test:ident: $operation:ident),* $(,)?) => {$(
        #[test]
        fn $test() {
            check::<f32>($operation, 4e-7);
            check::<f64>($operation, 8e-16);
        }
    )*};
}

check_all!(
    adds: Add, subtracts: Sub, multiplies: Mul, divides: Div, takes_the_minimum: Min,
    takes_the_maximum: Max, multiplies_and_adds: MulAdd, multiplies_and_subtracts: NegMulAdd,
    rounds_ties_to_even: Round, takes_reciprocals: Reciprocal, scales_exponents: Scale,
    selects_where_less: SelectLess, splits_exponents: SplitAndJoin, splits_wholes: SplitWhole,
    splits_powers: SplitPower, splits_exponentials: SplitExp, keeps_turns: InTurn,
);

/// Reductions, masks and the tile transpose of one instruction set.
struct WholeVectors;

impl<T: Real> Kernel<T> for WholeVectors {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        let lanes = I::LANES;
        let numbers: Vec<T> = (0..lanes * lanes).map(|i| T::from_f64(i as f64)).collect();
        let first = isa.load(&numbers);
        assert_eq!(isa.sum_lanes(first).to_f64(), (lanes * (lanes - 1) / 2) as f64);
        let mut rows = [first; 16];
        for (row, vector) in rows.iter_mut().enumerate().take(lanes) {
            *vector = isa.load(&numbers[row * lanes..]);
        }
        let mut sums = vec![T::NAN; lanes];
        isa.store(&mut sums, isa.sum_each(&rows[..lanes]));
        for (row, &sum) in rows.iter().zip(&sums) {
            assert_eq!(sum, isa.sum_lanes(*row));
        }
        assert_eq!(isa.max_lanes(first).to_f64(), (lanes - 1) as f64);
        assert!(!isa.any(isa.first(0)));
        assert!(isa.any(isa.first(1)));
        let nan = isa.splat(T::NAN);
        assert!(isa.sum_lanes(isa.max(first, nan)).to_f64().is_nan(), "the second operand wins");
        assert!(!isa.sum_lanes(isa.max(nan, first)).to_f64().is_nan());

        let stride = lanes + 3;
        let mut transposed = vec![T::NAN; lanes * stride];
        // SAFETY: the source holds LANES rows of LANES, the target LANES rows of `stride`.
        unsafe {
            isa.transpose_tile(numbers.as_ptr(), lanes, None, transposed.as_mut_ptr(), stride);
        }
        for row in 0..lanes {
            for column in 0..lanes {
                assert_eq!(transposed[column * stride + row], numbers[row * lanes + column]);
            }
            assert!(transposed[row * stride + lanes].to_f64().is_nan(), "wrote past the tile");
        }
    }
}

#[test]
fn whole_vectors() {
    for isa in available() {
        f32::dispatch_on(isa, WholeVectors).expect("available");
        f64::dispatch_on(isa, WholeVectors).expect("available");
    }
}

/// Reductions and masks of vectors side by side.
struct WholeVectorsAbreast;

impl<T: Real> Kernel<T> for WholeVectorsAbreast {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        let (isa, lanes) = (Abreast::<I, 3>(isa), 3 * I::LANES);
        let numbers: Vec<T> = (0..lanes).map(|i| T::from_f64(i as f64)).collect();
        let vector = isa.load(&numbers);
        assert_eq!(isa.sum_lanes(vector).to_f64(), (lanes * (lanes - 1) / 2) as f64);
        assert_eq!(isa.max_lanes(vector).to_f64(), (lanes - 1) as f64);
        assert!(!isa.any(isa.first(0)) && isa.any(isa.first(1)) && isa.any(isa.first(lanes)));
        assert!(isa.any(isa.less(vector, isa.splat(T::from_f64(0.5)))), "0 in the first vector");
        assert!(isa.any(isa.less(isa.splat(T::from_f64(lanes as f64 - 1.5)), vector)), "the last");
    }
}

#[test]
fn whole_vectors_abreast() {
    for isa in available() {
        f32::dispatch_on(isa, WholeVectorsAbreast).expect("available");
        f64::dispatch_on(isa, WholeVectorsAbreast).expect("available");
    }
}

#[test]
fn names_are_read_back() {
    for isa in available() {
        assert_eq!(isa.as_str().parse::<IsaName>(), Ok(isa));
    }
    let message = "sse9".parse::<IsaName>().expect_err("no such instruction set");
    assert!(message.contains("portable") && message.contains("sse9"), "{message}");
}
