//! The forward pass: blocks of queries against all the keys that they reach.

use std::ops::Range;

use fusewire_simd::{Element, Factor, Kernel, Real, Storage};

use super::ahead::Ahead;
use super::decode::Decode;
use super::operand::{Operand, chain, deep, pack_columns};
use super::params::{Attention, Head};
use super::reach::Segment;
use super::score::{Raise, hide};
use super::softmax::Running;
use super::tile::{Ground, KEYS, Place, QUERIES, Tile, grain};
use crate::error::expect_shape;
use crate::gemm::{
    Start, hold_tiles, multiply_block, multiply_in_chains, singles_mut, stored_factors,
};
use crate::math::Elementary;
use crate::parallel::{SequenceBlocks, Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Bytes of a head's keys and values that are fetched while the head before is computed: half of
/// a second-level cache. More would only push out what is needed now.
const FETCHED: usize = 1 << 19;
/// Blocks of queries that share one copy of keys and values, where these must be copied.
const SHARING: usize = 8;
/// Parts for each thread, so that the last ones end at nearly the same time.
const PARTS_EACH: usize = 8;

/// Computes the output, `(batch, heads, query_len, value_dim)`, and the logarithm of the sum of the
/// exponentials of each query's scores, `(batch, heads, query_len)`.
///
/// A query that attends to no key gets 0 and −∞. Results do not depend on the team.
///
/// # Errors
/// If the shapes do not fit together, or rows of `output` are not contiguous.
pub fn forward<E: Element<Real: Elementary>>(
    attention: &Attention<'_, E>,
    output: ViewMut<'_, E, 4>,
    lse: ViewMut<'_, E::Real, 3>,
    team: &dyn Team,
) -> Result<()> {
    if !E::multiplies_factors() {
        return forward(&attention.single(), singles_mut(output), lse, team);
    }
    let Some(decode) = Decode::of(attention) else {
        return forward_by_tiles(attention, output, lse, team);
    };
    let pass = Forward::new(attention, output, lse, team)?;
    decode.forward(pass.output, pass.lse, team)
}

/// [`forward`] in tiles of queries and keys, however few the queries are.
pub(super) fn forward_by_tiles<E: Element<Real: Elementary>>(
    attention: &Attention<'_, E>,
    output: ViewMut<'_, E, 4>,
    lse: ViewMut<'_, E::Real, 3>,
    team: &dyn Team,
) -> Result<()> {
    E::dispatch_multiplying(Forward::new(attention, output, lse, team)?)
}

/// The whole pass, its shapes checked.
struct Forward<'a, E: Element> {
    attention: &'a Attention<'a, E>,
    output: ViewMut<'a, E, 4>,
    lse: ViewMut<'a, E::Real, 3>,
    team: &'a dyn Team,
}

impl<'a, E: Element> Forward<'a, E> {
    fn new(
        attention: &'a Attention<'a, E>,
        output: ViewMut<'a, E, 4>,
        lse: ViewMut<'a, E::Real, 3>,
        team: &'a dyn Team,
    ) -> Result<Self> {
        attention.check()?;
        expect_shape("output", &attention.output_shape(), &output.shape())?;
        expect_shape("lse", &attention.lse_shape(), &lse.shape())?;
        if !output.has_unit_columns() {
            return Err(Error::Value("the output's rows must be contiguous".into()));
        }
        Ok(Self { attention, output, lse, team })
    }
}

impl<E: Element<Real: Elementary>> Kernel<E> for Forward<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { attention, output, lse, team } = self;
        let ([_, heads, query_len, _], rows) = (output.shape(), attention.sequences.query_rows());
        let threads = team.threads();
        // Longer parts where they share a copy, but not too few of them.
        let blocks = rows.longest(query_len).div_ceil(QUERIES);
        let all = rows.count(output.shape()[0]) * heads * blocks;
        let sharing = if E::IS_REAL { 1 } else { (all / (threads * PARTS_EACH)).clamp(1, SHARING) };
        let output = SequenceBlocks::new(output, rows, [1, sharing * QUERIES]);
        let [_, _, blocks] = output.grid();
        let parts = (output, SequenceBlocks::new(lse, rows, [1, sharing * QUERIES]));
        let place = |index: usize| {
            let sequence = index / blocks / heads;
            let len = rows.of(sequence, query_len).1.len();
            let first = len.min(index % blocks * sharing * QUERIES);
            let queries = first..len.min(first + sharing * QUERIES);
            Place { sequence, head: index / blocks % heads, queries }
        };
        try_for_each_part(team, parts, |index, (output, lse)| {
            isa.vectorize(Queries {
                attention,
                place: place(index),
                // Parts are taken from the last to the first.
                next: index.checked_sub(threads).map(place),
                next_head: (index / blocks).checked_sub(1).map(|head| NextHead {
                    place: place(head * blocks),
                    share: [index % blocks, blocks],
                }),
                output: output.inner([0, 0]),
                lse: lse.inner([0, 0]),
            })
        })
    }
}

/// Neighbouring queries of one head: what a thread does at a time.
struct Queries<'a, E: Element> {
    attention: &'a Attention<'a, E>,
    place: Place,
    /// Those that the thread will probably take next.
    next: Option<Place>,
    /// The head that comes next.
    next_head: Option<NextHead>,
    output: ViewMut<'a, E, 2>,
    lse: ViewMut<'a, E::Real, 1>,
}

/// A head whose keys and values the parts before it fetch, each its share.
struct NextHead {
    place: Place,
    /// Which share, of how many.
    share: [usize; 2],
}

impl<E: Element> Queries<'_, E> {
    /// What will be needed when the block that begins at the query `first` is done.
    #[inline(always)]
    fn ahead(&self, first: usize) -> Ahead {
        let Self { attention, place, next, next_head, .. } = self;
        let mut ahead = Ahead::nothing();
        let before = |queries: &Range<usize>, end: usize| {
            end.saturating_sub(QUERIES).max(queries.start)..end
        };
        if first > place.queries.start {
            let queries = before(&place.queries, first);
            let next = Place { queries, ..place.clone() };
            ahead.read(attention.sequences.of_block(attention.query, &next));
            return ahead;
        }
        if let Some(next) = next {
            let queries = &next.queries;
            let last = (queries.len().max(1) - 1) / QUERIES * QUERIES;
            let next = Place { queries: queries.start + last..queries.end, ..next.clone() };
            ahead.read(attention.sequences.of_block(attention.query, &next));
        }
        let Some(NextHead { place: next, share: [share, shares] }) = next_head else {
            return ahead;
        };
        let Head { key, value, .. } = attention.head(next);
        let size = key.rows() * (key.columns() + value.columns()) * size_of::<E>();
        if attention.kv_head(next) != attention.kv_head(place) && size <= FETCHED {
            let part = |share: usize| share * key.rows() / shares;
            let keys = part(*share)..part(share + 1);
            ahead.read(key.slice(0, keys.clone()));
            ahead.read(value.slice(0, keys));
        }
        ahead
    }
}

impl<E: Element<Real: Elementary>> Kernel<E> for Queries<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(mut self, isa: I) -> Result<()> {
        let head = self.attention.head(&self.place);
        let first = self.place.queries.start;
        let _tiles = hold_tiles(isa);
        let rows = self.output.rows().min(head.reach.queries.saturating_sub(first));
        for row in rows..self.output.rows() {
            self.output.row_mut(row).fill(E::default());
            self.lse.set([row], head.sink.unwrap_or(E::Real::NEG_INFINITY));
        }
        self.place.queries = first..first + rows;
        if rows == 0 {
            return Ok(());
        }
        let keys = head.reach.span(self.place.queries.clone());
        let key = Operand::along_columns(isa, head.key.slice(0, keys.clone()))?;
        let value = Operand::across(isa, head.value.slice(0, keys.clone()))?;
        for row in (0..rows).step_by(QUERIES).rev() {
            let block = row..rows.min(row + QUERIES);
            let ahead = self.ahead(first + row);
            isa.vectorize(QueryBlock {
                attention: self.attention,
                head,
                place: Place { queries: first + row..first + block.end, ..self.place.clone() },
                first_key: keys.start,
                key: key.view()?,
                value: value.view()?,
                ahead,
                output: self.output.reborrow().slice(0, block.clone()),
                lse: self.lse.reborrow().slice(0, block),
            })?;
        }
        Ok(())
    }
}

/// Up to [`QUERIES`] queries of one head.
struct QueryBlock<'a, E: Element> {
    attention: &'a Attention<'a, E>,
    head: Head<'a, E>,
    place: Place,
    /// The key that is the first of the factors.
    first_key: usize,
    /// Factors along the head dimension.
    key: View<'a, E::Factor, 2>,
    /// Factors along the keys, `(value_dim, keys)`.
    value: View<'a, E::Factor, 2>,
    ahead: Ahead,
    output: ViewMut<'a, E, 2>,
    lse: ViewMut<'a, E::Real, 1>,
}

impl<E: Element<Real: Elementary>> Kernel<E> for QueryBlock<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(mut self, isa: I) -> Result<()> {
        let Attention { query, score, sequences, dropout, .. } = self.attention;
        let (place, queries) = (&self.place, self.place.queries.clone());
        let Head { reach, sink, .. } = self.head;
        let (depth, value_dim) = (self.key.columns(), self.value.rows());
        let width = queries.len().next_multiple_of(I::LANES);
        let grain = grain::<E, I>(isa);
        let cut = [grain, width];
        let plain = score.is_scaled_only();
        let raised = if plain { 0 } else { width * KEYS };
        let staging = score.mask.staging(KEYS, width);
        let mut scratch = Scratch::take(width * (value_dim + KEYS + 2) + raised + staging)?;
        let (sums, rest) = scratch.split_at_mut(width * value_dim);
        let (running, rest) = rest.split_at_mut(width * 2);
        let (scores, rest) = rest.split_at_mut(width * KEYS);
        let (grounds, staging) = rest.split_at_mut(raised);

        let packed = pack_columns(isa, sequences.of_block(*query, place), width)?;
        let packed = packed.view()?;
        sums.fill(E::Real::ZERO);
        let mut sums = Tile::new(sums, value_dim, width);
        let unit = if plain { E::Real::from_f64(score.scale) } else { E::Real::ONE };
        let mut running = Running::start(running, sink, unit);
        let keep = dropout.map(|dropout| dropout.keep(place));
        let first_key = self.first_key;
        let inside = |segment: &Segment, keys: &Range<usize>| {
            let first = segment.keys.start - first_key;
            first + keys.start..first + keys.end
        };
        let chain = chain::<E>(depth, &reach);
        let ahead = &mut self.ahead;
        ahead.write(&mut self.output);
        let depths = depth * E::Factor::DEPTH + value_dim;
        ahead.spread::<E, I>(reach.pairs(queries.clone()) * depths / E::Factor::DEPTH);

        for segment in reach.segments(queries.clone(), 0..reach.keys) {
            let Some(segment) = score.mask.narrow(place, segment) else { continue };
            let mut scores = Tile::new(scores, segment.keys.len(), width);
            // What is added to scores waits elsewhere if more than a scale lies between.
            let mut grounds = (!plain).then(|| Tile::new(grounds, segment.keys.len(), width));
            let tile = grounds.as_mut().unwrap_or(&mut scores);
            let ground = score.ground(isa, place, &reach, &segment, tile, staging)?;
            let start = match ground {
                Ground::Hidden => continue,
                Ground::Written if plain => Start::Accumulate,
                Ground::Clear | Ground::Written => Start::Zero,
            };
            for group in reach.groups(queries.clone(), &segment, cut) {
                let a = self.key.slice(0, inside(&segment, &group.keys));
                let b = packed.slice(1, group.columns.clone());
                let c = scores.view_mut(group.keys.clone(), group.columns.clone())?;
                multiply_in_chains::<E, _, _>(isa, a, b, c, start, chain, ahead);
                if let Some(grounds) = &mut grounds {
                    isa.vectorize::<E::Real, _>(Raise {
                        scale: score.scale,
                        cap: score.softcap,
                        scores: scores.view_mut(group.keys.clone(), group.columns.clone())?,
                        ground: grounds.view_mut(group.keys.clone(), group.columns.clone())?,
                        written: ground == Ground::Written,
                    });
                }
                if segment.edge {
                    let hidden = E::Real::NEG_INFINITY;
                    hide(isa, queries.clone(), &reach, &segment, &group, hidden, &mut scores);
                }
            }
            let dropped = keep.as_ref().map(|keep| (keep, segment.keys.start));
            let step = if segment.edge { grain } else { width };
            for column in (0..width).step_by(step) {
                let columns = column..width.min(column + step);
                let rows = if segment.edge {
                    reach.rows(queries.clone(), &segment, columns.clone(), grain)
                } else {
                    0..scores.height()
                };
                running.absorb(isa, columns, rows, &mut scores, &mut sums, dropped);
            }
            for group in reach.groups(queries.clone(), &segment, cut) {
                let keys = deep::<E>(inside(&segment, &group.keys));
                let a = self.value.slice(1, keys);
                let b = scores.view(deep::<E>(group.keys), group.columns.clone())?;
                let c = sums.view_mut(0..value_dim, group.columns)?;
                let b = stored_factors(b);
                multiply_block::<E, _, _>(isa, a, b, c, Start::Accumulate, ahead);
            }
        }
        running.finish(isa, &sums, self.output, self.lse)
    }
}
