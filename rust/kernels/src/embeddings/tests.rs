//! Batches against the reference, the statistics of what is drawn, and equal bits for any team.

use fusewire_simd::on_each_isa;

use super::random::{Noise, Random};
use super::windows::{Batch, Reader};
use super::{Embeddings, Objective, Pass, Text, reference};
use crate::parallel::{Pool, Serial, Team};
use crate::view::View;

const WORDS: usize = 23;

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 37 + seed * 101) % 1009) as f64 / 504.5 - 1.0).collect()
}

fn pass(objective: Objective) -> Pass {
    let learning_rates = [0.3, 0.1];
    Pass { objective, window: 3, negatives: 5, batch: 7, learning_rates, seed: 11 }
}

/// Words, and sentences of 0, 1, 40 and 19 of them.
fn text() -> (Vec<i64>, Vec<i64>) {
    ((0..60).map(|i| (i * i + 3 * i) % WORDS as i64).collect(), vec![0, 0, 1, 41, 60])
}

/// Each word's own row, and rows behind those of all words.
fn parts() -> (Vec<i64>, Vec<i64>) {
    let (mut offsets, mut rows) = (vec![0], Vec::new());
    for word in 0..WORDS as i64 {
        rows.extend(
            (0..=word % 4).map(|part| if part == 0 { word } else { 23 + (word * part) % 9 }),
        );
        offsets.push(rows.len() as i64);
    }
    (offsets, rows)
}

struct Case {
    input: Vec<f64>,
    output: Vec<f64>,
    dim: usize,
    parts: Option<(Vec<i64>, Vec<i64>)>,
}

impl Case {
    fn new(dim: usize, with_parts: bool) -> Self {
        let rows = if with_parts { WORDS + 9 } else { WORDS };
        Self {
            input: numbers(rows * dim, 1),
            output: numbers(WORDS * dim, 2),
            dim,
            parts: with_parts.then(parts),
        }
    }

    fn embeddings(&self) -> Embeddings<f64> {
        let rows = self.input.len() / self.dim;
        let keep: Vec<f64> = (0..WORDS).map(|word| if word == 4 { 0.3 } else { 1.0 }).collect();
        let noise: Vec<f64> = (0..WORDS).map(|word| 1.0 + word as f64).collect();
        let parts = self.parts.as_ref().map(|(offsets, rows)| {
            [offsets, rows].map(|list| View::contiguous(list, [list.len()]).expect("a list"))
        });
        Embeddings::new(
            View::contiguous(&self.input, [rows, self.dim]).expect("input"),
            View::contiguous(&self.output, [WORDS, self.dim]).expect("output"),
            View::contiguous(&keep, [WORDS]).expect("keep"),
            View::contiguous(&noise, [WORDS]).expect("noise"),
            parts,
        )
        .expect("it fits")
    }
}

fn train(embeddings: &mut Embeddings<f64>, pass: Pass, team: &dyn Team) -> super::Report {
    train_on(embeddings, text(), pass, team)
}

fn train_on(
    embeddings: &mut Embeddings<f64>,
    (words, sentences): (Vec<i64>, Vec<i64>),
    pass: Pass,
    team: &dyn Team,
) -> super::Report {
    let text = Text {
        words: View::contiguous(&words, [words.len()]).expect("words"),
        sentences: View::contiguous(&sentences, [sentences.len()]).expect("sentences"),
    };
    embeddings.train(text, pass, team).expect("it is trained")
}

#[test]
fn every_instruction_set_applies_the_reference() {
    on_each_isa(|isa| {
        for objective in [Objective::SkipGram, Objective::BagOfWords] {
            for (dim, with_parts) in [(1, false), (15, true), (16, false), (17, true), (50, true)] {
                let case = Case::new(dim, with_parts);
                let mut embeddings = case.embeddings();
                let pass = pass(objective);
                let report = train(&mut embeddings, pass, &Serial);

                let mut input: Vec<_> = case.input.chunks(dim).map(<[f64]>::to_vec).collect();
                let mut output: Vec<_> = case.output.chunks(dim).map(<[f64]>::to_vec).collect();
                let (words, sentences) = text();
                let text = Text {
                    words: View::contiguous(&words, [60]).expect("words"),
                    sentences: View::contiguous(&sentences, [5]).expect("sentences"),
                };
                let tables = [input.len(), WORDS];
                let mut reader = Reader::new(text, pass, tables).expect("a text");
                let (mut batch, mut loss, mut pairs) = (Batch::default(), 0.0, 0);
                let fresh = case.embeddings();
                while reader.fill(&mut batch, &fresh.keep, &fresh.noise, fresh.parts.as_ref()) {
                    let parts = fresh.parts.as_ref();
                    loss += reference::apply(&batch, parts, &mut input, &mut output);
                    pairs += batch.pairs();
                }

                let what = format!("{isa} {objective:?} {dim} {with_parts}");
                assert_eq!(report.pairs, pairs, "{what}");
                assert!((report.loss - loss).abs() < 1e-9 * loss, "{what}: {} {loss}", report.loss);
                for (row, expected) in input.iter().enumerate() {
                    for (got, expected) in embeddings.input_row(row).iter().zip(expected) {
                        assert!((got - expected).abs() < 1e-11, "{what} {row}: {got} {expected}");
                    }
                }
                for (word, expected) in output.iter().enumerate() {
                    for (got, expected) in embeddings.output_row(word).iter().zip(expected) {
                        assert!((got - expected).abs() < 1e-11, "{what} {word}: {got} {expected}");
                    }
                }
            }
        }
    });
}

#[test]
fn the_team_changes_no_bit() {
    let case = Case::new(50, true);
    let mut alone = case.embeddings();
    // Steps so small, and a text so long, that batches are large enough for a team.
    let pass = Pass { batch: 200, learning_rates: [1e-4; 2], ..pass(Objective::SkipGram) };
    let text = || ((0..600).map(|i| (i * i + 3 * i) % WORDS as i64).collect(), vec![0, 600]);
    let report = train_on(&mut alone, text(), pass, &Serial);
    for threads in [2, 3, 7] {
        let mut together = case.embeddings();
        let same = train_on(&mut together, text(), pass, &Pool::new(threads));
        assert_eq!(same, report);
        assert_eq!(together.input, alone.input);
        assert_eq!(together.output, alone.output);
    }
}

#[test]
fn a_batch_ends_before_a_word_moves_too_far() {
    // Two words that come again and again: scores of a hundred windows ago say nothing of now.
    let words: Vec<i64> = (0..600).map(|place| place % 2).collect();
    let mut case = Case::new(8, false);
    case.output.fill(0.0);
    let mut embeddings = case.embeddings();
    let pass = Pass { batch: 300, learning_rates: [0.1, 0.1], ..pass(Objective::SkipGram) };
    for seed in 0..20 {
        let text = Text {
            words: View::contiguous(&words, [600]).expect("words"),
            sentences: View::contiguous(&[0, 600], [2]).expect("sentences"),
        };
        let report = embeddings.train(text, Pass { seed, ..pass }, &Serial).expect("trained");
        assert!(report.loss / (report.pairs as f64) < 0.8, "{report:?}");
    }
}

#[test]
fn the_seed_decides() {
    let case = Case::new(16, false);
    let report = |seed| {
        let pass = Pass { seed, ..pass(Objective::SkipGram) };
        train(&mut case.embeddings(), pass, &Serial)
    };
    assert_eq!(report(1), report(1));
    assert_ne!(report(1), report(2));
}

#[test]
fn noise_follows_its_weights() {
    let weights = [3.0, 0.0, 1.0, 6.0];
    let noise = Noise::new(weights.into_iter()).expect("weights");
    let mut random = Random::new(5);
    let mut counts = [0; 4];
    (0..100_000).for_each(|_| counts[noise.draw(&mut random) as usize] += 1);
    for (count, weight) in counts.iter().zip(weights) {
        assert!((f64::from(*count) / 1e5 - weight / 10.0).abs() < 0.01, "{counts:?}");
    }
    assert!(Noise::new([0.0, 0.0].into_iter()).is_err());
    assert!(Noise::new([1.0, -1.0].into_iter()).is_err());
}

#[test]
fn nonsense_is_refused() {
    let case = Case::new(4, false);
    let mut embeddings = case.embeddings();
    let mut refuse = |words: &[i64], sentences: &[i64], pass: Pass, expected: &str| {
        let text = Text {
            words: View::contiguous(words, [words.len()]).expect("words"),
            sentences: View::contiguous(sentences, [sentences.len()]).expect("sentences"),
        };
        let error = embeddings.train(text, pass, &Serial).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    let good = pass(Objective::SkipGram);
    refuse(&[0, 23], &[0, 2], good, "words must be from 0 to 22, but one is 23");
    refuse(&[0, -1], &[0, 2], good, "but one is -1");
    refuse(&[0, 1], &[0, 3], good, "sentences must rise from 0 to 2");
    refuse(&[0, 1], &[0, 2, 1, 2], good, "sentences must rise from 0 to 2");
    refuse(&[0, 1], &[], good, "sentences must rise from 0 to 2");
    refuse(&[0], &[0, 1], Pass { window: 0, ..good }, "window must be from 1 to");
    refuse(&[0], &[0, 1], Pass { batch: 0, ..good }, "batch must be from 1 to");
    let rates = [f64::NAN, 0.0];
    refuse(&[0], &[0, 1], Pass { learning_rates: rates, ..good }, "must be finite");
}
