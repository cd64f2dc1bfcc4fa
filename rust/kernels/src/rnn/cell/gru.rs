//! The gated recurrent unit (Cho et al. 2014) as `torch.nn` and cuDNN compute it.

use fusewire_simd::Lanes;

use super::{BackwardStep, Cell, ForwardStep, load_outside};
use crate::math::{Elementary, sigmoid, tanh};

/// `n = tanh(W_n x + r∘(U_n h))` and `h' = (1 − z)∘n + z∘h`, with the gates in the order `r z n`: the
/// reset gate scales the hidden state's product, not the hidden state.
#[derive(Clone, Copy, Debug)]
pub struct Gru;

/// Kept for the backward pass, beside the three gates: the candidate's product of the hidden state.
const CANDIDATE_PRODUCT: usize = 3;

impl Cell for Gru {
    const GATES: usize = 3;
    const SHARED: usize = 2;
    const SAVED: usize = 4;
    const UNITS: usize = 16;
    const HAS_CELL_STATE: bool = false;

    #[inline(always)]
    fn forward<T: Elementary, I: Lanes<T>>(isa: I, mut step: ForwardStep<'_, T>) {
        for unit in (0..Self::UNITS).step_by(I::LANES) {
            let reset = sigmoid(isa, step.sum::<Self, I>(isa, 0, unit));
            let update = sigmoid(isa, step.sum::<Self, I>(isa, 1, unit));
            let at = 2 * Self::UNITS + unit;
            let product = isa.add(isa.load(&step.product[at..]), isa.load(&step.bias[at..]));
            let sum = isa.mul_add(reset, product, isa.load(&step.projection[at..]));
            let candidate = tanh(isa, sum);
            // (1 − z) n + z h = n + z (h − n)
            let change = isa.sub(isa.load(&step.previous[unit..]), candidate);
            isa.store(&mut step.hidden[unit..], isa.mul_add(update, change, candidate));
            for (slot, value) in [reset, update, candidate, product].into_iter().enumerate() {
                step.save::<Self, I>(isa, slot, unit, value);
            }
        }
    }

    #[inline(always)]
    fn backward<T: Elementary, I: Lanes<T>>(isa: I, mut step: BackwardStep<'_, T>) {
        let one = isa.splat(T::ONE);
        let slope = |s: I::Vector| isa.neg_mul_add(s, s, s);
        for unit in (0..Self::UNITS).step_by(I::LANES) {
            // One by one: a call of `map` would not be compiled for these registers.
            let saved = |slot| step.saved::<Self, I>(isa, slot, unit);
            let (reset, update) = (saved(0), saved(1));
            let (candidate, product) = (saved(2), saved(CANDIDATE_PRODUCT));
            let previous = load_outside(isa, step.previous, unit);
            let hidden_gradient = step.hidden_gradient(isa, unit);
            let change = isa.mul(hidden_gradient, isa.sub(previous, candidate));
            let kept = isa.neg_mul_add(hidden_gradient, update, hidden_gradient);
            let sum = isa.mul(kept, isa.neg_mul_add(candidate, candidate, one));
            let gradients = [
                isa.mul(isa.mul(sum, product), slope(reset)),
                isa.mul(change, slope(update)),
                sum,
                isa.mul(sum, reset),
            ];
            for (slot, gradient) in gradients.into_iter().enumerate() {
                step.store::<Self, I>(isa, slot, unit, gradient);
            }
            isa.store(&mut step.hidden_gradient[unit..], isa.mul(hidden_gradient, update));
        }
    }
}
