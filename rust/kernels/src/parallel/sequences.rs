//! An output of many sequences, cut by sequence, head and block of rows.

use std::ops::Range;

use super::Partition;
use super::blocks::place;
use crate::view::ViewMut;

/// Which rows of a view `(batch, heads, rows, …)` make up each sequence.
#[derive(Clone, Copy, Debug)]
pub enum SequenceRows<'a> {
    /// Each batch row is a sequence.
    Padded,
    /// The only batch row holds all: sequence `s` has the rows `offsets[s]..offsets[s + 1]`.
    Packed(&'a [usize]),
}

impl SequenceRows<'_> {
    /// How many sequences `batch` rows of the batch hold.
    pub fn count(&self, batch: usize) -> usize {
        match self {
            Self::Padded => batch,
            Self::Packed(offsets) => offsets.len() - 1,
        }
    }

    /// The rows of the longest sequence, of `rows` in all.
    pub fn longest(&self, rows: usize) -> usize {
        match self {
            Self::Padded => rows,
            Self::Packed(offsets) => {
                offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
            }
        }
    }

    /// The batch row of a sequence, and its rows, of `rows` in all.
    pub fn of(&self, sequence: usize, rows: usize) -> (usize, Range<usize>) {
        match self {
            Self::Padded => (sequence, 0..rows),
            Self::Packed(offsets) => (0, offsets[sequence]..offsets[sequence + 1]),
        }
    }
}

/// A view `(batch, heads, rows, …)` cut by sequence, then into blocks of heads and of rows, numbered
/// with the last fastest. Sequences that are shorter than the longest have empty parts.
pub struct SequenceBlocks<'a, T, const N: usize> {
    view: ViewMut<'a, T, N>,
    start: *mut T,
    rows: SequenceRows<'a>,
    block: [usize; 2],
    grid: [usize; 3],
}

// SAFETY: parts are handed out as exclusive views, at most once at a time by the trait's contract.
unsafe impl<T: Send, const N: usize> Sync for SequenceBlocks<'_, T, N> {}

impl<'a, T, const N: usize> SequenceBlocks<'a, T, N> {
    /// Cuts into blocks of `[heads, rows]`; 0 rows leave them uncut.
    ///
    /// # Panics
    /// If a block has no heads, or the offsets do not rise from 0 to at most the number of rows of
    /// the only batch row.
    pub fn new(mut view: ViewMut<'a, T, N>, rows: SequenceRows<'a>, block: [usize; 2]) -> Self {
        const { assert!(N >= 3) };
        let shape = view.shape();
        if let SequenceRows::Packed(offsets) = rows {
            assert!(shape[0] == 1 && offsets.first() == Some(&0), "{offsets:?}");
            assert!(offsets.windows(2).all(|pair| pair[0] <= pair[1]), "{offsets:?}");
            assert!(offsets.last().is_some_and(|&end| end <= shape[2]), "{offsets:?}");
        }
        let blocks = match block[1] {
            0 => 1,
            len => rows.longest(shape[2]).div_ceil(len),
        };
        let grid = [rows.count(shape[0]), shape[1].div_ceil(block[0]), blocks];
        Self { start: view.as_mut_ptr(), view, rows, block, grid }
    }

    /// How many sequences, blocks of heads and blocks of rows there are.
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }
}

// SAFETY: parts of different indices differ in the sequence, the heads or the block of rows, which
// share no position of the view: offsets rise, and the view is exclusive.
unsafe impl<'a, T: Send, const N: usize> Partition for SequenceBlocks<'a, T, N> {
    type Part = ViewMut<'a, T, N>;

    fn parts(&self) -> usize {
        self.grid.iter().product()
    }

    unsafe fn part(&self, index: usize) -> ViewMut<'a, T, N> {
        assert!(index < self.parts());
        let [sequence, head, block] = place(self.grid, index);
        let (mut shape, strides) = (self.view.shape(), self.view.strides());
        let (batch, rows) = self.rows.of(sequence, shape[2]);
        let (first, size) = match self.block[1] {
            0 => (rows.start, rows.len()),
            len => {
                let first = rows.end.min(rows.start + block * len);
                (first, len.min(rows.end - first))
            }
        };
        let first = [batch, head * self.block[0], first];
        shape[0] = 1;
        shape[1] = self.block[0].min(shape[1] - first[1]);
        shape[2] = size;
        let skipped: isize =
            first.iter().zip(strides).map(|(&first, stride)| first as isize * stride).sum();
        // SAFETY: the part lies inside the view, and the caller keeps it exclusive.
        unsafe { ViewMut::from_raw_parts(self.start.wrapping_offset(skipped), shape, strides) }
    }
}
