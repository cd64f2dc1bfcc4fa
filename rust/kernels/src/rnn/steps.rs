//! Which sequences a step has, and in what order steps come.

use std::ops::Range;

use crate::{Error, Result};

/// Sequences packed step by step: first the rows of time 0, one per sequence, then those of time 1.
///
/// The longest sequence is the first, so the sequences of a time are the first rows of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    offsets: Vec<usize>,
    batch: usize,
    reverse: bool,
}

impl Steps {
    /// Steps of which time `t` has the first `batch_sizes[t]` of `batch` sequences; with `reverse`,
    /// the recurrence runs from each sequence's last time to its first.
    ///
    /// # Errors
    /// If the sizes increase, or exceed the batch.
    pub fn new(batch_sizes: &[usize], batch: usize, reverse: bool) -> Result<Self> {
        if let Some(pair) = batch_sizes.windows(2).find(|pair| pair[0] < pair[1]) {
            return Err(Error::Value(format!(
                "batch_sizes must not increase, but {} comes after {}",
                pair[1], pair[0]
            )));
        }
        if let Some(&first) = batch_sizes.first().filter(|&&first| first > batch) {
            return Err(Error::Value(format!(
                "batch_sizes must not exceed the batch of {batch}, but begins with {first}"
            )));
        }
        Self::of(batch_sizes.iter().copied(), batch, reverse)
    }

    /// `seq_len` steps of `batch` sequences each.
    ///
    /// # Errors
    /// If there are more rows than can be counted, or steps than fit in memory.
    pub fn equal(seq_len: usize, batch: usize, reverse: bool) -> Result<Self> {
        Self::of(std::iter::repeat_n(batch, seq_len), batch, reverse)
    }

    fn of(
        sizes: impl ExactSizeIterator<Item = usize>,
        batch: usize,
        reverse: bool,
    ) -> Result<Self> {
        let too_many = || Error::Memory("steps add up to too many rows".into());
        let mut offsets = Vec::new();
        offsets.try_reserve_exact(sizes.len().saturating_add(1)).map_err(|_| too_many())?;
        let mut total = 0_usize;
        offsets.push(total);
        for size in sizes {
            total = total.checked_add(size).ok_or_else(too_many)?;
            offsets.push(total);
        }
        Ok(Self { offsets, batch, reverse })
    }

    /// The number of sequences, those of length 0 included.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The length of the longest sequence.
    pub fn seq_len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of rows of all steps together.
    pub fn total(&self) -> usize {
        self.offsets[self.seq_len()]
    }

    /// Whether the recurrence runs from each sequence's last time to its first.
    pub(super) fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// The length of a sequence.
    pub(super) fn length(&self, sequence: usize) -> usize {
        // Sequences have no gaps, so the times that this one has come first.
        self.offsets.windows(2).take_while(|pair| pair[0] + sequence < pair[1]).count()
    }

    /// Where each time's rows begin, and behind the last where they end.
    pub(super) fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The time of the recurrence's step number `step`.
    #[inline(always)]
    pub(super) fn time(&self, step: usize) -> usize {
        if self.reverse { self.seq_len() - 1 - step } else { step }
    }

    /// Which rows of the packed data are those of `sequences` at `time`.
    #[inline(always)]
    pub(super) fn rows(&self, time: usize, sequences: Range<usize>) -> Range<usize> {
        let (start, end) = (self.offsets[time], self.offsets[time + 1]);
        (start + sequences.start).min(end)..(start + sequences.end).min(end)
    }

    /// How many of `sequences` step number `step` has; 0 before the first and after the last step.
    #[inline(always)]
    pub(super) fn active(&self, step: Option<usize>, sequences: Range<usize>) -> usize {
        match step {
            Some(step) if step < self.seq_len() => self.rows(self.time(step), sequences).len(),
            _ => 0,
        }
    }
}
