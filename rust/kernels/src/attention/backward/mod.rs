//! The backward pass: probabilities again from the saved logarithms, and five products.

mod block;
mod delta;
mod mask;
mod per_head;
mod products;

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes, Real};

use self::block::QueryBlock;
pub use self::mask::mask_backward;
pub use self::per_head::{sinks_backward, slopes_backward};
use self::products::Products;
use super::params::{Attention, Head, expect_shape};
use super::score::Place;
use super::tile::{QUERIES, copied_rows, packed_rows};
use crate::math::Elementary;
use crate::parallel::{Relay, Reversed, SequenceBlocks, Team, try_for_each_part};
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

/// What every backward pass reads.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a, T: Real> {
    /// The operands.
    pub attention: &'a Attention<'a, T>,
    /// The results.
    pub saved: Saved<'a, T>,
    /// The gradients of the results.
    pub upstream: Upstream<'a, T>,
}

impl<T: Real> Pass<'_, T> {
    /// # Errors
    /// If the shapes do not fit together.
    fn check(&self) -> Result<()> {
        self.attention.check()?;
        let (output, lse) = (self.attention.output_shape(), self.attention.lse_shape());
        expect_shape("output", &output, &self.saved.output.shape())?;
        expect_shape("lse", &lse, &self.saved.lse.shape())?;
        expect_shape("the gradient of output", &output, &self.upstream.output.shape())?;
        self.upstream
            .lse
            .map_or(Ok(()), |gradient| expect_shape("the gradient of lse", &lse, &gradient.shape()))
    }
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
    pass: &Pass<'_, T>,
    gradients: Gradients<'_, T>,
    team: &dyn Team,
) -> Result<()> {
    T::dispatch(Backward::new(pass, gradients, team)?)
}

/// The whole pass, its shapes checked.
struct Backward<'a, T: Real> {
    pass: &'a Pass<'a, T>,
    /// Those of query, key and value; what is not wanted has no columns.
    gradients: [ViewMut<'a, T, 4>; 3],
    team: &'a dyn Team,
}

impl<'a, T: Real> Backward<'a, T> {
    fn new(pass: &'a Pass<'a, T>, gradients: Gradients<'a, T>, team: &'a dyn Team) -> Result<Self> {
        pass.check()?;
        let Attention { query, key, value, .. } = pass.attention;
        let gradients = [
            wanted("the gradient of query", query.shape(), gradients.query)?,
            wanted("the gradient of key", key.shape(), gradients.key)?,
            wanted("the gradient of value", value.shape(), gradients.value)?,
        ];
        Ok(Self { pass, gradients, team })
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
        let Self { pass, gradients: [query, key, value], team } = self;
        let sequences = &pass.attention.sequences;
        let (queries, keys, key_len) =
            (sequences.query_rows(), sequences.key_rows(), key.shape()[2]);
        let group = pass.attention.group();
        // Without keys, queries still have gradients: 0.
        let task_keys = if keys.longest(key_len) == 0 { 0 } else { TASK_KEYS };
        let query_gradient = Relay::new(SequenceBlocks::new(query, queries, [1, QUERIES]));
        let key = SequenceBlocks::new(key, keys, [1, task_keys]);
        let value = SequenceBlocks::new(value, keys, [1, task_keys]);
        let [sequences, kv_heads, stretches] = key.grid();
        let parts = Reversed((key, value));
        let tasks = sequences * kv_heads * stretches;
        try_for_each_part(team, parts, |index, (key, value)| {
            let _guard = query_gradient.guard();
            let index = tasks - 1 - index;
            let (sequence, kv_head) = (index / stretches / kv_heads, index / stretches % kv_heads);
            let (_, rows) = keys.of(sequence, key_len);
            let first = index % stretches * TASK_KEYS;
            if first > 0 && first >= rows.len() {
                return Ok(());
            }
            let outcome = isa.vectorize(KeyBlock {
                pass,
                sequence,
                heads: kv_head * group..(kv_head + 1) * group,
                keys: first..rows.len().min(first + TASK_KEYS),
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
    pass: &'a Pass<'a, T>,
    sequence: usize,
    /// The heads of queries that share the keys.
    heads: Range<usize>,
    keys: Range<usize>,
    query_gradient: &'a Relay<SequenceBlocks<'a, T, 4>>,
    key_gradient: ViewMut<'a, T, 2>,
    value_gradient: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Kernel<T> for KeyBlock<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { pass, sequence, heads, keys, query_gradient: relay, .. } = self;
        let (mut key_gradient, mut value_gradient) = (self.key_gradient, self.value_gradient);
        let Attention { query, sequences, .. } = pass.attention;
        let place = |head: usize, queries: Range<usize>| Place { sequence, head, queries };
        clear(&mut key_gradient);
        clear(&mut value_gradient);
        let (_, rows) = sequences.query_rows().of(sequence, query.shape()[2]);
        let [_, all_heads, blocks] = relay.partition().grid();
        for head in heads {
            let seen = pass.attention.head(&place(head, 0..0));
            let (key, value) = (seen.key.slice(0, keys.clone()), seen.value.slice(0, keys.clone()));
            let seen = Head { key, value, ..seen };
            let mut copy = Scratch::take(copied_rows(key))?;
            let key_rows = packed_rows(isa, key, &mut copy)?;
            // From the last, like all tasks of a head: nobody waits for more than one block.
            for block in (0..rows.len().div_ceil(QUERIES)).rev() {
                let first = block * QUERIES;
                let queries = first..seen.reach.queries.min(first + QUERIES).max(first);
                let span = if queries.is_empty() { 0..0 } else { seen.reach.span(queries.clone()) };
                let index = (sequence * all_heads + head) * blocks + block;
                if span.is_empty() {
                    if keys.start == 0 {
                        let mut turn = relay.take(index, 0)?;
                        clear(&mut turn.part.reborrow().inner([0, 0]));
                    }
                    continue;
                }
                if span.end <= keys.start || keys.end <= span.start {
                    continue;
                }
                let turn = keys.start / TASK_KEYS - span.start / TASK_KEYS;
                let mut gradient = relay.take(index, turn)?;
                let mut query_gradient = gradient.part.reborrow().inner([0, 0]);
                if turn == 0 {
                    clear(&mut query_gradient);
                }
                let block_place = place(head, queries.clone());
                let sources = [*query, pass.upstream.output]
                    .map(|view| sequences.of_block(view, &block_place));
                let copied = sources.map(copied_rows);
                let mut copies = Scratch::take(copied[0] + copied[1])?;
                let (query_copy, upstream_copy) = copies.split_at_mut(copied[0]);
                let mut products = Products {
                    query: packed_rows(isa, sources[0], query_copy)?,
                    upstream: packed_rows(isa, sources[1], upstream_copy)?,
                    key: key_rows,
                    query_gradient: query_gradient.slice(0, 0..queries.len()),
                    key_gradient: key_gradient.reborrow(),
                    value_gradient: value_gradient.reborrow(),
                };
                isa.vectorize(QueryBlock {
                    pass,
                    head: seen,
                    keys: keys.clone(),
                    next: block
                        .checked_sub(1)
                        .map(|block| place(head, block * QUERIES..(block + 1) * QUERIES)),
                    place: block_place,
                    consumer: &mut products,
                })?;
            }
        }
        Ok(())
    }
}
