//! Attention and its gradients as they are defined, in float64.

use fusewire_simd::{Element, Real};

use super::tile::Place;
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
    /// That of the mask, `(sequences, heads, query_len, key_len)`.
    pub mask: Vec<f64>,
    /// That of ALiBi's slopes, `(sequences, heads)`.
    pub slopes: Vec<f64>,
    /// That of the sinks, `(sequences, heads)`.
    pub sinks: Vec<f64>,
}

/// The operands of one head of a sequence, `(length, dim)`.
struct Operands<'a, E: Element> {
    query: View<'a, E, 2>,
    key: View<'a, E, 2>,
    value: View<'a, E, 2>,
}

fn wide<E: Element>(numbers: View<'_, E, 2>, row: usize, column: usize) -> f64 {
    numbers.get([row, column]).to_real().to_f64()
}

/// One key as a query sees it.
struct Seen {
    /// −∞ where the query does not attend to it.
    score: f64,
    /// The derivative of the score by the product of query and key.
    derivative: f64,
    /// How far it is from the diagonal.
    distance: f64,
}

/// Every key of the sequence as one query of a head sees it.
fn keys_seen<E: Element>(
    attention: &Attention<'_, E>,
    operands: &Operands<'_, E>,
    [sequence, head, query]: [usize; 3],
) -> Vec<Seen> {
    let score = &attention.score;
    let length = |lengths: Option<View<'_, i64, 1>>, most: usize| {
        lengths.map_or(most as i64, |lengths| lengths.get([sequence]))
    };
    let (query_length, key_length) = match attention.sequences {
        super::Sequences::Padded { query_lengths, key_lengths } => {
            (length(query_lengths, operands.query.rows()), length(key_lengths, operands.key.rows()))
        }
        super::Sequences::Packed { .. } => {
            (operands.query.rows() as i64, operands.key.rows() as i64)
        }
    };
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
            Mask::Attend(view) if view.get([sequence, head, query, key]) == 0 => f64::NEG_INFINITY,
            Mask::Attend(_) => 0.0,
            Mask::Bias(view) => view.get([sequence, head, query, key]).to_real().to_f64(),
        };
        let products = (0..operands.query.columns())
            .map(|d| wide(operands.query, query, d) * wide(operands.key, key, d));
        let scaled = score.scale * products.sum::<f64>();
        let bent = score.softcap.map_or(scaled, |cap| cap * (scaled / cap).tanh());
        let bend = score.softcap.map_or(1.0, |cap| 1.0 - (scaled / cap).tanh().powi(2));
        let distance = (distance as f64).abs();
        let slope = score.slopes.map_or(0.0, |slopes| slopes.get([sequence, head]).to_f64());
        let hidden = hidden || mask == f64::NEG_INFINITY;
        Seen {
            score: if hidden { f64::NEG_INFINITY } else { bent + mask - slope * distance },
            derivative: score.scale * bend,
            distance,
        }
    };
    (0..operands.key.rows()).map(of_key).collect()
}

/// The probability of every key, and the logarithm of the sum of the exponentials of the scores.
fn softmax(keys: &[Seen], sink: f64) -> (Vec<f64>, f64) {
    let highest = keys.iter().map(|key| key.score).fold(sink, f64::max);
    if highest == f64::NEG_INFINITY {
        return (vec![0.0; keys.len()], highest);
    }
    let powers: Vec<f64> = keys.iter().map(|key| (key.score - highest).exp()).collect();
    let sum = powers.iter().sum::<f64>() + (sink - highest).exp();
    (powers.iter().map(|power| power / sum).collect(), highest + sum.ln())
}

/// What lies where for one query: calls `with` for every `[sequence, head, query]`.
fn for_each_query<E: Element>(
    attention: &Attention<'_, E>,
    mut with: impl FnMut([usize; 3], &Operands<'_, E>),
) {
    let [sequences, heads, ..] = attention.score_shape();
    for sequence in 0..sequences {
        for head in 0..heads {
            let seen = attention.head(&Place { sequence, head, queries: 0..0 });
            let query = attention.sequences.of_queries(attention.query, [sequence, head]);
            let operands = Operands { query, key: seen.key, value: seen.value };
            (0..operands.query.rows()).for_each(|query| with([sequence, head, query], &operands));
        }
    }
}

/// The place of a sequence's row among those of an operand with `heads` heads of `len` rows.
fn place_of(
    rows: crate::parallel::SequenceRows<'_>,
    [sequence, head, row]: [usize; 3],
    [heads, len]: [usize; 2],
) -> usize {
    let (batch, rows) = rows.of(sequence, len);
    (batch * heads + head) * len + rows.start + row
}

/// What dropout multiplies a probability by.
fn factor<E: Element>(attention: &Attention<'_, E>, place: [usize; 3], key: usize) -> f64 {
    attention.dropout.map_or(1.0, |dropout| dropout.factor(place, key))
}

fn sink<E: Element>(attention: &Attention<'_, E>, [sequence, head, _]: [usize; 3]) -> f64 {
    attention.sinks.map_or(f64::NEG_INFINITY, |sinks| sinks.get([sequence, head]).to_f64())
}

/// The forward pass.
pub fn forward<E: Element>(attention: &Attention<'_, E>) -> Results {
    let [batch, heads, query_len, value_dim] = attention.output_shape();
    let rows = batch * heads * query_len;
    let mut results = Results { output: vec![0.0; rows * value_dim], lse: vec![0.0; rows] };
    for_each_query(attention, |place, operands| {
        let keys = keys_seen(attention, operands, place);
        let (probabilities, lse) = softmax(&keys, sink(attention, place));
        let row = place_of(attention.sequences.query_rows(), place, [heads, query_len]);
        results.lse[row] = lse;
        for d in 0..value_dim {
            let value = |key: usize| wide(operands.value, key, d);
            results.output[row * value_dim + d] = probabilities
                .iter()
                .enumerate()
                .map(|(key, p)| p * factor(attention, place, key) * value(key))
                .sum();
        }
    });
    results
}

/// The backward pass, from the gradients of output and logarithms.
pub fn backward<E: Element>(
    attention: &Attention<'_, E>,
    output_gradient: View<'_, E, 4>,
    lse_gradient: Option<View<'_, E::Real, 3>>,
) -> Gradients {
    let Attention { query, key, value, sequences, .. } = attention;
    let [_, heads, query_len, head_dim] = query.shape();
    let [_, kv_heads, key_len, value_dim] = value.shape();
    let scores = attention.score_shape();
    let zeros = |shape: &[usize]| vec![0.0; shape.iter().product()];
    let mut gradients = Gradients {
        query: zeros(&query.shape()),
        key: zeros(&key.shape()),
        value: zeros(&value.shape()),
        mask: zeros(&scores),
        slopes: zeros(&scores[..2]),
        sinks: zeros(&scores[..2]),
    };
    for_each_query(attention, |place @ [sequence, head, row], operands| {
        let keys = keys_seen(attention, operands, place);
        let (probabilities, lse) = softmax(&keys, sink(attention, place));
        let upstream = sequences.of_queries(output_gradient, [sequence, head]);
        let upstream: Vec<f64> = (0..value_dim).map(|d| wide(upstream, row, d)).collect();
        let from_lse = lse_gradient
            .map_or(0.0, |lse| sequences.of_lse(lse, [sequence, head]).get([row]).to_f64());
        // The gradient of each probability, and their mean.
        let slopes: Vec<f64> = (0..keys.len())
            .map(|k| {
                let value = |d: usize| wide(operands.value, k, d);
                let product: f64 = (0..value_dim).map(|d| upstream[d] * value(d)).sum();
                factor(attention, place, k) * product
            })
            .collect();
        let mean: f64 = probabilities.iter().zip(&slopes).map(|(p, slope)| p * slope).sum();

        let per_head = sequence * heads + head;
        let query_row = place_of(sequences.query_rows(), place, [heads, query_len]);
        let kv_head = head / (heads / kv_heads);
        if lse > f64::NEG_INFINITY {
            let share = (sink(attention, place) - lse).exp();
            gradients.sinks[per_head] -= share * (mean - from_lse);
        }
        for (k, (p, seen)) in probabilities.iter().zip(&keys).enumerate() {
            let slope = p * (slopes[k] - mean + from_lse);
            gradients.mask[(per_head * scores[2] + row) * scores[3] + k] += slope;
            gradients.slopes[per_head] -= slope * seen.distance;
            let slope = slope * seen.derivative;
            let key_row =
                place_of(sequences.key_rows(), [sequence, kv_head, k], [kv_heads, key_len]);
            for d in 0..head_dim {
                gradients.query[query_row * head_dim + d] += slope * wide(operands.key, k, d);
                gradients.key[key_row * head_dim + d] += slope * wide(operands.query, row, d);
            }
            for (d, upstream) in upstream.iter().enumerate() {
                gradients.value[key_row * value_dim + d] +=
                    p * factor(attention, place, k) * upstream;
            }
        }
    });
    gradients
}
