//! Against the definition in float64: every instruction set, type, cache and bound.

use fusewire_simd::{Bf16, Element, F16, Real, on_each_isa};

use super::super::{Alignment, Band, Score};
use super::{Cache, Decode, Pages};
use crate::math::Elementary;
use crate::parallel::{Pool, Serial, Team};
use crate::view::{View, ViewMut};

/// Numbers in [−1, 1] without a pattern.
fn numbers<E: Element>(count: usize, seed: u64) -> Vec<E> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| E::from_real(E::Real::from_f64(next()))).collect()
}

#[derive(Clone, Copy)]
struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    query_len: usize,
    key_len: usize,
    dims: [usize; 2],
    band: Band,
    softcap: Option<f64>,
    tilted: bool,
    sunk: bool,
    /// Keys of a block; 0 for none.
    block_size: usize,
}

const PLAIN: Case = Case {
    batch: 2,
    heads: 4,
    kv_heads: 2,
    query_len: 1,
    key_len: 70,
    dims: [32, 32],
    band: Band::FULL,
    softcap: None,
    tilted: false,
    sunk: false,
    block_size: 0,
};

/// The operands of a case; sequences are `lengths` long.
struct Operands<E: Element> {
    query: Vec<E>,
    key: Vec<E>,
    value: Vec<E>,
    table: Vec<i32>,
    lengths: Vec<i64>,
    slopes: Vec<E::Real>,
    sinks: Vec<E::Real>,
}

impl<E: Element<Real: Elementary>> Operands<E> {
    fn new(case: &Case) -> Self {
        let Case { batch, heads, kv_heads, query_len, key_len, dims, block_size, .. } = *case;
        let blocks = if block_size == 0 { 0 } else { key_len.div_ceil(block_size) };
        let rows = batch * kv_heads * if block_size == 0 { key_len } else { blocks * block_size };
        Self {
            query: numbers(batch * heads * query_len * dims[0], 1),
            key: numbers(rows * dims[0], 2),
            value: numbers(rows * dims[1], 3),
            // The pool's blocks, those of the last sequence first.
            table: (0..batch * blocks).rev().map(|block| block as i32).collect(),
            lengths: (0..batch).map(|row| (key_len - row * 13 % (key_len + 1)) as i64).collect(),
            slopes: numbers(batch * heads, 4),
            sinks: numbers(batch * heads, 5),
        }
    }

    fn decode(&self, case: &Case) -> Decode<'_, E> {
        let Case { batch, heads, kv_heads, query_len, key_len, dims, block_size, .. } = *case;
        let blocks = if block_size == 0 { 0 } else { key_len.div_ceil(block_size) };
        let cache = |numbers, dim| {
            let pages =
                Pages { table: View::contiguous(&self.table, [batch, blocks]).expect("fits") };
            if block_size == 0 {
                let shape = [batch, kv_heads, key_len, dim];
                Cache { numbers: View::contiguous(numbers, shape).expect("fits"), pages: None }
            } else {
                let shape = [batch * blocks, block_size, kv_heads, dim];
                let numbers = View::contiguous(numbers, shape).expect("fits");
                Cache { numbers: numbers.permute([0, 2, 1, 3]), pages: Some(pages) }
            }
        };
        Decode {
            query: View::contiguous(&self.query, [batch, heads, query_len, dims[0]]).expect("fits"),
            key: cache(&self.key, dims[0]),
            value: cache(&self.value, dims[1]),
            key_lengths: Some(View::contiguous(&self.lengths, [batch]).expect("fits")),
            score: Score {
                softcap: case.softcap,
                band: case.band,
                slopes: case
                    .tilted
                    .then(|| View::contiguous(&self.slopes, [batch, heads]).expect("fits")),
                ..Score::plain(0.7)
            },
            sinks: case.sunk.then(|| View::contiguous(&self.sinks, [batch, heads]).expect("fits")),
        }
    }
}

fn run<E: Element<Real: Elementary>>(
    decode: &Decode<'_, E>,
    team: &dyn Team,
) -> (Vec<E>, Vec<E::Real>) {
    let [batch, heads, query_len, value_dim] = decode.output_shape();
    let nan = E::from_real(E::Real::NAN);
    let mut output = vec![nan; batch * heads * query_len * value_dim];
    let mut lse = vec![E::Real::NAN; batch * heads * query_len];
    decode
        .forward(
            ViewMut::contiguous(&mut output, decode.output_shape()).expect("fits"),
            ViewMut::contiguous(&mut lse, [batch, heads, query_len]).expect("fits"),
            team,
        )
        .expect("shapes fit");
    (output, lse)
}

fn check<E: Element<Real: Elementary>>(case: &Case, precision: f64) {
    let operands = Operands::<E>::new(case);
    let decode = operands.decode(case);
    let [batch, heads, query_len, value_dim] = decode.output_shape();
    let wide = |x: E| x.to_real().to_f64();
    on_each_isa(|isa| {
        let (output, lse) = run(&decode, &Serial);
        assert_eq!(lse, run(&decode, &Pool::new(3)).1);
        for place in 0..batch * heads * query_len {
            let (row, head) = (place / query_len / heads, place / query_len % heads);
            let kv_head = head / (heads / case.kv_heads);
            let query = decode.query.inner::<3, 1>([row, head, place % query_len]);
            let reach = decode.reach(row).keys(place % query_len);
            let (mut keys, mut values) =
                (vec![&[][..]; decode.length(row)], vec![&[][..]; decode.length(row)]);
            decode.key.rows(row, kv_head, 0, &mut keys);
            decode.value.rows(row, kv_head, 0, &mut values);
            let mut scores: Vec<f64> = reach
                .clone()
                .map(|key| {
                    let product = |d: usize| wide(query.get([d])) * wide(keys[key][d]);
                    let mut score = 0.7 * (0..case.dims[0]).map(product).sum::<f64>();
                    if let Some(cap) = case.softcap {
                        score = cap * (score / cap).tanh();
                    }
                    let slope =
                        decode.score.slopes.map_or(0.0, |slopes| slopes.get([row, head]).to_f64());
                    let diagonal = decode.reach(row).diagonal(place % query_len);
                    score - slope * diagonal.abs_diff(key as isize) as f64
                })
                .collect();
            let sink =
                decode.sinks.map_or(f64::NEG_INFINITY, |sinks| sinks.get([row, head]).to_f64());
            let most = scores.iter().copied().fold(sink, f64::max);
            let unit = if most == f64::NEG_INFINITY { 0.0 } else { most };
            let mut sum = (sink - unit).exp();
            for score in &mut scores {
                *score = (*score - unit).exp();
                sum += *score;
            }
            let expected = most + sum.ln();
            let got = lse[place].to_f64();
            assert!(got == expected || (got - expected).abs() < 1e-5, "{isa} {got} {expected}");
            for column in 0..value_dim {
                let weighted = |(key, power): (usize, &f64)| power * wide(values[key][column]);
                let total: f64 = reach.clone().zip(&scores).map(weighted).sum();
                let expected = if sum == 0.0 { 0.0 } else { total / sum };
                let got = wide(output[place * value_dim + column]);
                let error = (got - expected).abs();
                assert!(error <= precision, "{isa} place {place}: {got}, not {expected}");
            }
        }
    });
}

fn check_all(case: Case) {
    check::<f32>(&case, 2e-6);
    check::<f64>(&case, 1e-6);
    check::<Bf16>(&case, 8e-3);
    check::<F16>(&case, 1e-3);
}

#[test]
fn lengths_and_heads() {
    check_all(PLAIN);
    for [heads, kv_heads, query_len, key_len] in
        [[1, 1, 1, 1], [8, 1, 1, 33], [6, 2, 3, 64], [5, 5, 8, 31], [4, 2, 2, 2100], [2, 1, 1, 0]]
    {
        check_all(Case { heads, kv_heads, query_len, key_len, ..PLAIN });
    }
    for dims in [[1, 1], [7, 80], [33, 5], [128, 64], [17, 144]] {
        check_all(Case { dims, ..PLAIN });
    }
}

#[test]
fn bounds_and_scores() {
    for alignment in [Alignment::TopLeft, Alignment::BottomRight] {
        for (left, right) in [(None, Some(0)), (Some(9), Some(0)), (Some(3), Some(2)), (None, None)]
        {
            let band = Band { left, right, alignment };
            check_all(Case { query_len: 5, band, ..PLAIN });
            check_all(Case { query_len: 5, key_len: 14, band, sunk: true, tilted: true, ..PLAIN });
        }
    }
    check_all(Case { softcap: Some(1.5), tilted: true, query_len: 3, ..PLAIN });
}

#[test]
fn pages() {
    for block_size in [1, 16, 64] {
        check_all(Case { block_size, query_len: 2, ..PLAIN });
    }
    let case = Case { block_size: 16, ..PLAIN };
    let mut operands = Operands::<f32>::new(&case);
    operands.table[0] = 99;
    let decode = operands.decode(&case);
    let mut output = vec![0.0; 2 * 4 * 32];
    let mut lse = vec![0.0; 8];
    let error = decode.forward(
        ViewMut::contiguous(&mut output, [2, 4, 1, 32]).expect("fits"),
        ViewMut::contiguous(&mut lse, [2, 4, 1]).expect("fits"),
        &Serial,
    );
    let message = error.expect_err("there is no block 99").to_string();
    assert!(message.contains("block_table[0, 0]") && message.contains("99"), "{message}");
}
