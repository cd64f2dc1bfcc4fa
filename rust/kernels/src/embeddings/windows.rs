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
    /// The words whose mean each context vector is, as ranges of `members`.
    pub(super) vectors: Vec<Range<usize>>,
    /// Places in `words` where words have parts, else words.
    pub(super) members: Vec<u32>,
    /// What a member counts in its vector's mean.
    pub(super) shares: Vec<f64>,
    /// Where words have parts: those around the centres, each once.
    pub(super) words: Vec<u32>,
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
        self.members.clear();
        self.shares.clear();
        self.words.clear();
    }

    /// Ends the vector whose members begin at `first`; what they count becomes their share.
    fn close_vector(&mut self, first: usize) {
        let shares = &mut self.shares[first..];
        let scale = 1.0 / shares.iter().sum::<f64>();
        shares.iter_mut().for_each(|share| *share *= scale);
        self.vectors.push(first..self.members.len());
    }
}

/// In how many pairs of a batch each vector is, which is how often it moves.
#[derive(Debug)]
struct Pairs {
    contexts: Vec<f32>,
    outputs: Vec<f32>,
    /// Rows of parts move every word that has them, each by the part's share in it.
    parts: Vec<f32>,
    /// The most of any.
    most: f32,
}

impl Pairs {
    fn new(rows: usize, words: usize) -> Self {
        let [contexts, outputs, parts] = [words, words, rows].map(|count| vec![0.0; count]);
        Self { contexts, outputs, parts, most: 0.0 }
    }

    fn forget(&mut self, batch: &Batch, parts: Option<&Parts>) {
        let contexts = if parts.is_some() { &batch.words } else { &batch.members };
        for &word in contexts {
            self.contexts[word as usize] = 0.0;
            let rows = parts.map_or(&[][..], |parts| parts.of(word));
            rows.iter().for_each(|&row| self.parts[row as usize] = 0.0);
        }
        batch.outputs.iter().for_each(|&word| self.outputs[word as usize] = 0.0);
        self.most = 0.0;
    }

    fn add(&mut self, batch: &Batch, window: &Window, parts: Option<&Parts>) {
        let mut add = |count: &mut f32, more: f32| {
            *count += more;
            self.most = self.most.max(*count);
        };
        for vector in window.vectors.clone() {
            for member in batch.vectors[vector].clone() {
                // By its share in the vector, which is what scores see of its movement.
                let more = window.outputs.len() as f32 * batch.shares[member] as f32;
                let member = batch.members[member];
                let Some(parts) = parts else {
                    add(&mut self.contexts[member as usize], more);
                    continue;
                };
                let word = batch.words[member as usize];
                add(&mut self.contexts[word as usize], more);
                let rows = parts.of(word);
                let more = more / rows.len() as f32;
                rows.iter().for_each(|&row| add(&mut self.parts[row as usize], more));
            }
        }
        for &word in &batch.outputs[window.outputs.clone()] {
            add(&mut self.outputs[word as usize], window.vectors.len() as f32);
        }
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
    /// The place of each word in the batch's list of words.
    places: Vec<Option<u32>>,
    pairs: Pairs,
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
            places: vec![None; words],
            pairs: Pairs::new(rows, words),
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
        self.pairs.forget(batch, parts);
        batch.words.iter().for_each(|&word| self.places[word as usize] = None);
        batch.clear();
        batch.learning_rate = self.learning_rate();
        let most_pairs = MOST_MOVEMENT / batch.learning_rate.abs() as f32;
        while batch.windows.len() < self.pass.batch && self.pairs.most <= most_pairs {
            if self.centre < self.kept.len() {
                self.push_window(batch, noise, parts);
                self.centre += 1;
            } else if !self.next_sentence(keep) {
                break;
            }
        }
        !batch.windows.is_empty()
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
        let mut first = batch.members.len();
        let centre = self.centre;
        for place in around.filter(|&place| place != centre) {
            let word = self.kept[place];
            let member = match parts {
                Some(_) => self.place_of(word, batch),
                None => word,
            };
            batch.members.push(member);
            batch.shares.push(parts.map_or(1.0, |parts| parts.of(word).len() as f64));
            if self.pass.objective == Objective::SkipGram {
                batch.close_vector(first);
                first = batch.members.len();
            }
        }
        if self.pass.objective == Objective::BagOfWords {
            batch.close_vector(first);
        }
        let centre = self.kept[centre];
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
        self.pairs.add(batch, &window, parts);
        batch.windows.push(window);
    }

    /// Where a word stands in the batch's list, at its end if it is new.
    fn place_of(&mut self, word: u32, batch: &mut Batch) -> u32 {
        *self.places[word as usize].get_or_insert_with(|| {
            batch.words.push(word);
            batch.words.len() as u32 - 1
        })
    }
}
