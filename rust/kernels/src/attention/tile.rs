//! Tiles of scores.

use std::ops::Range;

use fusewire_simd::{Element, Plain, Storage};

use crate::Result;
use crate::gemm::multiplies_by_tiles;
use crate::view::{View, ViewMut};

/// Queries of a block: four AVX-512 vectors, a whole number of vectors everywhere.
pub(super) const QUERIES: usize = 64;
/// Keys of a tile at most: with the packed queries it fits in the second-level cache.
pub(super) const KEYS: usize = 128;
/// Queries and keys by which tiles are cut at an edge: as many as vectors have lanes, but all where
/// matrix tiles multiply so fast that vectors had better do the same for all queries.
#[inline(always)]
pub(super) fn grain<E: Element, I: Storage<E>>(isa: I) -> usize {
    if multiplies_by_tiles::<E, I>(isa) { QUERIES } else { I::LANES }
}

/// Neighbouring keys that a factor of a product may hold: tiles are made of so many.
pub(super) const PAIR: usize = 2;

/// Numbers `(rows, width)`, the width a whole number of vectors.
pub(super) struct Tile<'a, T> {
    numbers: &'a mut [T],
    width: usize,
}

impl<'a, T: Plain> Tile<'a, T> {
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
}

/// Keys of a segment, and the columns of the block's queries that see any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Keys, counted from the segment's first.
    pub(super) keys: Range<usize>,
    /// Columns, in whole vectors.
    pub(super) columns: Range<usize>,
}

/// A block of queries of one head of one sequence.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) sequence: usize,
    pub(super) head: usize,
    pub(super) queries: Range<usize>,
}

/// What a tile of scores begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    /// No query of the block attends to any of the keys: there is nothing to do.
    Hidden,
    /// 0 everywhere; the tile was not written.
    Clear,
    /// What was written to the tile.
    Written,
}
