//! The updates of a batch in float64, one pair after another.

use super::parts::Parts;
use super::step::LEAST_PROBABILITY;
use super::windows::Batch;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mean(table: &[Vec<f64>], rows: &[u32], shares: &[f64]) -> Vec<f64> {
    let column = |column: usize| {
        rows.iter().zip(shares).map(|(&row, share)| share * table[row as usize][column]).sum()
    };
    (0..table[0].len()).map(column).collect()
}

/// Applies a batch to both tables; returns its loss.
///
/// Words with parts are put together before it, and their parts get what they have learnt behind it.
pub(super) fn apply(
    batch: &Batch,
    parts: Option<&Parts>,
    input: &mut [Vec<f64>],
    output: &mut [Vec<f64>],
) -> f64 {
    let Some(parts) = parts else { return learn(batch, input, output) };
    let rows: Vec<&[u32]> = batch.words.iter().map(|&word| parts.of(word)).collect();
    let before: Vec<_> = rows
        .iter()
        .map(|rows| mean(input, rows, &vec![1.0 / rows.len() as f64; rows.len()]))
        .collect();
    let mut after = before.clone();
    let loss = learn(batch, &mut after, output);
    for (rows, (before, after)) in rows.iter().zip(before.iter().zip(&after)) {
        for &row in *rows {
            for (column, number) in input[row as usize].iter_mut().enumerate() {
                *number += after[column] - before[column];
            }
        }
    }
    loss
}

fn learn(batch: &Batch, input: &mut [Vec<f64>], output: &mut [Vec<f64>]) -> f64 {
    let (before_input, before_output) = (input.to_vec(), output.to_vec());
    let mut loss = 0.0;
    for window in &batch.windows {
        let vectors: Vec<(&[u32], &[f64])> = window
            .vectors
            .clone()
            .map(|vector| batch.vectors[vector].clone())
            .map(|range| (&batch.members[range.clone()], &batch.shares[range]))
            .collect();
        let words = &batch.outputs[window.outputs.clone()];
        let hidden: Vec<Vec<f64>> =
            vectors.iter().map(|(rows, shares)| mean(input, rows, shares)).collect();
        let outputs: Vec<Vec<f64>> =
            words.iter().map(|&word| output[word as usize].clone()).collect();
        for ((rows, shares), hidden) in vectors.iter().zip(&hidden) {
            let scored = mean(&before_input, rows, shares);
            for (place, &word) in words.iter().enumerate() {
                let label = if place == 0 { 1.0 } else { 0.0 };
                let score = dot(&scored, &before_output[word as usize]);
                let probability = 1.0 / (1.0 + (-score).exp());
                let said = if place == 0 { probability } else { 1.0 - probability };
                loss -= said.max(LEAST_PROBABILITY).ln();
                let coefficient = batch.learning_rate * (label - probability);
                for column in 0..hidden.len() {
                    output[word as usize][column] += coefficient * hidden[column];
                    for &row in *rows {
                        input[row as usize][column] += coefficient * outputs[place][column];
                    }
                }
            }
        }
    }
    loss
}
