//! The forward pass: a block of queries against all the keys that it reaches.

use fusewire_simd::{Kernel, Lanes, Real};

use super::ahead::Ahead;
use super::decode::Decode;
use super::params::{Attention, Head, expect_shape};
use super::score::{Bend, Ground, Place, hide};
use super::softmax::Running;
use super::tile::{KEYS, QUERIES, Tile};
use crate::gemm::{Start, multiply_block};
use crate::math::Elementary;
use crate::parallel::{SequenceBlocks, Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::ViewMut;
use crate::{Error, Result};

/// Numbers of a head's keys and values that are fetched while the head before is computed: half of
/// a second-level cache. More would only push out what is needed now.
const FETCHED: usize = 1 << 17;

/// Computes the output, `(batch, heads, query_len, value_dim)`, and the logarithm of the sum of the
/// exponentials of each query's scores, `(batch, heads, query_len)`.
///
/// A query that attends to no key gets 0 and −∞. Results do not depend on the team.
///
/// # Errors
/// If the shapes do not fit together, or rows of `output` are not contiguous.
pub fn forward<T: Elementary>(
    attention: &Attention<'_, T>,
    output: ViewMut<'_, T, 4>,
    lse: ViewMut<'_, T, 3>,
    team: &dyn Team,
) -> Result<()> {
    let pass = Forward::new(attention, output, lse, team)?;
    match Decode::of(attention) {
        Some(decode) => decode.forward(pass.output, pass.lse, team),
        None => T::dispatch(pass),
    }
}

/// The whole pass, its shapes checked.
struct Forward<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    output: ViewMut<'a, T, 4>,
    lse: ViewMut<'a, T, 3>,
    team: &'a dyn Team,
}

impl<'a, T: Real> Forward<'a, T> {
    fn new(
        attention: &'a Attention<'a, T>,
        output: ViewMut<'a, T, 4>,
        lse: ViewMut<'a, T, 3>,
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

impl<T: Elementary> Kernel<T> for Forward<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { attention, output, lse, team } = self;
        let (query_len, rows) = (output.shape()[2], attention.sequences.query_rows());
        let output = SequenceBlocks::new(output, rows, [1, QUERIES]);
        let [_, heads, blocks] = output.grid();
        let parts = (output, SequenceBlocks::new(lse, rows, [1, QUERIES]));
        let place = |index: usize| {
            let sequence = index / blocks / heads;
            let len = rows.of(sequence, query_len).1.len();
            let first = len.min(index % blocks * QUERIES);
            let queries = first..len.min(first + QUERIES);
            Place { sequence, head: index / blocks % heads, queries }
        };
        let threads = team.threads();
        try_for_each_part(team, parts, |index, (output, lse)| {
            isa.vectorize(QueryBlock {
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

/// Up to [`QUERIES`] queries of one head.
struct QueryBlock<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    place: Place,
    /// The block that the thread will probably take next.
    next: Option<Place>,
    /// The head that comes next.
    next_head: Option<NextHead>,
    output: ViewMut<'a, T, 2>,
    lse: ViewMut<'a, T, 1>,
}

/// A head whose keys and values the blocks before it fetch, each its share.
struct NextHead {
    place: Place,
    /// Which share, of how many.
    share: [usize; 2],
}

impl<T: Elementary> Kernel<T> for QueryBlock<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) -> Result<()> {
        let Attention { query, score, sequences, dropout, .. } = self.attention;
        let Head { key, value, reach, sink } = self.attention.head(&self.place);
        let (head_dim, value_dim) = (key.columns(), value.columns());

        let first = self.place.queries.start;
        let rows = self.output.rows().min(reach.queries.saturating_sub(first));
        for row in rows..self.output.rows() {
            self.output.row_mut(row).fill(T::ZERO);
            self.lse.set([row], sink.unwrap_or(T::NEG_INFINITY));
        }
        if rows == 0 {
            return Ok(());
        }
        self.place.queries = first..first + rows;
        let (place, queries) = (&self.place, self.place.queries.clone());
        let width = rows.next_multiple_of(I::LANES);
        let bent = if score.softcap.is_some() { width * KEYS } else { 0 };
        let staging = score.mask.staging(KEYS, width);
        let mut scratch =
            Scratch::take(width * (head_dim + value_dim + KEYS + 2) + bent + staging)?;
        let (packed, rest) = scratch.split_at_mut(width * head_dim);
        let (sums, rest) = rest.split_at_mut(width * value_dim);
        let (running, rest) = rest.split_at_mut(width * 2);
        let (scores, rest) = rest.split_at_mut(width * KEYS);
        let (grounds, staging) = rest.split_at_mut(bent);

        let mut packed = Tile::new(packed, head_dim, width);
        let source = sequences.of_block(*query, place);
        packed.pack_transposed(isa, source, T::from_f64(score.scale))?;
        sums.fill(T::ZERO);
        let mut sums = Tile::new(sums, value_dim, width);
        let mut running = Running::start(running, sink);
        let keep = dropout.map(|dropout| dropout.keep(place));
        let mut output = self.output.slice(0, 0..rows);
        let mut ahead = Ahead::nothing();
        ahead.write(&mut output);
        if let Some(next) = &self.next {
            ahead.read(sequences.of_block(*query, next));
        }
        if let Some(NextHead { place: next, share: [share, shares] }) = &self.next_head {
            let other = self.attention.kv_head(next) != self.attention.kv_head(place);
            if other && key.rows() * (head_dim + value_dim) <= FETCHED {
                let Head { key, value, .. } = self.attention.head(next);
                let part = |share: usize| share * key.rows() / shares;
                let keys = part(*share)..part(share + 1);
                ahead.read(key.slice(0, keys.clone()));
                ahead.read(value.slice(0, keys));
            }
        }
        ahead.spread(reach.span(queries.clone()).len() * width * (head_dim + value_dim));

        for segment in reach.segments(queries.clone(), 0..reach.keys) {
            let Some(segment) = score.mask.narrow(place, segment) else { continue };
            let mut scores = Tile::new(scores, segment.keys.len(), width);
            let mut grounds = score.softcap.map(|_| Tile::new(grounds, segment.keys.len(), width));
            // A softcap bends the product before anything is added to it.
            let tile = grounds.as_mut().unwrap_or(&mut scores);
            let ground = score.ground(isa, place, &reach, &segment, tile, staging)?;
            let start = match ground {
                Ground::Hidden => continue,
                Ground::Written if score.softcap.is_none() => Start::Accumulate,
                Ground::Clear | Ground::Written => Start::Zero,
            };
            let (key, value) =
                (key.slice(0, segment.keys.clone()), value.slice(0, segment.keys.clone()));
            for group in reach.groups(queries.clone(), &segment, I::LANES) {
                let a = key.slice(0, group.keys.clone());
                let b = packed.view(0..head_dim, group.columns.clone())?;
                let c = scores.view_mut(group.keys.clone(), group.columns.clone())?;
                multiply_block::<T, _, _>(isa, a, b, c, start, &mut ahead);
                if let (Some(cap), Some(grounds)) = (score.softcap, &mut grounds) {
                    isa.vectorize(Bend {
                        cap,
                        scores: scores.view_mut(group.keys.clone(), group.columns.clone())?,
                        ground: grounds.view_mut(group.keys.clone(), group.columns.clone())?,
                        written: ground == Ground::Written,
                    });
                }
                if segment.edge {
                    let hidden = T::NEG_INFINITY;
                    hide(isa, queries.clone(), &reach, &segment, &group, hidden, &mut scores);
                }
            }
            if segment.edge {
                for column in (0..width).step_by(I::LANES) {
                    let columns = column..column + I::LANES;
                    let rows = reach.rows(queries.clone(), &segment, columns, I::LANES);
                    running.absorb_strip::<I, 1>(isa, column, rows, &mut scores, &mut sums);
                }
            } else {
                running.absorb(isa, &mut scores, &mut sums);
            }
            for group in reach.groups(queries.clone(), &segment, I::LANES) {
                if let Some(keep) = &keep {
                    let first = [segment.keys.start + group.keys.start, group.columns.start];
                    let powers = scores.view_mut(group.keys.clone(), group.columns.clone())?;
                    keep.apply(first, powers);
                }
                let a = value.slice(0, group.keys.clone()).transpose();
                let b = scores.view(group.keys, group.columns.clone())?;
                let c = sums.view_mut(0..value_dim, group.columns)?;
                multiply_block::<T, _, _>(isa, a, b, c, Start::Accumulate, &mut ahead);
            }
        }
        running.finish(isa, &sums, output, self.lse.slice(0, 0..rows))
    }
}
