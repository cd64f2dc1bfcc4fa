//! The forward pass: a block of queries against all the keys that it reaches.

use std::f64::consts::LOG2_E;

use fusewire_simd::{Kernel, Lanes, Real};

use super::mask::{Ground, Place};
use super::params::{Attention, expect_shape};
use super::softmax::Running;
use super::tile::{KEYS, QUERIES, Tile};
use crate::gemm::{NoEpilogue, Start, copy_rows, multiply_block};
use crate::math::Elementary;
use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::ViewMut;
use crate::{Error, Result};

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
    T::dispatch(Forward::new(attention, output, lse, team)?)
}

/// The whole pass, its shapes checked.
pub(super) struct Forward<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    output: ViewMut<'a, T, 4>,
    lse: ViewMut<'a, T, 3>,
    team: &'a dyn Team,
}

impl<'a, T: Real> Forward<'a, T> {
    pub(super) fn new(
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
        let [_, heads, query_len, _] = output.shape();
        let blocks = query_len.div_ceil(QUERIES);
        let parts = (output.blocks([1, 1, QUERIES, 0]), lse.blocks([1, 1, QUERIES]));
        try_for_each_part(team, parts, |index, (output, lse)| {
            isa.vectorize(QueryBlock {
                attention,
                batch: index / blocks / heads,
                head: index / blocks % heads,
                first: index % blocks * QUERIES,
                output: output.inner([0, 0]),
                lse: lse.inner([0, 0]),
            })
        })
    }
}

/// Up to [`QUERIES`] queries of one head.
struct QueryBlock<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    batch: usize,
    head: usize,
    first: usize,
    output: ViewMut<'a, T, 2>,
    lse: ViewMut<'a, T, 1>,
}

impl<T: Elementary> Kernel<T> for QueryBlock<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { attention, batch, head, first, mut output, mut lse } = self;
        let Attention { query, key, value, score } = attention;
        let kv_head = head / attention.group();
        let (key, value) = (key.inner([batch, kv_head]), value.inner([batch, kv_head]));
        let [query_len, head_dim] = query.inner::<2, 2>([batch, head]).shape();
        let value_dim = output.columns();

        let reach = score.reach(batch, [query_len, key.rows()]);
        let rows = output.rows().min(reach.queries.saturating_sub(first));
        for row in rows..output.rows() {
            output.row_mut(row).fill(T::ZERO);
            lse.set([row], T::NEG_INFINITY);
        }
        if rows == 0 {
            return Ok(());
        }
        let place = Place { batch, head, queries: first..first + rows };
        let width = rows.next_multiple_of(I::LANES);
        let staging = score.mask.staging(KEYS, width);
        let mut scratch = Scratch::take(width * (head_dim + value_dim + KEYS + 2) + staging)?;
        let (packed, rest) = scratch.split_at_mut(width * head_dim);
        let (sums, rest) = rest.split_at_mut(width * value_dim);
        let (running, rest) = rest.split_at_mut(width * 2);
        let (scores, staging) = rest.split_at_mut(width * KEYS);

        let mut packed = Tile::new(packed, head_dim, width);
        let source = query.inner([batch, head]).slice(0, place.queries.clone());
        packed.pack_transposed(isa, source, T::from_f64(score.scale * LOG2_E))?;
        let mut sums = Tile::new(sums, value_dim, width);
        sums.rows_mut().for_each(|row| row.fill(T::ZERO));
        let mut running = Running::start(running);

        for segment in reach.segments(place.queries.clone()) {
            let mut scores = Tile::new(scores, segment.keys.len(), width);
            let ground = score.mask.ground(isa, &place, &reach, &segment, &mut scores, staging)?;
            let start = match ground {
                Ground::Hidden => continue,
                Ground::Clear => Start::Zero,
                Ground::Written => Start::Accumulate,
            };
            let (key, value) =
                (key.slice(0, segment.keys.clone()), value.slice(0, segment.keys.clone()));
            // Where a group leaves columns out, the ground is −∞ already.
            for group in reach.groups(place.queries.clone(), &segment, I::LANES) {
                let a = key.slice(0, group.keys.clone());
                let b = packed.view(0..head_dim, group.columns.clone())?;
                let c = scores.view_mut(group.keys, group.columns)?;
                multiply_block::<T, _, _>(isa, a, b, c, start, &mut NoEpilogue);
            }
            running.absorb(isa, &mut scores, &mut sums);
            for group in reach.groups(place.queries.clone(), &segment, I::LANES) {
                let a = value.slice(0, group.keys.clone()).transpose();
                let b = scores.view(group.keys, group.columns.clone())?;
                let c = sums.view_mut(0..value_dim, group.columns)?;
                multiply_block::<T, _, _>(isa, a, b, c, Start::Accumulate, &mut NoEpilogue);
            }
        }
        running.finish(isa, &mut sums, &mut lse.slice(0, 0..rows));
        let result = sums.view(0..value_dim, 0..rows)?.transpose();
        copy_rows(isa, result, output.slice(0, 0..rows));
        Ok(())
    }
}
