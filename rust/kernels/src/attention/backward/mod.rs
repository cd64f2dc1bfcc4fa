//! The backward pass: probabilities again from the saved logarithms, and five products.

mod block;

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes, Real};

use self::block::QueryBlock;
use super::mask::Place;
use super::params::{Attention, expect_shape};
use super::tile::{QUERIES, copied_rows, packed_rows};
use crate::math::Elementary;
use crate::parallel::{Blocks, Relay, Reversed, Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Keys of a task: with their values and both gradients they fill about half of a second-level
/// cache at a head dimension of 64.
const TASK_KEYS: usize = 512;

/// What [`forward`](super::forward) computed.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, T: Real> {
    /// The output, `(batch, heads, query_len, value_dim)`.
    pub output: View<'a, T, 4>,
    /// The logarithms, `(batch, heads, query_len)`.
    pub lse: View<'a, T, 3>,
}

/// The gradients of the results.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a, T: Real> {
    /// That of the output.
    pub output: View<'a, T, 4>,
    /// That of the logarithms, where they were used.
    pub lse: Option<View<'a, T, 3>>,
}

/// The gradients of the operands, each in the operand's shape, to be written; what is not wanted
/// is not computed.
#[derive(Debug)]
pub struct Gradients<'a, T: Real> {
    /// That of the queries.
    pub query: Option<ViewMut<'a, T, 4>>,
    /// That of the keys.
    pub key: Option<ViewMut<'a, T, 4>>,
    /// That of the values.
    pub value: Option<ViewMut<'a, T, 4>>,
}

/// Computes the gradients of the operands.
///
/// A task is a stretch of keys of one head of keys and values, with all the query heads that share
/// it. Tasks of the same head add to the gradients of the same queries in turns, so that sums run in
/// one order whatever the team.
///
/// # Errors
/// If the shapes do not fit together, or rows of the gradients are not contiguous.
pub fn backward<T: Elementary>(
    attention: &Attention<'_, T>,
    saved: Saved<'_, T>,
    upstream: Upstream<'_, T>,
    gradients: Gradients<'_, T>,
    team: &dyn Team,
) -> Result<()> {
    T::dispatch(Backward::new(attention, saved, upstream, gradients, team)?)
}

/// The whole pass, its shapes checked.
pub(super) struct Backward<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    saved: Saved<'a, T>,
    upstream: Upstream<'a, T>,
    /// Those of query, key and value; what is not wanted has no columns.
    gradients: [ViewMut<'a, T, 4>; 3],
    team: &'a dyn Team,
}

impl<'a, T: Real> Backward<'a, T> {
    pub(super) fn new(
        attention: &'a Attention<'a, T>,
        saved: Saved<'a, T>,
        upstream: Upstream<'a, T>,
        gradients: Gradients<'a, T>,
        team: &'a dyn Team,
    ) -> Result<Self> {
        attention.check()?;
        let (output, lse) = (attention.output_shape(), attention.lse_shape());
        expect_shape("output", &output, &saved.output.shape())?;
        expect_shape("lse", &lse, &saved.lse.shape())?;
        expect_shape("the gradient of output", &output, &upstream.output.shape())?;
        if let Some(gradient) = upstream.lse {
            expect_shape("the gradient of lse", &lse, &gradient.shape())?;
        }
        let Attention { query, key, value, .. } = attention;
        let gradients = [
            wanted("the gradient of query", query.shape(), gradients.query)?,
            wanted("the gradient of key", key.shape(), gradients.key)?,
            wanted("the gradient of value", value.shape(), gradients.value)?,
        ];
        Ok(Self { attention, saved, upstream, gradients, team })
    }
}

/// A gradient that fits its operand, without columns where there is none.
fn wanted<'a, T: Real>(
    name: &str,
    shape: [usize; 4],
    gradient: Option<ViewMut<'a, T, 4>>,
) -> Result<ViewMut<'a, T, 4>> {
    let Some(gradient) = gradient else {
        let [batch, heads, length, _] = shape;
        return ViewMut::contiguous(&mut [], [batch, heads, length, 0]);
    };
    expect_shape(name, &shape, &gradient.shape())?;
    if gradient.has_unit_columns() {
        Ok(gradient)
    } else {
        Err(Error::Value(format!("{name} must have contiguous rows")))
    }
}

impl<T: Elementary> Kernel<T> for Backward<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { attention, saved, upstream, gradients: [query, key, value], team } = self;
        let [_, kv_heads, key_len, _] = key.shape();
        let group = attention.group();
        // Without keys, queries still have gradients: 0.
        let task_keys = if key_len == 0 { 0 } else { TASK_KEYS };
        let stretches = key_len.div_ceil(TASK_KEYS).max(1);
        let query_gradient = Relay::new(query.blocks([1, 1, QUERIES, 0]));
        let parts =
            Reversed((key.blocks([1, 1, task_keys, 0]), value.blocks([1, 1, task_keys, 0])));
        let tasks = attention.key.shape()[0] * kv_heads * stretches;
        try_for_each_part(team, parts, |index, (key, value)| {
            let _guard = query_gradient.guard();
            let index = tasks - 1 - index;
            let first = index % stretches * TASK_KEYS;
            let outcome = isa.vectorize(KeyBlock {
                attention,
                saved,
                upstream,
                batch: index / stretches / kv_heads,
                heads: index / stretches % kv_heads * group
                    ..(index / stretches % kv_heads + 1) * group,
                keys: first..key_len.min(first + TASK_KEYS),
                query_gradient: &query_gradient,
                key_gradient: key.inner([0, 0]),
                value_gradient: value.inner([0, 0]),
            });
            if outcome.is_err() {
                query_gradient.give_up();
            }
            outcome
        })
    }
}

fn clear<T: Real>(numbers: &mut ViewMut<'_, T, 2>) {
    (0..numbers.rows()).for_each(|row| numbers.row_mut(row).fill(T::ZERO));
}

/// Neighbouring keys of one head, with the gradients that they share with no other task.
struct KeyBlock<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    saved: Saved<'a, T>,
    upstream: Upstream<'a, T>,
    batch: usize,
    /// The heads of queries that share the keys.
    heads: Range<usize>,
    keys: Range<usize>,
    query_gradient: &'a Relay<Blocks<'a, T, 4>>,
    key_gradient: ViewMut<'a, T, 2>,
    value_gradient: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Kernel<T> for KeyBlock<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) -> Result<()> {
        let Attention { query, key, value, score } = self.attention;
        let [_, heads, query_len, _] = query.shape();
        let kv_head = [self.batch, self.heads.start / self.attention.group().max(1)];
        let reach = score.reach(self.batch, [query_len, key.shape()[2]]);
        let key = key.inner::<2, 2>(kv_head).slice(0, self.keys.clone());
        let value = value.inner(kv_head).slice(0, self.keys.clone());
        let mut copy = Scratch::take(copied_rows(key))?;
        let key_rows = packed_rows(isa, key, &mut copy)?;
        clear(&mut self.key_gradient);
        clear(&mut self.value_gradient);
        let blocks = query_len.div_ceil(QUERIES);
        for head in self.heads.clone() {
            // From the last, like all tasks of a head: nobody waits for more than one block.
            for block in (0..blocks).rev() {
                let first = block * QUERIES;
                let queries = first..reach.queries.min(first + QUERIES).max(first);
                let span = if queries.is_empty() { 0..0 } else { reach.span(queries.clone()) };
                let index = (self.batch * heads + head) * blocks + block;
                if span.is_empty() {
                    if self.keys.start == 0 {
                        clear(
                            &mut self.query_gradient.take(index, 0)?.part.reborrow().inner([0, 0]),
                        );
                    }
                    continue;
                }
                if span.end <= self.keys.start || self.keys.end <= span.start {
                    continue;
                }
                let turn = self.keys.start / TASK_KEYS - span.start / TASK_KEYS;
                let mut gradient = self.query_gradient.take(index, turn)?;
                let mut query_gradient = gradient.part.reborrow().inner([0, 0]);
                if turn == 0 {
                    clear(&mut query_gradient);
                }
                isa.vectorize(QueryBlock {
                    attention: self.attention,
                    saved: self.saved,
                    upstream: self.upstream,
                    reach,
                    keys: self.keys.clone(),
                    key,
                    key_rows,
                    value,
                    query_gradient: query_gradient.slice(0, 0..queries.len()),
                    key_gradient: self.key_gradient.reborrow(),
                    value_gradient: self.value_gradient.reborrow(),
                    next: block.checked_sub(1).map(|block| Place {
                        batch: self.batch,
                        head,
                        queries: block * QUERIES..(block + 1) * QUERIES,
                    }),
                    place: Place { batch: self.batch, head, queries },
                })?;
            }
        }
        Ok(())
    }
}
