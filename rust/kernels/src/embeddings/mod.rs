//! Word vectors by negative sampling: skip-gram, continuous bag of words, and subwords for both.
//!
//! A window of text is a few context vectors `h_c` (in skip-gram one for each word around the centre, in the bag
//! of words their mean) and a few outputs `u_o`: the centre's, which the contexts shall predict, and those of
//! words drawn at random, which they shall not. All contexts of a window share the drawn words, so that a
//! window is a small matrix of scores. Its loss is `−Σ_c [ln σ(h_c·u_0) + Σ_{o>0} ln σ(−h_c·u_o)]`.
//!
//! Windows are taken in batches, which end early where a word comes too often. The scores of a batch are computed from the tables as they stand, window by
//! window in parallel; then the updates are applied in the order of the text, each thread to columns of its
//! own. So no two threads write the same number, and results do not depend on how many there are.

mod parts;
mod random;
#[cfg(test)]
mod reference;
mod rows;
mod step;
#[cfg(test)]
mod tests;
mod windows;

use std::str::FromStr;

use crate::math::Elementary;
use crate::parallel::{Serial, Team};
use crate::scratch::Scratch;
use crate::view::View;
use crate::{Error, Result};

use parts::Parts;
use random::Noise;
use windows::{Batch, Reader};

/// Columns of a table are padded to a multiple of this, a whole number of vectors of every kind.
const COLUMNS: usize = 16;

/// Windows below which a batch is done before another thread has woken up.
const WINDOWS_FOR_A_TEAM: usize = 128;

/// What the contexts of a window are to predict its centre from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Each of them alone.
    SkipGram,
    /// Their mean.
    BagOfWords,
}

impl FromStr for Objective {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "skip-gram" => Ok(Self::SkipGram),
            "cbow" => Ok(Self::BagOfWords),
            _ => Err(Error::Value(format!(
                "objective must be 'skip-gram' or 'cbow', but is '{name}'"
            ))),
        }
    }
}

/// How a pass over a text learns.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// What is predicted from what.
    pub objective: Objective,
    /// Most words on either side of the centre; each window draws its own reach from 1 to this.
    pub window: usize,
    /// Words drawn at random for each window.
    pub negatives: usize,
    /// Most windows whose scores are computed together.
    pub batch: usize,
    /// At the first word of the text and behind its last.
    pub learning_rates: [f64; 2],
    /// Decides what is drawn.
    pub seed: u64,
}

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// The sum of the losses of all windows.
    pub loss: f64,
    /// Pairs of a context vector and an output.
    pub pairs: u64,
}

/// A text: word ids, and where its sentences begin; windows do not reach beyond them.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// `(words)`.
    pub words: View<'a, i64, 1>,
    /// `(sentences + 1)`, from 0 to the number of words.
    pub sentences: View<'a, i64, 1>,
}

/// Both tables, and the vocabulary's frequencies.
pub struct Embeddings<T: Elementary> {
    input: Vec<T>,
    output: Vec<T>,
    rows: usize,
    words: usize,
    dim: usize,
    parts: Option<Parts>,
    noise: Noise,
    /// A word stays in the text when a random number of 32 bits is not above this.
    keep: Vec<u32>,
}

impl<T: Elementary> Embeddings<T> {
    /// Tables that go on from given ones.
    ///
    /// `input` is `(rows, dim)` and `output` `(words, dim)`. `keep` says with which probability a word of the
    /// text is read, and `noise` how often a word is drawn, relative to the others; both `(words)`. With
    /// `parts`, `(offsets, rows)` of which `offsets` has `words + 1` numbers, word `w` is the mean of the rows
    /// `rows[offsets[w]..offsets[w + 1]]`; without, it is row `w`.
    ///
    /// # Errors
    /// If shapes or values do not fit together, or memory runs out.
    pub fn new(
        input: View<'_, T, 2>,
        output: View<'_, T, 2>,
        keep: View<'_, f64, 1>,
        noise: View<'_, f64, 1>,
        parts: Option<[View<'_, i64, 1>; 2]>,
    ) -> Result<Self> {
        let ([rows, dim], words) = (input.shape(), output.rows());
        if u32::try_from(rows).is_err() || words == 0 || dim == 0 || words > rows {
            return Err(Error::Value(format!(
                "input must have at least one row for each of {words} words, and numbers in each, but has shape \
                 {:?}",
                input.shape()
            )));
        }
        for (name, got, expected) in [
            ("output", output.shape().to_vec(), vec![words, dim]),
            ("keep", keep.shape().to_vec(), vec![words]),
            ("noise", noise.shape().to_vec(), vec![words]),
        ] {
            if got != expected {
                return Err(Error::shape(name, &expected, &got));
            }
        }
        let threshold = |word| (keep.get([word]).clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
        Ok(Self {
            input: padded(input)?,
            output: padded(output)?,
            rows,
            words,
            dim,
            parts: parts.map(|parts| Parts::new(parts, words, rows)).transpose()?,
            noise: Noise::new((0..words).map(|word| noise.get([word])))?,
            keep: (0..words).map(threshold).collect(),
        })
    }

    /// Learns from a text, read once from its beginning.
    ///
    /// # Errors
    /// If the text names a word that is none, an option is out of range, or memory runs out.
    pub fn train(&mut self, text: Text<'_>, pass: Pass, team: &dyn Team) -> Result<Report> {
        pass.check()?;
        let mut reader = Reader::new(text, pass, [self.rows, self.words])?;
        let mut batch = Batch::default();
        let mut report = Report::default();
        let mut losses = Scratch::take(pass.batch)?;
        while reader.fill(&mut batch, &self.keep, &self.noise, self.parts.as_ref()) {
            let count = batch.windows.len();
            let team: &dyn Team = if count < WINDOWS_FOR_A_TEAM { &Serial } else { team };
            let losses = &mut losses[..count];
            self.learn(&batch, pass, losses, team)?;
            report.loss += losses.iter().map(|loss: &T| loss.to_f64()).sum::<f64>();
            report.pairs += batch.pairs();
        }
        Ok(report)
    }

    /// The numbers of a row of the input table.
    pub fn input_row(&self, row: usize) -> &[T] {
        &self.input[row * self.stride()..][..self.dim]
    }

    /// The numbers of a row of the output table.
    pub fn output_row(&self, word: usize) -> &[T] {
        &self.output[word * self.stride()..][..self.dim]
    }

    /// The shapes of the input and the output table.
    pub fn shapes(&self) -> [[usize; 2]; 2] {
        [[self.rows, self.dim], [self.words, self.dim]]
    }

    fn stride(&self) -> usize {
        self.dim.next_multiple_of(COLUMNS)
    }
}

impl Pass {
    /// Most context vectors of a window.
    fn vectors(&self) -> usize {
        match self.objective {
            Objective::SkipGram => 2 * self.window,
            Objective::BagOfWords => 1,
        }
    }

    /// Most outputs of a window.
    fn outputs(&self) -> usize {
        1 + self.negatives
    }

    /// Most scores of a window.
    fn pairs(&self) -> usize {
        self.vectors() * self.outputs()
    }

    fn check(&self) -> Result<()> {
        const MOST: usize = 1 << 16;
        for (name, number) in
            [("window", self.window), ("negatives", self.negatives), ("batch", self.batch)]
        {
            if !(1..=MOST).contains(&number) {
                return Err(Error::Value(format!(
                    "{name} must be from 1 to {MOST}, but is {number}"
                )));
            }
        }
        if self.pairs().saturating_mul(self.batch) > 1 << 28 {
            return Err(Error::Value("window, negatives and batch are too large together".into()));
        }
        match self.learning_rates.iter().all(|rate| rate.is_finite()) {
            true => Ok(()),
            false => Err(Error::Value("learning rates must be finite".into())),
        }
    }
}

/// The rows of a matrix, each followed by zeros up to the stride.
fn padded<T: Elementary>(matrix: View<'_, T, 2>) -> Result<Vec<T>> {
    let [rows, columns] = matrix.shape();
    let stride = columns.next_multiple_of(COLUMNS);
    let len = crate::view::count::<T, 2>([rows, stride])?;
    let mut numbers = Vec::new();
    numbers
        .try_reserve_exact(len)
        .map_err(|_| Error::Memory(format!("cannot allocate {len} numbers for word vectors")))?;
    numbers.resize(len, T::ZERO);
    for (row, target) in numbers.chunks_exact_mut(stride).enumerate() {
        for (column, number) in target[..columns].iter_mut().enumerate() {
            *number = matrix.get([row, column]);
        }
    }
    Ok(numbers)
}
