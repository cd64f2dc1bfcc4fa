//! Rows of sequences packed step by step, cut by sequence.

use std::ops::Range;

use super::Partition;
use crate::view::ViewMut;

/// Rows packed step by step (the rows of step 0, those of step 1, …), cut into parts of `block`
/// sequences: part `i` holds, at each step, those of its sequences that the step has. Cut in chunks
/// of steps too, the parts of the first chunk come first.
///
/// Step `t` has the rows `offsets[t]..offsets[t + 1]`, one for each of the first sequences.
pub struct PackedRows<'a, T> {
    view: ViewMut<'a, T, 2>,
    start: *mut T,
    offsets: &'a [usize],
    sequences: usize,
    block: usize,
    /// Steps of a chunk.
    chunk: usize,
}

// SAFETY: parts are handed out as exclusive views, at most once at a time by the trait's contract.
unsafe impl<T: Send> Sync for PackedRows<'_, T> {}

impl<'a, T> PackedRows<'a, T> {
    /// Cuts `view`, which has `offsets.last()` rows of up to `sequences` sequences.
    ///
    /// # Panics
    /// If the offsets do not rise from 0 to the number of rows in steps of at most `sequences`.
    pub fn new(
        mut view: ViewMut<'a, T, 2>,
        offsets: &'a [usize],
        sequences: usize,
        block: usize,
    ) -> Self {
        assert!(block > 0 && offsets.first() == Some(&0) && offsets.last() == Some(&view.rows()));
        assert!(offsets.windows(2).all(|pair| (pair[0]..=pair[0] + sequences).contains(&pair[1])));
        Self { start: view.as_mut_ptr(), view, offsets, sequences, block, chunk: offsets.len() }
    }

    /// Cuts the steps too, into chunks of `steps`.
    ///
    /// # Panics
    /// If a chunk has no step.
    pub fn in_chunks(self, steps: usize) -> Self {
        assert!(steps > 0);
        Self { chunk: steps, ..self }
    }

    /// Parts of a chunk.
    fn blocks(&self) -> usize {
        self.sequences.div_ceil(self.block)
    }
}

/// Neighbouring sequences of [`PackedRows`] in neighbouring steps.
pub struct PackedPart<'a, T> {
    /// The part's first row of step 0, were the step that long.
    start: *mut T,
    strides: [isize; 2],
    columns: usize,
    offsets: &'a [usize],
    steps: Range<usize>,
    first: usize,
    sequences: usize,
    rows: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: a part is exclusive views of its rows.
unsafe impl<T: Send> Send for PackedPart<'_, T> {}

impl<'a, T> PackedPart<'a, T> {
    /// The part in `parts` runs of `width` columns, of which the last takes all that are left.
    pub fn cut(self, parts: usize, width: usize) -> Vec<PackedPart<'a, T>> {
        let run = |index: usize| {
            let end = if index + 1 == parts { self.columns } else { (index + 1) * width };
            let columns = (index * width).min(self.columns)..end.min(self.columns);
            let skipped = columns.start as isize * self.strides[1];
            let start = self.start.wrapping_offset(skipped);
            PackedPart { start, columns: columns.len(), steps: self.steps.clone(), ..self }
        };
        (0..parts).map(run).collect()
    }

    /// The part's rows of a step.
    ///
    /// # Panics
    /// If the part has no such step.
    pub fn step(&mut self, step: usize) -> ViewMut<'_, T, 2> {
        assert!(self.steps.contains(&step));
        let size = self.offsets[step + 1] - self.offsets[step];
        let rows = size.saturating_sub(self.first).min(self.sequences);
        let skipped = self.offsets[step] as isize * self.strides[0];
        let start = self.start.wrapping_offset(skipped);
        // SAFETY: the rows lie among those of the step, and belong to no other part.
        unsafe { ViewMut::from_raw_parts(start, [rows, self.columns], self.strides) }
    }
}

// SAFETY: parts of different indices hold different sequences, or other steps of them.
unsafe impl<'a, T: Send> Partition for PackedRows<'a, T> {
    type Part = PackedPart<'a, T>;

    fn parts(&self) -> usize {
        let steps = self.offsets.len() - 1;
        self.blocks() * steps.div_ceil(self.chunk).max(1)
    }

    unsafe fn part(&self, index: usize) -> PackedPart<'a, T> {
        assert!(index < self.parts());
        let (chunk, block) = (index / self.blocks(), index % self.blocks());
        let first = block * self.block;
        let begin = chunk * self.chunk;
        let strides = self.view.strides();
        let skipped = first as isize * strides[0];
        PackedPart {
            start: self.start.wrapping_offset(skipped),
            strides,
            columns: self.view.columns(),
            offsets: self.offsets,
            steps: begin..(begin + self.chunk).min(self.offsets.len() - 1),
            first,
            sequences: self.block.min(self.sequences - first),
            rows: std::marker::PhantomData,
        }
    }
}
