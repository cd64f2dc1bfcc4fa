//! What happens around a product: where it is added, and what else is done while it is computed.

use fusewire_simd::{Lanes, Real};

/// What the product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// To zero: `C = A · B`; `C` is not read.
    Zero,
    /// To what is there: `C += A · B`.
    Accumulate,
}

/// What is done again and again while a product is computed: the place to ask for memory that is
/// needed later, a few lines at a time, so that they arrive behind the multiplications.
pub trait Meanwhile<T: Real> {
    /// Whether it does anything.
    const FETCHES: bool;

    /// Does a little of it.
    fn meanwhile<I: Lanes<T>>(&mut self, isa: I);
}

/// Nothing.
impl<T: Real> Meanwhile<T> for () {
    const FETCHES: bool = false;

    #[inline(always)]
    fn meanwhile<I: Lanes<T>>(&mut self, _: I) {}
}
