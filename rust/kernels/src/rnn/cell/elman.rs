//! The simple recurrent network (Elman 1990).

use std::marker::PhantomData;

use fusewire_simd::Lanes;

use super::{BackwardStep, Cell, ForwardStep, load_outside};
use crate::math::{Elementary, relu, tanh};

/// `h' = φ(W x + U h)`.
#[derive(Clone, Copy, Debug)]
pub struct Elman<A>(PhantomData<A>);

/// The function φ of an [`Elman`] cell, whose derivative follows from its value.
pub trait Activation: Copy + Send + Sync + 'static {
    /// `φ(sum)`.
    fn value<T: Elementary, I: Lanes<T>>(isa: I, sum: I::Vector) -> I::Vector;

    /// `gradient · φ′`, where φ has the value `value`.
    fn chain<T: Elementary, I: Lanes<T>>(
        isa: I,
        value: I::Vector,
        gradient: I::Vector,
    ) -> I::Vector;
}

/// The hyperbolic tangent.
#[derive(Clone, Copy, Debug)]
pub struct Tanh;

impl Activation for Tanh {
    #[inline(always)]
    fn value<T: Elementary, I: Lanes<T>>(isa: I, sum: I::Vector) -> I::Vector {
        tanh(isa, sum)
    }

    #[inline(always)]
    fn chain<T: Elementary, I: Lanes<T>>(
        isa: I,
        value: I::Vector,
        gradient: I::Vector,
    ) -> I::Vector {
        isa.mul(gradient, isa.neg_mul_add(value, value, isa.splat(T::ONE)))
    }
}

/// `max(x, 0)`.
#[derive(Clone, Copy, Debug)]
pub struct Relu;

impl Activation for Relu {
    #[inline(always)]
    fn value<T: Elementary, I: Lanes<T>>(isa: I, sum: I::Vector) -> I::Vector {
        relu(isa, sum)
    }

    #[inline(always)]
    fn chain<T: Elementary, I: Lanes<T>>(
        isa: I,
        value: I::Vector,
        gradient: I::Vector,
    ) -> I::Vector {
        isa.select(isa.less(isa.zero(), value), gradient, isa.zero())
    }
}

impl<A: Activation> Cell for Elman<A> {
    const GATES: usize = 1;
    const SHARED: usize = 1;
    const SAVED: usize = 0;
    const UNITS: usize = 32;
    const HAS_CELL_STATE: bool = false;

    #[inline(always)]
    fn forward<T: Elementary, I: Lanes<T>>(isa: I, step: ForwardStep<'_, T>) {
        for unit in (0..Self::UNITS).step_by(I::LANES) {
            let hidden = A::value(isa, step.sum::<Self, I>(isa, 0, unit));
            isa.store(&mut step.hidden[unit..], hidden);
        }
    }

    #[inline(always)]
    fn backward<T: Elementary, I: Lanes<T>>(isa: I, mut step: BackwardStep<'_, T>) {
        for unit in (0..Self::UNITS).step_by(I::LANES) {
            let hidden = load_outside(isa, step.hidden, unit);
            let gradient = A::chain(isa, hidden, step.hidden_gradient(isa, unit));
            step.store::<Self, I>(isa, 0, unit, gradient);
            isa.store(&mut step.hidden_gradient[unit..], isa.zero());
        }
    }
}
