//! Rows between what operands store and what cells compute with.

use fusewire_simd::{Element, Factor, Kernel, Storage};

use crate::gemm::{DEEPEST, copy_columns, copy_rows};
use crate::view::{View, ViewMut};

/// Widens rows: stored numbers become those that cells compute with.
pub(super) struct Widen<'a, E: Element>(
    pub(super) View<'a, E, 2>,
    pub(super) ViewMut<'a, E::Real, 2>,
);

impl<E: Element> Kernel<E> for Widen<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self(source, mut target) = self;
        for row in 0..target.rows() {
            let to = target.row_mut(row);
            if !source.has_unit_columns() {
                let numbers = (0..source.columns()).map(|column| source.get([row, column]));
                to.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.to_real());
                continue;
            }
            for (from, to) in source.row(row).chunks(I::LANES).zip(to.chunks_mut(I::LANES)) {
                isa.store_first(to, isa.read_first(from));
            }
        }
    }
}

/// The way back: each number is rounded once.
pub(super) struct Round<'a, E: Element>(
    pub(super) View<'a, E::Real, 2>,
    pub(super) ViewMut<'a, E, 2>,
);

impl<E: Element> Kernel<E> for Round<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self(source, mut target) = self;
        for row in 0..target.rows() {
            let (from, to) = (source.row(row), target.row_mut(row));
            for (from, to) in from.chunks(I::LANES).zip(to.chunks_mut(I::LANES)) {
                isa.write_first(to, isa.load_first(from));
            }
        }
    }
}

/// Makes factors of stored rows, neighbours of a row together.
pub(super) struct Factorise<'a, E: Element>(
    pub(super) View<'a, E, 2>,
    pub(super) ViewMut<'a, E::Factor, 2>,
);

impl<E: Element> Kernel<E> for Factorise<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        if E::Factor::DEPTH == 1 {
            // For single numbers the same, and quick where columns are not contiguous.
            copy_rows(isa, self.0, self.1);
        } else {
            copy_columns(isa, self.0, self.1);
        }
    }
}

/// Makes factors of computed rows, rounding them on the way; numbers beyond a row count as 0.
pub(super) struct RoundToFactors<'a, E: Element>(
    pub(super) View<'a, E::Real, 2>,
    pub(super) ViewMut<'a, E::Factor, 2>,
);

impl<E: Element> Kernel<E> for RoundToFactors<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self(source, mut target) = self;
        let depth = E::Factor::DEPTH;
        for row in 0..target.rows() {
            let (from, to) = (source.row(row), target.row_mut(row));
            for (from, to) in from.chunks(depth * I::LANES).zip(to.chunks_mut(I::LANES)) {
                let mut parts = [isa.zero(); DEEPEST];
                for (part, from) in parts.iter_mut().zip(from.chunks(I::LANES)) {
                    *part = isa.load_first(from);
                }
                isa.store_factors(to, isa.join_neighbours(&parts[..depth]));
            }
        }
    }
}

/// Copies rows of any kind.
pub(super) fn copy<T: Copy>(source: View<'_, T, 2>, mut target: ViewMut<'_, T, 2>) {
    for row in 0..target.rows() {
        let to = target.row_mut(row);
        if source.has_unit_columns() {
            to.copy_from_slice(source.row(row));
        } else {
            for (column, to) in to.iter_mut().enumerate() {
                *to = source.get([row, column]);
            }
        }
    }
}
