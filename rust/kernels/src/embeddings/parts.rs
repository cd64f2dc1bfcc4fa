//! Words as means of their parts: put together for a batch, and taken apart behind it.

use fusewire_simd::{Kernel, Lanes};

use super::rows::{prefetch_row, width};
use super::windows::Batch;
use crate::math::Elementary;
use crate::parallel::{Team, for_each_part};
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Words that a thread puts together at a time.
const WORDS: usize = 16;

/// The rows of the input table that make up each word: its own, and those of its parts.
pub(super) struct Parts {
    offsets: Vec<usize>,
    rows: Vec<u32>,
}

impl Parts {
    pub(super) fn new(
        [offsets, rows]: [View<'_, i64, 1>; 2],
        words: usize,
        table_rows: usize,
    ) -> Result<Self> {
        let [count] = rows.shape();
        if offsets.shape() != [words + 1] {
            return Err(Error::shape("the parts' offsets", &[words + 1], &offsets.shape()));
        }
        let offsets: Option<Vec<usize>> =
            (0..=words).map(|word| usize::try_from(offsets.get([word])).ok()).collect();
        let offsets = offsets
            .filter(|all| all[0] == 0 && all[words] == count && all.is_sorted_by(|a, b| a < b))
            .ok_or_else(|| {
                Error::Value(format!(
                    "the parts' offsets must rise from 0 to {count}, at each word"
                ))
            })?;
        let rows: Option<Vec<u32>> = (0..count)
            .map(|place| u32::try_from(rows.get([place])).ok())
            .map(|row| row.filter(|&row| (row as usize) < table_rows))
            .collect();
        let rows = rows.ok_or_else(|| {
            Error::Value(format!("the parts' rows must be from 0 to {}", table_rows - 1))
        })?;
        Ok(Self { offsets, rows })
    }

    #[inline]
    pub(super) fn of(&self, word: u32) -> &[u32] {
        let word = word as usize;
        &self.rows[self.offsets[word]..self.offsets[word + 1]]
    }
}

/// The words of a batch, each the mean of its rows.
pub(super) fn gather<T: Elementary>(
    batch: &Batch,
    parts: &Parts,
    input: View<'_, T, 2>,
    words: ViewMut<'_, T, 2>,
    team: &dyn Team,
) {
    for_each_part(team, words.blocks([WORDS, 0]), |index, target| {
        T::dispatch(Gather { batch, parts, input, first: index * WORDS, target });
    });
}

/// Adds to every row what the words that it is a part of have learnt.
pub(super) fn scatter<T: Elementary>(
    batch: &Batch,
    parts: &Parts,
    [before, after]: [View<'_, T, 2>; 2],
    input: ViewMut<'_, T, 2>,
    team: &dyn Team,
) {
    let width = width(input.columns(), team);
    for_each_part(team, input.blocks([0, width]), |index, input| {
        T::dispatch(Scatter { batch, parts, before, after, first: index * width, input });
    });
}

struct Gather<'a, T> {
    batch: &'a Batch,
    parts: &'a Parts,
    input: View<'a, T, 2>,
    /// The place of the first word of the target.
    first: usize,
    target: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Kernel<T> for Gather<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let words = &self.batch.words[self.first..self.first + self.target.rows()];
        for (place, &word) in words.iter().enumerate() {
            for &row in words.get(place + 1).map_or(&[][..], |&next| self.parts.of(next)) {
                prefetch_row(isa, self.input.row(row as usize));
            }
            let rows = self.parts.of(word);
            let scale = isa.splat(T::from_f64(1.0 / rows.len() as f64));
            let target = self.target.row_mut(place).chunks_exact_mut(I::LANES);
            for (column, target) in target.enumerate() {
                let mut sum = isa.zero();
                for &row in rows {
                    let row = &self.input.row(row as usize)[column * I::LANES..];
                    sum = isa.add(sum, isa.load(row));
                }
                isa.store(target, isa.mul(scale, sum));
            }
        }
    }
}

struct Scatter<'a, T> {
    batch: &'a Batch,
    parts: &'a Parts,
    before: View<'a, T, 2>,
    after: View<'a, T, 2>,
    /// The first column of the block of the table.
    first: usize,
    input: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Kernel<T> for Scatter<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let columns = self.input.columns();
        for (place, &word) in self.batch.words.iter().enumerate() {
            let [before, after] =
                [self.before, self.after].map(|words| &words.row(place)[self.first..][..columns]);
            for &row in self.parts.of(word) {
                let target = self.input.row_mut(row as usize).chunks_exact_mut(I::LANES);
                for (column, target) in target.enumerate() {
                    let [before, after] =
                        [before, after].map(|row| isa.load(&row[column * I::LANES..]));
                    isa.store(target, isa.add(isa.load(target), isa.sub(after, before)));
                }
            }
        }
    }
}
