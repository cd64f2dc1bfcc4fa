//! Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

use fusewire_simd::Lanes;

use super::{BackwardStep, Cell, ForwardStep};
use crate::math::{Elementary, sigmoid, tanh};

/// `c' = f∘c + i∘g` and `h' = o∘tanh(c')`, with the gates in the order `i f g o`.
#[derive(Clone, Copy, Debug)]
pub struct Lstm;

/// Kept for the backward pass, beside the four gates: the last cell state.
const LAST_CELL: usize = 4;

impl Cell for Lstm {
    const GATES: usize = 4;
    const SHARED: usize = 4;
    const SAVED: usize = 5;
    const UNITS: usize = 16;
    const HAS_CELL_STATE: bool = true;

    #[inline(always)]
    fn forward<T: Elementary, I: Lanes<T>>(isa: I, mut step: ForwardStep<'_, T>) {
        for unit in (0..Self::UNITS).step_by(I::LANES) {
            let input = sigmoid(isa, step.sum::<Self, I>(isa, 0, unit));
            let forget = sigmoid(isa, step.sum::<Self, I>(isa, 1, unit));
            let candidate = tanh(isa, step.sum::<Self, I>(isa, 2, unit));
            let output = sigmoid(isa, step.sum::<Self, I>(isa, 3, unit));
            let last = isa.load(&step.cell[unit..]);
            let cell = isa.mul_add(forget, last, isa.mul(input, candidate));
            isa.store(&mut step.cell[unit..], cell);
            isa.store(&mut step.hidden[unit..], isa.mul(output, tanh(isa, cell)));
            for (slot, value) in [input, forget, candidate, output, last].into_iter().enumerate() {
                step.save::<Self, I>(isa, slot, unit, value);
            }
        }
    }

    #[inline(always)]
    fn backward<T: Elementary, I: Lanes<T>>(isa: I, mut step: BackwardStep<'_, T>) {
        let one = isa.splat(T::ONE);
        // s (1 − s) and 1 − t²: the derivatives of sigmoid and tanh by their values.
        let slope = |s: I::Vector| isa.neg_mul_add(s, s, s);
        let tanh_slope = |t: I::Vector| isa.neg_mul_add(t, t, one);
        for unit in (0..Self::UNITS).step_by(I::LANES) {
            // One by one: a call of `map` would not be compiled for these registers.
            let saved = |slot| step.saved::<Self, I>(isa, slot, unit);
            let (input, forget, candidate) = (saved(0), saved(1), saved(2));
            let (output, last) = (saved(3), saved(LAST_CELL));
            let cell = tanh(isa, isa.mul_add(forget, last, isa.mul(input, candidate)));
            let hidden_gradient = step.hidden_gradient(isa, unit);
            let cell_gradient = isa.mul_add(
                isa.mul(hidden_gradient, output),
                tanh_slope(cell),
                isa.load(&step.cell_gradient[unit..]),
            );
            let gradients = [
                isa.mul(isa.mul(cell_gradient, candidate), slope(input)),
                isa.mul(isa.mul(cell_gradient, last), slope(forget)),
                isa.mul(isa.mul(cell_gradient, input), tanh_slope(candidate)),
                isa.mul(isa.mul(hidden_gradient, cell), slope(output)),
            ];
            for (slot, gradient) in gradients.into_iter().enumerate() {
                step.store::<Self, I>(isa, slot, unit, gradient);
            }
            isa.store(&mut step.cell_gradient[unit..], isa.mul(cell_gradient, forget));
            isa.store(&mut step.hidden_gradient[unit..], isa.zero());
        }
    }
}
