//! Attention of a few queries to a long cache: the memory's speed is the limit.
//!
//! All query heads that share a head of keys and values are rows of one tile, so that each key and
//! value is read once. Keys are cut into parts of fixed length, whatever the number of threads; each
//! part has its own softmax, and the parts of a query are merged by their log-sum-exp.

mod cache;
mod tile;

use std::f64::consts::{LN_2, LOG2_E};
use std::ops::Range;

use fusewire_simd::{Element, Kernel, Real, Storage};

pub use cache::{Cache, Pages};

use super::params::Attention;
use super::reach::Reach;
use super::score::Score;
use super::sequences::{Sequences, check_lengths};
use crate::error::expect_shape;
use crate::gemm::{singles, singles_mut};
use crate::math::Elementary;
use crate::parallel::{Serial, Team, for_each_part, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut, count};
use crate::{Error, Result};

/// Queries up to which reading keys and values costs more than computing with them.
pub(super) const MOST_QUERIES: usize = 8;
/// Keys from which on that is so: fewer wait in the nearest caches.
const LEAST_KEYS: usize = 128;
/// Keys of a part: long enough that merging costs nothing, short enough to keep many threads busy.
const PART: usize = 1024;
/// Numbers in a cache below which the calling thread works alone: about 10 µs.
const WORTH_A_TEAM: usize = 1 << 17;

/// A few queries and the cache that they attend to.
#[derive(Clone, Copy)]
pub struct Decode<'a, E: Element> {
    /// `(batch, heads, query_len, head_dim)`.
    pub query: View<'a, E, 4>,
    /// Rows of `head_dim`.
    pub key: Cache<'a, E>,
    /// Rows of `value_dim`, as many as of keys.
    pub value: Cache<'a, E>,
    /// Keys in use of each sequence, `(batch)`; all if none.
    pub key_lengths: Option<View<'a, i64, 1>>,
    /// How products become scores.
    pub score: Score<'a, E>,
    /// The score of one more key whose value is 0, `(batch, heads)`.
    pub sinks: Option<View<'a, E::Real, 2>>,
}

impl<'a, E: Element> Decode<'a, E> {
    /// What `attention` is where its queries are few, its keys many and their rows in one piece.
    pub(super) fn of(attention: &Attention<'a, E>) -> Option<Self> {
        let Attention { query, key, value, score, sinks, .. } = *attention;
        let Sequences::Padded { query_lengths: None, key_lengths } = attention.sequences else {
            return None;
        };
        let few = query.shape()[2] <= MOST_QUERIES && key.shape()[2] >= LEAST_KEYS;
        let [key, value] = [key, value].map(|numbers| Cache { numbers, pages: None });
        let lies = key.numbers.has_unit_columns() && value.numbers.has_unit_columns();
        let served = few && lies && attention.dropout.is_none();
        served.then_some(Self { query, key, value, key_lengths, score, sinks })
    }
}

impl<'a, E: Element<Real: Elementary>> Decode<'a, E> {
    /// The same of [`Element::Single`], for instruction sets without products of pairs.
    fn single(&self) -> Decode<'a, E::Single> {
        let Self { query, key, value, key_lengths, score, sinks } = *self;
        let [key, value] = [key, value].map(Cache::single);
        Decode { query: singles(query), key, value, key_lengths, score: score.single(), sinks }
    }

    /// `[batch, heads, query_len, value_dim]`.
    pub fn output_shape(&self) -> [usize; 4] {
        let [batch, heads, query_len, _] = self.query.shape();
        [batch, heads, query_len, self.value.numbers.shape()[3]]
    }

    /// Computes the output and the logarithms of the sums of exponentials, `(batch, heads,
    /// query_len)`. A query that attends to no key gets 0 and −∞. Results do not depend on the team.
    ///
    /// # Errors
    /// If the shapes do not fit together, or memory runs out.
    pub fn forward(
        &self,
        output: ViewMut<'_, E, 4>,
        lse: ViewMut<'_, E::Real, 3>,
        team: &dyn Team,
    ) -> Result<()> {
        if !E::multiplies_factors() {
            return self.single().forward(singles_mut(output), lse, team);
        }
        self.check()?;
        let [batch, heads, query_len, value_dim] = self.output_shape();
        expect_shape("output", &self.output_shape(), &output.shape())?;
        expect_shape("lse", &[batch, heads, query_len], &lse.shape())?;
        let kv_heads = self.key.numbers.shape()[1];
        let rows = heads / kv_heads.max(1) * query_len;
        let longest = (0..batch).map(|row| self.length(row)).max().unwrap_or(0);
        let parts = longest.div_ceil(PART);
        let dims = self.query.shape()[3].saturating_add(value_dim);
        let numbers = (batch * kv_heads).saturating_mul(longest).saturating_mul(dims);
        let team = if numbers < WORTH_A_TEAM { &Serial } else { team };
        let shape = [batch * kv_heads, parts, rows * (value_dim + 2)];
        let mut memory = Scratch::take(count::<E::Real, 3>(shape)?)?;
        let partial = ViewMut::contiguous(&mut memory, shape)?;
        try_for_each_part(team, partial.blocks([1, 1, 0]), |index, partial| {
            let (head, part) = (index / parts, index % parts);
            E::dispatch_multiplying(Part {
                decode: self,
                batch: head / kv_heads,
                kv_head: head % kv_heads,
                keys: part * PART..(part + 1) * PART,
                partial: partial.inner::<2, 1>([0, 0]).alone(),
            })
        })?;
        let partial = View::contiguous(&memory, shape)?;
        let blocks = (output.blocks([1, 1, 0, 0]), lse.blocks([1, 1, 0]));
        for_each_part(team, blocks, |index, (output, lse)| {
            let (batch, head) = (index / heads, index % heads);
            let group = heads / kv_heads;
            E::dispatch_multiplying(Merge {
                parts: partial.inner([batch * kv_heads + head / group]),
                first: head % group * query_len,
                rows,
                sink: self.sinks.map(|sinks| sinks.get([batch, head]).to_f64()),
                output: output.inner([0, 0]),
                lse: lse.inner([0, 0]),
            });
        });
        Ok(())
    }

    /// Keys in use.
    fn length(&self, batch: usize) -> usize {
        let length = self.key_lengths.map(|lengths| lengths.get([batch]));
        length.map_or(self.key.capacity(), |length| usize::try_from(length).unwrap_or(0))
    }

    fn check(&self) -> Result<()> {
        let [batch, heads, _, head_dim] = self.query.shape();
        let ([pool, kv_heads, key_len, _], value) =
            (self.key.numbers.shape(), self.value.numbers.shape());
        if self.key.numbers.shape()[3] != head_dim {
            let got = self.key.numbers.shape()[3];
            return Err(Error::Value(format!(
                "key must have head_dim {head_dim} like query, but has {got}"
            )));
        }
        expect_shape("value", &[pool, kv_heads, key_len, value[3]], &value)?;
        if kv_heads == 0 && heads > 0 || kv_heads > 0 && !heads.is_multiple_of(kv_heads) {
            return Err(Error::Value(format!(
                "the heads of query must be a multiple of those of key and value, \
                 but there are {heads} and {kv_heads}"
            )));
        }
        check_lengths("key_lengths", self.key_lengths, batch, self.key.capacity())?;
        for (name, numbers) in [("alibi_slopes", self.score.slopes), ("sinks", self.sinks)] {
            if let Some(numbers) = numbers {
                expect_shape(name, &[batch, heads], &numbers.shape())?;
            }
        }
        self.key.check(batch, |row| self.length(row))?;
        self.value.check(batch, |row| self.length(row))
    }

    /// How far the queries of a sequence reach.
    fn reach(&self, batch: usize) -> Reach {
        self.score.band.reach(self.query.shape()[2], self.length(batch))
    }
}

/// The keys of one part for all queries of a head of keys and values.
struct Part<'a, 'b, E: Element> {
    decode: &'a Decode<'b, E>,
    batch: usize,
    kv_head: usize,
    keys: Range<usize>,
    /// For each query `value_dim` sums, the largest score, and the sum of powers relative to it.
    partial: ViewMut<'a, E::Real, 2>,
}

impl<E: Element<Real: Elementary>> Kernel<E> for Part<'_, '_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { decode, batch, kv_head, keys, mut partial } = self;
        let [_, heads, query_len, _] = decode.query.shape();
        let group = heads / decode.key.numbers.shape()[1];
        let reach = decode.reach(batch);
        let row = |index: usize| {
            let (head, query) = (kv_head * group + index / query_len, index % query_len);
            tile::Query {
                numbers: decode.query.inner([batch, head, query]),
                reach: reach.keys(query),
                diagonal: reach.diagonal(query),
                place: [batch, head, query],
            }
        };
        let state = tile::State::new(
            partial.row_mut(0),
            group * query_len,
            decode.value.numbers.shape()[3],
        );
        let rows = tile::Rows { key: &decode.key, value: &decode.value, batch, kv_head };
        isa.vectorize(tile::Keys { rows, row, keys, score: &decode.score, state })
    }
}

/// Brings the parts of one head's queries together.
struct Merge<'a, E: Element> {
    parts: View<'a, E::Real, 2>,
    /// The first query of this head among the `rows` of a part.
    first: usize,
    rows: usize,
    sink: Option<f64>,
    output: ViewMut<'a, E, 2>,
    lse: ViewMut<'a, E::Real, 1>,
}

impl<E: Element<Real: Elementary>> Kernel<E> for Merge<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { parts, first, rows, sink, mut output, mut lse } = self;
        let [queries, value_dim] = output.shape();
        for query in 0..queries {
            let (sums, powers) = (first + query, rows * value_dim + first + query);
            let largest = |part: usize| parts.get([part, powers]).to_f64();
            let total = |part: usize| parts.get([part, powers + rows]).to_f64();
            let sink = sink.map_or(f64::NEG_INFINITY, |sink| sink * LOG2_E);
            let mut most = sink;
            for part in 0..parts.rows() {
                // Not `max`, which would lose what is not a number.
                most = if largest(part) <= most { most } else { largest(part) };
            }
            let unit = if most == f64::NEG_INFINITY { 0.0 } else { most };
            let mut sum = (sink - unit).exp2();
            for part in 0..parts.rows() {
                sum += (largest(part) - unit).exp2() * total(part);
            }
            lse.set([query], E::Real::from_f64(most * LN_2 + sum.ln()));
            let whole = if sum == 0.0 { 0.0 } else { 1.0 / sum };
            for column in (0..value_dim).step_by(I::LANES) {
                let mut value = isa.zero();
                for part in 0..parts.rows() {
                    let weight = (largest(part) - unit).exp2() * whole;
                    let numbers = &parts.row(part)[sums * value_dim..][column..value_dim];
                    let weight = isa.splat(E::Real::from_f64(weight));
                    value = isa.mul_add(weight, isa.load_first(numbers), value);
                }
                isa.write_first(&mut output.row_mut(query)[column..], value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
