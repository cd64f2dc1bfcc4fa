//! The updates of a batch in float64, one pair after another.

use super::step::LEAST_PROBABILITY;
use super::windows::Batch;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mean(table: &[Vec<f64>], rows: &[u32]) -> Vec<f64> {
    let scale = 1.0 / rows.len() as f64;
    (0..table[0].len())
        .map(|column| rows.iter().map(|&row| table[row as usize][column]).sum::<f64>() * scale)
        .collect()
}

/// Applies a batch to both tables; returns its loss.
pub(super) fn apply(batch: &Batch, input: &mut [Vec<f64>], output: &mut [Vec<f64>]) -> f64 {
    let (before_input, before_output) = (input.to_vec(), output.to_vec());
    let mut loss = 0.0;
    for window in &batch.windows {
        let vectors: Vec<&[u32]> = window
            .vectors
            .clone()
            .map(|vector| &batch.rows[batch.vectors[vector].clone()])
            .collect();
        let words = &batch.outputs[window.outputs.clone()];
        let hidden: Vec<Vec<f64>> = vectors.iter().map(|rows| mean(input, rows)).collect();
        let outputs: Vec<Vec<f64>> =
            words.iter().map(|&word| output[word as usize].clone()).collect();
        for (rows, hidden) in vectors.iter().zip(&hidden) {
            let scored = mean(&before_input, rows);
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
