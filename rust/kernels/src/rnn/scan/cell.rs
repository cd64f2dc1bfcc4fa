//! The gates of a recurrence without a product of the state: a strategy for one vector of units.

use std::marker::PhantomData;

use fusewire_simd::{Lanes, Real};

use crate::math::{Elementary, exp, sigmoid};

/// A cell `h' = r∘h + a` whose `r` and `a` follow from its gates' sums.
pub trait Minimal: Copy + Send + Sync + 'static {
    /// Gates, each `hidden_size` numbers of a row.
    const GATES: usize;

    /// `r` and `a`.
    fn coefficients<T: Elementary, I: Lanes<T>>(
        isa: I,
        gates: Gates<'_, T>,
    ) -> (I::Vector, I::Vector);

    /// Stores the gradients of the gates' sums, given `dr = dh'∘h` and `da = dh'`.
    fn backward<T: Elementary, I: Lanes<T>>(
        isa: I,
        gates: Gates<'_, T>,
        retained_gradient: I::Vector,
        added_gradient: I::Vector,
        target: GateGradients<'_, T>,
    );
}

/// The gates' sums of one step of one sequence, from a vector's first unit on.
#[derive(Clone, Copy)]
pub struct Gates<'a, T> {
    pub(super) row: &'a [T],
    pub(super) hidden_size: usize,
    pub(super) unit: usize,
}

impl<T: Real> Gates<'_, T> {
    #[inline(always)]
    fn load<I: Lanes<T>>(self, isa: I, gate: usize) -> I::Vector {
        isa.load_first(
            &self.row[gate * self.hidden_size + self.unit..][..self.hidden_size - self.unit],
        )
    }
}

/// Where the gradients of [`Gates`] go.
pub struct GateGradients<'a, T> {
    pub(super) row: &'a mut [T],
    pub(super) hidden_size: usize,
    pub(super) unit: usize,
}

impl<T: Real> GateGradients<'_, T> {
    #[inline(always)]
    fn store<I: Lanes<T>>(&mut self, isa: I, gate: usize, gradient: I::Vector) {
        let place = gate * self.hidden_size + self.unit;
        isa.store_first(&mut self.row[place..][..self.hidden_size - self.unit], gradient);
    }
}

/// What the candidate's sum becomes.
pub trait Candidate: Copy + Send + Sync + 'static {
    /// The candidate and its derivative.
    fn value<T: Elementary, I: Lanes<T>>(isa: I, sum: I::Vector) -> (I::Vector, I::Vector);
}

/// The sum itself.
#[derive(Clone, Copy, Debug)]
pub struct Linear;

impl Candidate for Linear {
    #[inline(always)]
    fn value<T: Elementary, I: Lanes<T>>(isa: I, sum: I::Vector) -> (I::Vector, I::Vector) {
        (sum, isa.splat(T::ONE))
    }
}

/// `x + ½` for `x ≥ 0`, else `sigmoid(x)`: never negative, as the paper's scan over logarithms needs.
#[derive(Clone, Copy, Debug)]
pub struct Positive;

impl Candidate for Positive {
    #[inline(always)]
    fn value<T: Elementary, I: Lanes<T>>(isa: I, sum: I::Vector) -> (I::Vector, I::Vector) {
        let negative = isa.less(sum, isa.zero());
        let gate = sigmoid(isa, sum);
        let shifted = isa.add(sum, isa.splat(T::from_f64(0.5)));
        let value = isa.select(negative, gate, shifted);
        let slope = isa.neg_mul_add(gate, gate, gate);
        (value, isa.select(negative, slope, isa.splat(T::ONE)))
    }
}

/// `h' = (1 − z)∘h + z∘c` with `z = sigmoid(·)`, gates in the order `z c`.
#[derive(Clone, Copy, Debug)]
pub struct MinGru<A>(PhantomData<A>);

impl<A: Candidate> Minimal for MinGru<A> {
    const GATES: usize = 2;

    #[inline(always)]
    fn coefficients<T: Elementary, I: Lanes<T>>(
        isa: I,
        gates: Gates<'_, T>,
    ) -> (I::Vector, I::Vector) {
        let update = sigmoid(isa, gates.load(isa, 0));
        let (candidate, _) = A::value(isa, gates.load(isa, 1));
        (isa.sub(isa.splat(T::ONE), update), isa.mul(update, candidate))
    }

    #[inline(always)]
    fn backward<T: Elementary, I: Lanes<T>>(
        isa: I,
        gates: Gates<'_, T>,
        retained_gradient: I::Vector,
        added_gradient: I::Vector,
        mut target: GateGradients<'_, T>,
    ) {
        let update = sigmoid(isa, gates.load(isa, 0));
        let (candidate, slope) = A::value(isa, gates.load(isa, 1));
        let change = isa.sub(isa.mul(added_gradient, candidate), retained_gradient);
        target.store(isa, 0, isa.mul(change, isa.neg_mul_add(update, update, update)));
        target.store(isa, 1, isa.mul(isa.mul(added_gradient, update), slope));
    }
}

/// `h' = f'∘h + i'∘c` with `f' = f / (f + i)` and `i' = i / (f + i)`, gates in the order `f i c`.
#[derive(Clone, Copy, Debug)]
pub struct MinLstm<A>(PhantomData<A>);

/// `f / (f + i)` and `i / (f + i)` from the sums of the gates `f` and `i`.
///
/// As `f = 1 / (1 + e⁻ˣ)`, those are `I / (F + I)` and `F / (F + I)` with `F = 1 + e⁻ˣ`, and the same of
/// `i`; both times e to a power that lets neither become infinite, nor their sum 0.
#[inline(always)]
fn shares<T: Elementary, I: Lanes<T>>(
    isa: I,
    forget: I::Vector,
    input: I::Vector,
) -> (I::Vector, I::Vector) {
    // Of an infinite sum the difference to the power would not be a number.
    let lowest = isa.splat(T::from_f64(-1e30));
    let [forget, input] = [forget, input].map(|sum| isa.sub(isa.zero(), isa.max(lowest, sum)));
    let power = isa.max(isa.max(forget, input), isa.zero());
    let one = exp(isa, isa.sub(isa.zero(), power));
    let [forget, input] = [forget, input].map(|sum| isa.add(one, exp(isa, isa.sub(sum, power))));
    let sum = isa.add(forget, input);
    (isa.div(input, sum), isa.div(forget, sum))
}

impl<A: Candidate> Minimal for MinLstm<A> {
    const GATES: usize = 3;

    #[inline(always)]
    fn coefficients<T: Elementary, I: Lanes<T>>(
        isa: I,
        gates: Gates<'_, T>,
    ) -> (I::Vector, I::Vector) {
        let (kept, written) = shares(isa, gates.load(isa, 0), gates.load(isa, 1));
        let (candidate, _) = A::value(isa, gates.load(isa, 2));
        (kept, isa.mul(written, candidate))
    }

    #[inline(always)]
    fn backward<T: Elementary, I: Lanes<T>>(
        isa: I,
        gates: Gates<'_, T>,
        retained_gradient: I::Vector,
        added_gradient: I::Vector,
        mut target: GateGradients<'_, T>,
    ) {
        let [forget, input] = [0, 1].map(|gate| gates.load(isa, gate));
        let (kept, written) = shares(isa, forget, input);
        let [forget, input] = [forget, input].map(|sum| sigmoid(isa, sum));
        let (candidate, slope) = A::value(isa, gates.load(isa, 2));
        // df' = −di' moves along f' i' (1 − f) with the sum of f, and along −f' i' (1 − i) with that of i.
        let change = isa.neg_mul_add(added_gradient, candidate, retained_gradient);
        let change = isa.mul(change, isa.mul(kept, written));
        target.store(isa, 0, isa.neg_mul_add(change, forget, change));
        target.store(isa, 1, isa.sub(isa.mul(change, input), change));
        target.store(isa, 2, isa.mul(isa.mul(added_gradient, written), slope));
    }
}
