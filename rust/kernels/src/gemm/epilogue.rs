//! What happens to a whole product behind its last sums: an addend for each column, and a function.

use fusewire_simd::{Element, Kernel, Real, Storage};

use crate::view::ViewMut;

/// What happens to the finished product while it is in the nearest caches.
///
/// It is shared by threads, told absolute columns, and not compiled into every tile: activations are
/// long.
pub trait ColumnEpilogue<T: Real>: Sync {
    /// Whether it changes nothing.
    const IDENTITY: bool = false;

    /// Turns `sums`, rows of `width` neighbouring columns of which the first is `column`, into what is
    /// to be stored.
    fn apply<I: Storage<T>>(&self, isa: I, column: usize, width: usize, sums: &mut [T])
    where
        T: Element<Real = T>;
}

/// Stores the product as it is.
#[derive(Clone, Copy, Debug)]
pub struct NoEpilogue;

impl<T: Real> ColumnEpilogue<T> for NoEpilogue {
    const IDENTITY: bool = true;

    #[inline(always)]
    fn apply<I: Storage<T>>(&self, _: I, _: usize, _: usize, _: &mut [T])
    where
        T: Element<Real = T>,
    {
    }
}

/// Vectors of columns that are stored at a time: of 16 bits so many are a cache line, which might be
/// gone before its second half came.
const ABREAST: usize = 2;

/// Brings sums to C.
pub(super) struct Finish<'a, E: Element, F> {
    pub(super) epilogue: &'a F,
    /// The first of C's columns in the whole product.
    pub(super) column: usize,
    /// As many rows and columns as C has, one row behind the other.
    pub(super) sums: &'a mut [E::Real],
    pub(super) c: ViewMut<'a, E, 2>,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for Finish<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { epilogue, column, sums, mut c } = self;
        let width = c.columns();
        epilogue.apply(isa, column, width, sums);
        // Down a few columns: rows are often a multiple of 4 KB apart.
        for first in (0..width).step_by(ABREAST * I::LANES) {
            let columns = first..width.min(first + ABREAST * I::LANES);
            for (row, sums) in sums.chunks_exact(width).enumerate() {
                let targets = c.row_mut(row)[columns.clone()].chunks_mut(I::LANES);
                for (sum, target) in sums[columns.clone()].chunks(I::LANES).zip(targets) {
                    isa.write_first(target, isa.load_first(sum));
                }
            }
        }
    }
}
