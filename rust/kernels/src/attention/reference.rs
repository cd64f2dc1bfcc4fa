//! Attention and its gradients as they are defined, in float64.

use fusewire_simd::Real;

use super::{Alignment, Attention, Mask};
use crate::view::View;

/// Outputs and logarithms, contiguous.
pub struct Results {
    /// `(batch, heads, query_len, value_dim)`.
    pub output: Vec<f64>,
    /// `(batch, heads, query_len)`.
    pub lse: Vec<f64>,
}

/// Gradients, each contiguous in its operand's shape.
pub struct Gradients {
    /// That of the queries.
    pub query: Vec<f64>,
    /// That of the keys.
    pub key: Vec<f64>,
    /// That of the values.
    pub value: Vec<f64>,
}

/// The score of every key for one query, −∞ where the query does not attend to it.
fn scores<T: Real>(attention: &Attention<'_, T>, position: [usize; 3]) -> Vec<f64> {
    let Attention { query: queries, key: keys, score, .. } = attention;
    let [batch, head, query] = position;
    let [_, heads, query_len, head_dim] = queries.shape();
    let [_, kv_heads, key_len, _] = keys.shape();
    let length = |lengths: Option<View<'_, i64, 1>>, most: usize| {
        lengths.map_or(most as i64, |lengths| lengths.get([batch]))
    };
    let query_length = length(score.query_lengths, query_len);
    let key_length = length(score.key_lengths, key_len);
    let diagonal = match score.band.alignment {
        Alignment::TopLeft => query as i64,
        Alignment::BottomRight => query as i64 + key_length - query_length,
    };
    let of_key = |key: usize| {
        let distance = key as i64 - diagonal;
        let hidden = query as i64 >= query_length
            || key as i64 >= key_length
            || score.band.left.is_some_and(|left| -distance > left as i64)
            || score.band.right.is_some_and(|right| distance > right as i64);
        let mask = match score.mask {
            Mask::Absent => 0.0,
            Mask::Attend(view) if view.get([batch, head, query, key]) == 0 => f64::NEG_INFINITY,
            Mask::Attend(_) => 0.0,
            Mask::Bias(view) => view.get([batch, head, query, key]).to_f64(),
        };
        if hidden || mask == f64::NEG_INFINITY {
            return f64::NEG_INFINITY;
        }
        let kv_head = head / (heads / kv_heads);
        let products = (0..head_dim).map(|d| {
            queries.get([batch, head, query, d]).to_f64()
                * keys.get([batch, kv_head, key, d]).to_f64()
        });
        score.scale * products.sum::<f64>() + mask
    };
    (0..key_len).map(of_key).collect()
}

/// The probability of every key, and the logarithm of the sum of the exponentials of the scores.
fn softmax(scores: &[f64]) -> (Vec<f64>, f64) {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return (vec![0.0; scores.len()], highest);
    }
    let powers: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    (powers.iter().map(|power| power / sum).collect(), highest + sum.ln())
}

/// Every `[batch, head, query]`, in order.
fn positions([batch, heads, query_len]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..batch * heads * query_len)
        .map(move |index| [index / query_len / heads, index / query_len % heads, index % query_len])
}

/// The forward pass.
pub fn forward<T: Real>(attention: &Attention<'_, T>) -> Results {
    let [_, heads, _, value_dim] = attention.output_shape();
    let kv_heads = attention.key.shape()[1];
    let mut results = Results { output: Vec::new(), lse: Vec::new() };
    for position @ [batch, head, _] in positions(attention.lse_shape()) {
        let (probabilities, lse) = softmax(&scores(attention, position));
        let kv_head = head / (heads / kv_heads);
        results.lse.push(lse);
        results.output.extend((0..value_dim).map(|d| {
            let value = |key: usize| attention.value.get([batch, kv_head, key, d]).to_f64();
            probabilities.iter().enumerate().map(|(key, p)| p * value(key)).sum::<f64>()
        }));
    }
    results
}

/// The backward pass, from the gradients of output and logarithms.
pub fn backward<T: Real>(
    attention: &Attention<'_, T>,
    output_gradient: View<'_, T, 4>,
    lse_gradient: Option<View<'_, T, 3>>,
) -> Gradients {
    let Attention { query, key, value, score } = attention;
    let [_, heads, query_len, head_dim] = query.shape();
    let [_, kv_heads, key_len, value_dim] = value.shape();
    let zeros = |shape: [usize; 4]| vec![0.0; shape.iter().product()];
    let mut gradients = Gradients {
        query: zeros(query.shape()),
        key: zeros(key.shape()),
        value: zeros(value.shape()),
    };
    for position @ [batch, head, q] in positions(attention.lse_shape()) {
        let (probabilities, _) = softmax(&scores(attention, position));
        let kv_head = head / (heads / kv_heads);
        let upstream: Vec<f64> =
            (0..value_dim).map(|d| output_gradient.get([batch, head, q, d]).to_f64()).collect();
        let slopes: Vec<f64> = (0..key_len)
            .map(|k| {
                let value = |d: usize| value.get([batch, kv_head, k, d]).to_f64();
                (0..value_dim).map(|d| upstream[d] * value(d)).sum()
            })
            .collect();
        let mean: f64 = probabilities.iter().zip(&slopes).map(|(p, slope)| p * slope).sum();
        let from_lse = lse_gradient.map_or(0.0, |lse| lse.get([batch, head, q]).to_f64());
        for (k, p) in probabilities.iter().enumerate() {
            let slope = score.scale * p * (slopes[k] - mean + from_lse);
            let query_row = ((batch * heads + head) * query_len + q) * head_dim;
            let key_row = (batch * kv_heads + kv_head) * key_len + k;
            for d in 0..head_dim {
                gradients.query[query_row + d] += slope * key.get([batch, kv_head, k, d]).to_f64();
                gradients.key[key_row * head_dim + d] +=
                    slope * query.get([batch, head, q, d]).to_f64();
            }
            for (d, upstream) in upstream.iter().enumerate() {
                gradients.value[key_row * value_dim + d] += p * upstream;
            }
        }
    }
    gradients
}
