//! Tiles of keys, as they lie in memory, against a handful of queries.

use std::f64::consts::LOG2_E;
use std::ops::Range;

use fusewire_simd::{Element, Factor, Kernel, Lanes, Real, Storage};

use super::super::mask::Mask;
use super::super::score::Score;
use super::Cache;
use crate::Result;
use crate::gemm::{Next, copy_columns, dot_rows};
use crate::math::{Elementary, exp2, tanh};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Keys of a tile: long enough for whole vectors of scores, short enough for the nearest caches.
const KEYS: usize = 64;
/// Rows that are fetched ahead of those at hand: memory's latency, even where others use it, too; more
/// would not wait in the second-level cache until its turn comes.
const FETCHED: usize = 64;
/// Queries that share one pass over a tile.
const HEIGHT: usize = 4;
/// Numbers of the widest vector.
const WIDEST: usize = 16;

/// One query of a tile.
pub(super) struct Query<'a, E: Element> {
    pub(super) numbers: View<'a, E, 1>,
    pub(super) reach: Range<usize>,
    pub(super) diagonal: isize,
    /// Sequence, head and query.
    pub(super) place: [usize; 3],
}

/// Where the rows of keys and values come from.
pub(super) struct Rows<'a, 'b, E> {
    pub(super) key: &'a Cache<'b, E>,
    pub(super) value: &'a Cache<'b, E>,
    pub(super) batch: usize,
    pub(super) kv_head: usize,
}

/// What each query has seen so far.
pub(super) struct State<'a, T> {
    /// Weighted sums of values, a query behind the other.
    sums: &'a mut [T],
    maxima: &'a mut [T],
    totals: &'a mut [T],
    value_dim: usize,
}

impl<'a, T: Real> State<'a, T> {
    pub(super) fn new(numbers: &'a mut [T], queries: usize, value_dim: usize) -> Self {
        let (sums, rest) = numbers.split_at_mut(queries * value_dim);
        let (maxima, totals) = rest.split_at_mut(queries);
        sums.fill(T::ZERO);
        maxima.fill(T::NEG_INFINITY);
        totals.fill(T::ZERO);
        Self { sums, maxima, totals, value_dim }
    }
}

/// Evaluates an expression with a constant for the keys that are multiplied with the same queries at a
/// time, and the vectors of values that are summed: so many that the sums of all find room in registers.
macro_rules! with_width {
    ($isa:ident, $width:ident => $body:expr) => {
        if $isa::REGISTERS == 32 {
            const $width: usize = 4;
            $body
        } else {
            const $width: usize = 2;
            $body
        }
    };
}

/// Evaluates an expression with a constant that is the smaller of `$left` and `HEIGHT`.
macro_rules! with_height {
    ($left:expr, $count:ident => $body:expr) => {
        match $left {
            1 => {
                const $count: usize = 1;
                $body
            }
            2 => {
                const $count: usize = 2;
                $body
            }
            3 => {
                const $count: usize = 3;
                $body
            }
            _ => {
                const $count: usize = HEIGHT;
                $body
            }
        }
    };
}

/// The keys of a range against all queries that share them.
pub(super) struct Keys<'a, 'b, E: Element, Q> {
    pub(super) rows: Rows<'a, 'b, E>,
    /// The query at an index.
    pub(super) row: Q,
    pub(super) keys: Range<usize>,
    pub(super) score: &'a Score<'b, E>,
    pub(super) state: State<'a, E::Real>,
}

impl<'q, E, Q> Kernel<E> for Keys<'_, '_, E, Q>
where
    E: Element<Real: Elementary>,
    Q: Fn(usize) -> Query<'q, E>,
{
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { rows, row, keys, score, mut state } = self;
        let count = state.maxima.len();
        let queries: Vec<Query<'_, E>> = (0..count).map(row).collect();
        let first = queries.iter().map(|query| query.reach.start).min().unwrap_or(0);
        let last = queries.iter().map(|query| query.reach.end).max().unwrap_or(0);
        let keys = keys.start.max(first)..keys.end.min(last);

        let depth = rows.key.numbers.shape()[3].div_ceil(E::Factor::DEPTH);
        let padded = depth.next_multiple_of(I::LANES);
        let mut packed = Scratch::zeros(count * padded)?;
        let mut target = ViewMut::contiguous(&mut packed, [count, padded])?.slice(1, 0..depth);
        for (index, query) in queries.iter().enumerate() {
            let [head_dim] = query.numbers.shape();
            let numbers: Vec<E> = (0..head_dim).map(|place| query.numbers.get([place])).collect();
            let target = target.reborrow().slice(0, index..index + 1);
            copy_columns(isa, View::contiguous(&numbers, [1, head_dim])?, target);
        }
        let packed = View::contiguous(&packed, [count, padded])?;
        let mut scores = Scratch::take(count * KEYS)?;
        let mut start = keys.start;
        while start < keys.end {
            let len = KEYS.min(keys.end - start);
            // With those that are fetched meanwhile.
            let (mut key_rows, mut value_rows) =
                ([&[][..]; KEYS + FETCHED], [&[][..]; KEYS + FETCHED]);
            let within = (KEYS + FETCHED).min(keys.end - start);
            rows.key.rows(rows.batch, rows.kv_head, start, &mut key_rows[..within]);
            rows.value.rows(rows.batch, rows.kv_head, start, &mut value_rows[..within]);
            for first in (0..count).step_by(HEIGHT) {
                let scores = &mut scores[first * KEYS..];
                with_height!(count - first, COUNT => with_width!(I, WIDTH => {
                    products::<E, I, COUNT, WIDTH>(isa, packed, first, &key_rows, len, scores);
                }));
            }
            for (index, query) in queries.iter().enumerate() {
                let scores = &mut scores[index * KEYS..][..KEYS];
                modify(isa, query, score, start..start + len, scores);
                absorb(isa, index, scores, &mut state);
            }
            for first in (0..count).step_by(HEIGHT) {
                let scores = &scores[first * KEYS..];
                with_height!(count - first, COUNT => with_width!(I, VECTORS => {
                    values::<E, I, COUNT, VECTORS>(isa, first, &value_rows, len, scores, &mut state);
                }));
            }
            start += len;
        }
        Ok(())
    }
}

/// Products of `COUNT` queries with the first `len` of `keys`; those behind are fetched meanwhile.
#[inline(always)]
fn products<E: Element, I: Storage<E>, const COUNT: usize, const WIDTH: usize>(
    isa: I,
    queries: View<'_, E::Factor, 2>,
    first: usize,
    keys: &[&[E]; KEYS + FETCHED],
    len: usize,
    scores: &mut [E::Real],
) {
    let mut left: [&[E::Factor]; COUNT] = [&[]; COUNT];
    for (offset, left) in left.iter_mut().enumerate() {
        *left = queries.row(first + offset);
    }
    for first in (0..len).step_by(WIDEST) {
        // Lanes are summed for as many keys as the widest vector has lanes, all at once.
        let mut sums = [[isa.zero(); WIDEST]; COUNT];
        for start in (0..WIDEST.min(len - first)).step_by(WIDTH) {
            let mut right: [&[E]; WIDTH] = [&[]; WIDTH];
            let mut next = [keys[first].as_ptr(); WIDTH];
            for (offset, (right, next)) in right.iter_mut().zip(&mut next).enumerate() {
                let key = first + start + offset;
                *right = keys[key.min(len - 1)];
                *next = next_or(keys[key + FETCHED], right);
            }
            let tile = dot_rows::<E, I, COUNT, WIDTH>(isa, left, right, Next::Far(next));
            for (sums, tile) in sums.iter_mut().zip(tile) {
                sums[start..start + WIDTH].copy_from_slice(&tile);
            }
        }
        for (offset, sums) in sums.iter().enumerate() {
            let scores = &mut scores[offset * KEYS + first..][..WIDEST];
            for lane in (0..WIDEST).step_by(I::LANES) {
                isa.store(&mut scores[lane..], isa.sum_each(&sums[lane..lane + I::LANES]));
            }
        }
    }
}

/// The address of a row that will be needed, or of one that is at hand where there is none.
#[inline(always)]
fn next_or<E>(later: &[E], row: &[E]) -> *const E {
    if later.is_empty() { row.as_ptr() } else { later.as_ptr() }
}

/// Turns products into scores in units of log₂, −∞ where the query does not reach.
#[inline(always)]
fn modify<E: Element<Real: Elementary>, I: Storage<E>>(
    isa: I,
    query: &Query<'_, E>,
    score: &Score<'_, E>,
    keys: Range<usize>,
    scores: &mut [E::Real],
) {
    let number = |x: f64| isa.splat(E::Real::from_f64(x));
    for scores in scores.chunks_exact_mut(I::LANES) {
        let product = isa.load(scores);
        let scaled = match score.softcap {
            None => isa.mul(product, number(score.scale * LOG2_E)),
            Some(cap) => {
                let bounded = tanh(isa, isa.mul(product, number(score.scale / cap)));
                isa.mul(bounded, number(cap * LOG2_E))
            }
        };
        isa.store(scores, scaled);
    }
    let [sequence, head, row] = query.place;
    let unit = E::Real::from_f64(LOG2_E);
    if let Some(slopes) = score.slopes {
        let slope = slopes.get([sequence, head]) * unit;
        for (key, score) in keys.clone().zip(scores.iter_mut()) {
            let distance = query.diagonal.abs_diff(key as isize);
            *score = *score - slope * E::Real::from_f64(distance as f64);
        }
    }
    match score.mask {
        Mask::Absent => {}
        Mask::Attend(mask) => {
            let mask = mask.inner::<3, 1>([sequence, head, row]);
            for (key, score) in keys.clone().zip(scores.iter_mut()) {
                *score = if mask.get([key]) == 0 { E::Real::NEG_INFINITY } else { *score };
            }
        }
        Mask::Bias(mask) => {
            let mask = mask.inner::<3, 1>([sequence, head, row]);
            for (key, score) in keys.clone().zip(scores.iter_mut()) {
                *score += mask.get([key]).to_real() * unit;
            }
        }
    }
    let inside = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
    scores[..inside(query.reach.start)].fill(E::Real::NEG_INFINITY);
    scores[inside(query.reach.end)..].fill(E::Real::NEG_INFINITY);
}

/// Turns a query's scores into powers of two relative to the largest so far, and brings what it
/// has summed to the same unit.
#[inline(always)]
fn absorb<T: Elementary, I: Lanes<T>>(
    isa: I,
    query: usize,
    scores: &mut [T],
    state: &mut State<'_, T>,
) {
    let mut highest = isa.splat(state.maxima[query]);
    for scores in scores.chunks_exact(I::LANES) {
        highest = isa.max(highest, isa.load(scores));
    }
    let highest = isa.max_lanes(highest);
    if highest == T::NEG_INFINITY {
        // No key so far: 2^−∞ = 0, never −∞ − (−∞).
        scores.fill(T::ZERO);
        return;
    }
    let before = state.maxima[query];
    let mut sum = isa.zero();
    for scores in scores.chunks_exact_mut(I::LANES) {
        let power = exp2(isa, isa.sub(isa.load(scores), isa.splat(highest)));
        sum = isa.add(sum, power);
        isa.store(scores, power);
    }
    let mut total = state.totals[query];
    if before != highest {
        let factor = exp2(isa, isa.sub(isa.splat(before), isa.splat(highest)));
        for sums in state.sums[query * state.value_dim..][..state.value_dim].chunks_mut(I::LANES) {
            isa.store_first(sums, isa.mul(isa.load_first(sums), factor));
        }
        let mut numbers = [T::ZERO; WIDEST];
        isa.store(&mut numbers, factor);
        total = total * numbers[0];
        state.maxima[query] = highest;
    }
    state.totals[query] = total + isa.sum_lanes(sum);
}

/// Adds the first `len` of `values`, weighted, to the sums of `COUNT` queries; those behind are
/// fetched meanwhile.
#[inline(always)]
fn values<E: Element, I: Storage<E>, const COUNT: usize, const VECTORS: usize>(
    isa: I,
    first: usize,
    values: &[&[E]; KEYS + FETCHED],
    len: usize,
    weights: &[E::Real],
    state: &mut State<'_, E::Real>,
) {
    let value_dim = state.value_dim;
    let sums = &mut state.sums[first * value_dim..][..COUNT * value_dim];
    let mut weighing = Weighing { values, len, weights, sums, value_dim };
    let mut column = 0;
    while column < value_dim {
        column += if column + VECTORS * I::LANES <= value_dim {
            weighing.columns::<I, COUNT, VECTORS>(isa, column)
        } else {
            weighing.columns::<I, COUNT, 1>(isa, column)
        };
    }
}

/// The values of a tile, and what is summed of them.
struct Weighing<'a, E: Element> {
    values: &'a [&'a [E]; KEYS + FETCHED],
    len: usize,
    /// Those of a query behind those of another.
    weights: &'a [E::Real],
    sums: &'a mut [E::Real],
    value_dim: usize,
}

impl<E: Element> Weighing<'_, E> {
    /// Sums `COUNT` vectors of columns from `column` on, of which the last may be short where it is
    /// the only one, and returns their width.
    #[inline(always)]
    fn columns<I: Storage<E>, const COUNT: usize, const VECTORS: usize>(
        &mut self,
        isa: I,
        column: usize,
    ) -> usize {
        let wide = VECTORS * I::LANES;
        let width = wide.min(self.value_dim - column);
        // Each tile by itself, because the rounding of a long running sum would be the error.
        let mut totals = [[isa.zero(); VECTORS]; COUNT];
        for key in 0..self.len {
            let value = self.values[key];
            let next = next_or(self.values[key + FETCHED], value).wrapping_add(column);
            let mut vectors = [isa.zero(); VECTORS];
            // Counted loops over vectors: of others the compiler makes copies through memory.
            if width == wide {
                let value = &value[column..column + wide];
                for (place, vector) in vectors.iter_mut().enumerate() {
                    isa.prefetch_second(next.wrapping_add(place * I::LANES).cast());
                    *vector = isa.read(&value[place * I::LANES..]);
                }
            } else {
                vectors[0] = isa.read_first(&value[column..column + width]);
            }
            for (row, totals) in totals.iter_mut().enumerate() {
                let weight = isa.splat(self.weights[row * KEYS + key]);
                for (total, &vector) in totals.iter_mut().zip(&vectors) {
                    *total = isa.mul_add(weight, vector, *total);
                }
            }
        }
        for (row, totals) in totals.iter().enumerate() {
            let sums = &mut self.sums[row * self.value_dim + column..][..width];
            for (place, &total) in totals.iter().enumerate() {
                let sums = &mut sums[place * I::LANES..];
                isa.store_first(sums, isa.add(isa.load_first(sums), total));
            }
        }
        width
    }
}
