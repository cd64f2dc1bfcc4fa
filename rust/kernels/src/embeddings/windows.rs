//! From a text to batches of windows: frequent words dropped, reaches and noise drawn.

use std::ops::Range;

use super::random::{Noise, Random};
use super::{Objective, Parts, Pass, Text};
use crate::{Error, Result};

/// How far a row may move on scores that were computed before it began to: the learning rate times
/// the pairs that it is in. A batch ends where a row exceeds this, as words of a small vocabulary
/// soon do: their scores would no longer be true, and their vectors grow without bound.
const MOST_MOVEMENT: f32 = 1.0;

/// Context vectors and outputs, as ranges of the batch's lists.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) vectors: Range<usize>,
    pub(super) outputs: Range<usize>,
}

/// Windows in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) windows: Vec<Window>,
    /// The rows of the output table: of each window the centre first, then what was drawn.
    pub(super) outputs: Vec<u32>,
    /// The rows of the input table whose mean each context vector is, as ranges of `rows`.
    pub(super) vectors: Vec<Range<usize>>,
    pub(super) rows: Vec<u32>,
    pub(super) learning_rate: f64,
}

impl Batch {
    /// Scores in all windows.
    pub(super) fn pairs(&self) -> u64 {
        self.windows.iter().map(|w| (w.vectors.len() * w.outputs.len()) as u64).sum()
    }

    fn clear(&mut self) {
        self.windows.clear();
        self.outputs.clear();
        self.vectors.clear();
        self.rows.clear();
    }

    /// Ends the vector whose rows begin at `first`.
    fn close_vector(&mut self, first: usize) {
        self.vectors.push(first..self.rows.len());
    }
}

/// A place in a text.
pub(super) struct Reader<'a> {
    text: Text<'a>,
    pass: Pass,
    random: Random,
    /// The next sentence, and what is left of the one before: its words, and the next centre.
    sentence: usize,
    kept: Vec<u32>,
    centre: usize,
    /// How often each row of the input table, and of the output table, is in a pair of the batch.
    pairs: [Vec<f32>; 2],
    /// The most of them.
    most_pairs: f32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: Text<'a>, pass: Pass, [rows, words]: [usize; 2]) -> Result<Self> {
        let ([count], [ends]) = (text.words.shape(), text.sentences.shape());
        let rises = ends > 0
            && text.sentences.get([0]) == 0
            && text.sentences.get([ends - 1]) == count as i64
            && (1..ends).all(|end| text.sentences.get([end - 1]) <= text.sentences.get([end]));
        if !rises {
            return Err(Error::Value(format!(
                "sentences must rise from 0 to {count}, the number of words"
            )));
        }
        if let Some(word) = (0..count)
            .map(|place| text.words.get([place]))
            .find(|&word| word < 0 || word >= words as i64)
        {
            return Err(Error::Value(format!(
                "words must be from 0 to {}, but one is {word}",
                words - 1
            )));
        }
        let random = Random::new(pass.seed);
        Ok(Self {
            text,
            pass,
            random,
            sentence: 0,
            kept: Vec::new(),
            centre: 0,
            pairs: [vec![0.0; rows], vec![0.0; words]],
            most_pairs: 0.0,
        })
    }

    /// Puts the next windows into `batch`; false where there are none.
    pub(super) fn fill(
        &mut self,
        batch: &mut Batch,
        keep: &[u32],
        noise: &Noise,
        parts: Option<&Parts>,
    ) -> bool {
        self.forget(batch);
        batch.clear();
        batch.learning_rate = self.learning_rate();
        let most_pairs = MOST_MOVEMENT / batch.learning_rate.abs() as f32;
        while batch.windows.len() < self.pass.batch && self.most_pairs <= most_pairs {
            if self.centre < self.kept.len() {
                self.push_window(batch, noise, parts);
                self.centre += 1;
            } else if !self.next_sentence(keep) {
                break;
            }
        }
        !batch.windows.is_empty()
    }

    /// Counts no more what was in the last batch.
    fn forget(&mut self, batch: &Batch) {
        let [input, output] = &mut self.pairs;
        batch.rows.iter().for_each(|&row| input[row as usize] = 0.0);
        batch.outputs.iter().for_each(|&word| output[word as usize] = 0.0);
        self.most_pairs = 0.0;
    }

    /// Counts the pairs of a window; a row counts by its share in its context vector, which is what
    /// scores see of its movement.
    fn count(&mut self, batch: &Batch, window: &Window) {
        let [input, output] = &mut self.pairs;
        let mut add = |count: &mut f32, more: f32| {
            *count += more;
            self.most_pairs = self.most_pairs.max(*count);
        };
        for vector in window.vectors.clone() {
            let rows = &batch.rows[batch.vectors[vector].clone()];
            let share = window.outputs.len() as f32 / rows.len() as f32;
            rows.iter().for_each(|&row| add(&mut input[row as usize], share));
        }
        for &word in &batch.outputs[window.outputs.clone()] {
            add(&mut output[word as usize], window.vectors.len() as f32);
        }
    }

    fn learning_rate(&self) -> f64 {
        let [first, last] = self.pass.learning_rates;
        let [count] = self.text.words.shape();
        let read = self.text.sentences.get([self.sentence]) as f64 / count.max(1) as f64;
        first + (last - first) * read
    }

    fn next_sentence(&mut self, keep: &[u32]) -> bool {
        if self.sentence + 1 >= self.text.sentences.shape()[0] {
            return false;
        }
        let [start, end] = [self.sentence, self.sentence + 1]
            .map(|place| self.text.sentences.get([place]) as usize);
        self.sentence += 1;
        self.kept.clear();
        self.centre = 0;
        for place in start..end {
            let word = self.text.words.get([place]) as u32;
            if self.random.bits() <= keep[word as usize] {
                self.kept.push(word);
            }
        }
        true
    }

    fn push_window(&mut self, batch: &mut Batch, noise: &Noise, parts: Option<&Parts>) {
        let reach = 1 + self.random.below(self.pass.window as u32) as usize;
        let around =
            self.centre.saturating_sub(reach)..(self.centre + reach + 1).min(self.kept.len());
        if around.len() < 2 {
            return;
        }
        let (first_vector, first_output) = (batch.vectors.len(), batch.outputs.len());
        let mut first = batch.rows.len();
        for place in around.filter(|&place| place != self.centre) {
            match parts {
                Some(parts) => batch.rows.extend_from_slice(parts.of(self.kept[place])),
                None => batch.rows.push(self.kept[place]),
            }
            if self.pass.objective == Objective::SkipGram {
                batch.close_vector(first);
                first = batch.rows.len();
            }
        }
        if self.pass.objective == Objective::BagOfWords {
            batch.close_vector(first);
        }
        let centre = self.kept[self.centre];
        batch.outputs.push(centre);
        for _ in 0..self.pass.negatives {
            let drawn = noise.draw(&mut self.random);
            if drawn != centre {
                batch.outputs.push(drawn);
            }
        }
        let window = Window {
            vectors: first_vector..batch.vectors.len(),
            outputs: first_output..batch.outputs.len(),
        };
        self.count(batch, &window);
        batch.windows.push(window);
    }
}
