//! Tiles of scores, the products that make and use them, and the packing of operands.

use std::ops::Range;

use fusewire_simd::{Lanes, Real};

use crate::Result;
use crate::gemm::{Scales, copy_rows, copy_transposed};
use crate::view::{View, ViewMut};

/// Queries of a block: four AVX-512 vectors, a whole number of vectors everywhere.
pub(super) const QUERIES: usize = 64;
/// Keys of a tile at most: with the packed queries it fits in the second-level cache.
pub(super) const KEYS: usize = 128;

/// Numbers `(rows, width)`, the width a whole number of vectors.
pub(super) struct Tile<'a, T> {
    numbers: &'a mut [T],
    width: usize,
}

impl<'a, T: Real> Tile<'a, T> {
    /// The first `rows` rows of `width` that `numbers` holds.
    #[inline(always)]
    pub(super) fn new(numbers: &'a mut [T], rows: usize, width: usize) -> Self {
        Self { numbers: &mut numbers[..rows * width], width }
    }

    #[inline(always)]
    pub(super) fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    pub(super) fn height(&self) -> usize {
        self.numbers.len().checked_div(self.width).unwrap_or(0)
    }

    /// The numbers of some rows.
    #[inline(always)]
    pub(super) fn rows(&self, rows: Range<usize>) -> &[T] {
        &self.numbers[rows.start * self.width..rows.end * self.width]
    }

    /// The numbers of some rows.
    #[inline(always)]
    pub(super) fn rows_mut(&mut self, rows: Range<usize>) -> &mut [T] {
        &mut self.numbers[rows.start * self.width..rows.end * self.width]
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [T] {
        &mut self.numbers[row * self.width..(row + 1) * self.width]
    }

    #[inline(always)]
    pub(super) fn view(&self, rows: Range<usize>, columns: Range<usize>) -> Result<View<'_, T, 2>> {
        let shape = [self.height(), self.width];
        Ok(View::contiguous(self.numbers, shape)?.slice(0, rows).slice(1, columns))
    }

    #[inline(always)]
    pub(super) fn view_mut(
        &mut self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<ViewMut<'_, T, 2>> {
        let shape = [self.height(), self.width];
        Ok(ViewMut::contiguous(self.numbers, shape)?.slice(0, rows).slice(1, columns))
    }

    /// Fills the tile with `factor · sourceᵀ`, and with zeros behind the rows of `source`.
    #[inline(always)]
    pub(super) fn pack_transposed<I: Lanes<T>>(
        &mut self,
        isa: I,
        source: View<'_, T, 2>,
        factor: T,
    ) -> Result<()> {
        let [rows, columns] = source.shape();
        copy_transposed(
            isa,
            source,
            Scales::All([factor; 16]),
            self.view_mut(0..columns, 0..rows)?,
        );
        if rows < self.width {
            (0..columns).for_each(|column| self.row_mut(column)[rows..].fill(T::ZERO));
        }
        Ok(())
    }
}

/// Keys of a segment, and the columns of the block's queries that see any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Keys, counted from the segment's first.
    pub(super) keys: Range<usize>,
    /// Columns, in whole vectors.
    pub(super) columns: Range<usize>,
}

/// Numbers that [`packed_rows`] needs for a copy of `view`, 0 where it serves as it is.
///
/// It does where its rows are contiguous, and not so spaced that they would all fall into the same
/// few sets of the first-level cache.
#[inline(always)]
pub(super) fn copied_rows<T>(view: View<'_, T, 2>) -> usize {
    let bytes = view.strides()[0].unsigned_abs() * size_of::<T>();
    let spread = !bytes.is_multiple_of(4096) || bytes == 0;
    if view.has_unit_columns() && spread { 0 } else { view.rows() * view.columns() }
}

/// `view` itself, or a copy of it in `target`, which holds [`copied_rows`] or more.
#[inline(always)]
pub(super) fn packed_rows<'a, T: Real, I: Lanes<T>>(
    isa: I,
    view: View<'a, T, 2>,
    target: &'a mut [T],
) -> Result<View<'a, T, 2>> {
    if copied_rows(view) == 0 {
        return Ok(view);
    }
    let target = &mut target[..view.rows() * view.columns()];
    copy_rows(isa, view, ViewMut::contiguous(target, view.shape())?);
    View::contiguous(target, view.shape())
}
