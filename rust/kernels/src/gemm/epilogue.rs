//! What happens to a whole product behind its last sums: an addend for each column, and a function.

use fusewire_simd::{Element, Kernel, Lanes, Real, Storage};

use crate::view::{View, ViewMut};

/// What happens to the finished product while it is in the nearest caches.
///
/// It is shared by threads, told absolute columns, and not compiled into every tile: activations are
/// long.
pub trait ColumnEpilogue<T: Real>: Sync {
    /// Whether it changes nothing.
    const IDENTITY: bool = false;

    /// What is added to the columns from `column` on.
    fn addend<I: Lanes<T>>(&self, isa: I, column: usize) -> I::Vector;

    /// The value to store, given the product with its addend.
    fn apply<I: Lanes<T>>(&self, isa: I, sum: I::Vector) -> I::Vector;
}

/// Stores the product as it is.
#[derive(Clone, Copy, Debug)]
pub struct NoEpilogue;

impl<T: Real> ColumnEpilogue<T> for NoEpilogue {
    const IDENTITY: bool = true;

    #[inline(always)]
    fn addend<I: Lanes<T>>(&self, isa: I, _: usize) -> I::Vector {
        isa.zero()
    }

    #[inline(always)]
    fn apply<I: Lanes<T>>(&self, _: I, sum: I::Vector) -> I::Vector {
        sum
    }
}

/// Vectors of columns that are finished at a time: of 16 bits so many are a cache line, which might be
/// gone before its second half came.
const ABREAST: usize = 2;

/// Brings sums to C.
pub(super) struct Finish<'a, E: Element, F> {
    pub(super) epilogue: &'a F,
    /// The first of C's columns in the whole product.
    pub(super) column: usize,
    pub(super) sums: View<'a, E::Real, 2>,
    pub(super) c: ViewMut<'a, E, 2>,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for Finish<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { epilogue, sums, mut c, .. } = self;
        // Down a few columns: rows are often a multiple of 4 KB apart, and a load of an addend between
        // stores to the same place of other pages would wait for each of them.
        for first in (0..c.columns()).step_by(ABREAST * I::LANES) {
            let mut addends = [isa.zero(); ABREAST];
            for (column, addend) in (first..c.columns()).step_by(I::LANES).zip(&mut addends) {
                *addend = epilogue.addend(isa, self.column + column);
            }
            for row in 0..c.rows() {
                let sums = sums.row(row)[first..].chunks(I::LANES);
                let targets = c.row_mut(row)[first..].chunks_mut(I::LANES);
                for ((sum, target), addend) in sums.zip(targets).zip(addends) {
                    let mut sum = isa.load_first(sum);
                    if !F::IDENTITY {
                        sum = epilogue.apply(isa, isa.add(sum, addend));
                    }
                    isa.write_first(target, sum);
                }
            }
        }
    }
}
