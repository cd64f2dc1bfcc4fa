//! Tiles of scores, the products that make and use them, and the packing of operands.

use std::ops::Range;

use fusewire_simd::{Lanes, Real};

use crate::Result;
use crate::gemm::copy_rows;
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
    pub(super) fn numbers(&self) -> &[T] {
        self.numbers
    }

    #[inline(always)]
    pub(super) fn numbers_mut(&mut self) -> &mut [T] {
        self.numbers
    }

    #[inline(always)]
    pub(super) fn rows_mut(&mut self) -> std::slice::ChunksExactMut<'_, T> {
        self.numbers.chunks_exact_mut(self.width)
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [T] {
        &mut self.numbers[row * self.width..(row + 1) * self.width]
    }

    #[inline(always)]
    pub(super) fn view(&self, rows: Range<usize>, columns: Range<usize>) -> Result<View<'_, T, 2>> {
        let shape = [self.numbers.len() / self.width, self.width];
        Ok(View::contiguous(self.numbers, shape)?.slice(0, rows).slice(1, columns))
    }

    #[inline(always)]
    pub(super) fn view_mut(
        &mut self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<ViewMut<'_, T, 2>> {
        let shape = [self.numbers.len() / self.width, self.width];
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
        copy_rows(isa, source.transpose(), self.view_mut(0..columns, 0..rows)?);
        let factor = isa.splat(factor);
        for row in self.rows_mut() {
            row[rows..].fill(T::ZERO);
            for part in row.chunks_exact_mut(I::LANES) {
                let scaled = isa.mul(isa.load(part), factor);
                isa.store(part, scaled);
            }
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

/// `view` itself where its rows are contiguous, else a copy in `target`.
#[inline(always)]
pub(super) fn contiguous_rows<'a, T: Real, I: Lanes<T>>(
    isa: I,
    view: View<'a, T, 2>,
    target: &'a mut [T],
) -> Result<View<'a, T, 2>> {
    if view.has_unit_columns() {
        return Ok(view);
    }
    let target = &mut target[..view.rows() * view.columns()];
    copy_rows(isa, view, ViewMut::contiguous(target, view.shape())?);
    View::contiguous(target, view.shape())
}
