//! What happens around a product: where it is added, and what becomes of it in registers.

use fusewire_simd::{Lanes, Real};

/// What the product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// To zero: `C = A · B`; `C` is not read.
    Zero,
    /// To what is there: `C += A · B`.
    Accumulate,
}

/// What happens to the product while it is still in registers.
pub trait Epilogue<T: Real> {
    /// Whether [`Epilogue::meanwhile`] does anything.
    const FETCHES: bool = false;

    /// The value to store at `row` and the `LANES` columns from `column` on (of the block), given the
    /// product there. Columns beyond the block's last are computed and dropped.
    fn apply<I: Lanes<T>>(
        &mut self,
        isa: I,
        row: usize,
        column: usize,
        product: I::Vector,
    ) -> I::Vector;

    /// Called again and again while the product is computed: the place to ask for memory that is
    /// needed later, a few lines at a time, so that they arrive behind the multiplications.
    #[inline(always)]
    fn meanwhile<I: Lanes<T>>(&mut self, isa: I) {
        let _ = isa;
    }
}

/// Stores the product as it is.
#[derive(Clone, Copy, Debug)]
pub struct NoEpilogue;

impl<T: Real> Epilogue<T> for NoEpilogue {
    #[inline(always)]
    fn apply<I: Lanes<T>>(&mut self, _: I, _: usize, _: usize, product: I::Vector) -> I::Vector {
        product
    }
}
