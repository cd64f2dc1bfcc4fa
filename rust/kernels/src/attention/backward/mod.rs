//! The backward pass: probabilities again from the saved logarithms, and five products.

mod block;
mod delta;
mod elementwise;
mod mask;
mod pass;
mod per_head;
mod products;
mod sums;

use std::ops::Range;

use fusewire_simd::{Element, Kernel, Storage};

use self::block::{KeyFactors, QueryBlock};
pub use self::mask::mask_backward;
pub use self::pass::{Pass, Saved, Upstream};
pub use self::per_head::{sinks_backward, slopes_backward};
use self::products::Products;
use self::sums::Sums;
use super::ahead::Ahead;
use super::operand::{Operand, gradient_chain};
use super::params::{Attention, Head};
use super::tile::{Place, QUERIES};
use crate::error::expect_shape;
use crate::gemm::{hold_tiles, singles_mut};
use crate::math::Elementary;
use crate::parallel::{Relay, Reversed, SequenceBlocks, Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{ViewMut, count};
use crate::{Error, Result};

/// Keys of a task: with their values and both gradients they fill about half of a second-level
/// cache at a head dimension of 64.
const TASK_KEYS: usize = 512;

/// The gradients of the operands, each in the operand's shape, to be written; what is not wanted
/// is not computed.
#[derive(Debug)]
pub struct Gradients<'a, E: Element> {
    /// That of the queries.
    pub query: Option<ViewMut<'a, E, 4>>,
    /// That of the keys.
    pub key: Option<ViewMut<'a, E, 4>>,
    /// That of the values.
    pub value: Option<ViewMut<'a, E, 4>>,
}

/// Computes the gradients of the operands.
///
/// A task is a stretch of keys of one head of keys and values, with all the query heads that share
/// it. Tasks of the same head add to the gradients of the same queries in turns, so that sums run in
/// one order whatever the team.
///
/// # Errors
/// If the shapes do not fit together, or rows of the gradients are not contiguous.
pub fn backward<E: Element<Real: Elementary>>(
    pass: &Pass<'_, E>,
    gradients: Gradients<'_, E>,
    team: &dyn Team,
) -> Result<()> {
    if E::multiplies_factors() {
        return pass
            .by_tiles(team, |pass| E::dispatch_multiplying(Backward::new(pass, gradients, team)?));
    }
    let Gradients { query, key, value } = gradients;
    let [query, key, value] = [query, key, value].map(|gradient| gradient.map(singles_mut));
    let attention = pass.attention.single();
    backward(&pass.single(&attention), Gradients { query, key, value }, team)
}

/// The whole pass, its shapes checked.
struct Backward<'a, E: Element> {
    pass: &'a Pass<'a, E>,
    /// Those of query, key and value; what is not wanted has no columns.
    gradients: [ViewMut<'a, E, 4>; 3],
    team: &'a dyn Team,
}

impl<'a, E: Element> Backward<'a, E> {
    fn new(pass: &'a Pass<'a, E>, gradients: Gradients<'a, E>, team: &'a dyn Team) -> Result<Self> {
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
fn wanted<'a, E: Element>(
    name: &str,
    shape: [usize; 4],
    gradient: Option<ViewMut<'a, E, 4>>,
) -> Result<ViewMut<'a, E, 4>> {
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

impl<E: Element<Real: Elementary>> Kernel<E> for Backward<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { pass, gradients: [query, key, value], team } = self;
        let sequences = &pass.attention.sequences;
        let (queries, keys, key_len) =
            (sequences.query_rows(), sequences.key_rows(), key.shape()[2]);
        let group = pass.attention.group();
        // Without keys, queries still have gradients: 0.
        let longest = keys.longest(key_len);
        let task_keys = if longest == 0 { 0 } else { TASK_KEYS };
        // Sums of narrow numbers outlive a task where several tasks add to them.
        let [.., columns] = query.shape();
        let columns = if E::IS_REAL || longest <= TASK_KEYS { 0 } else { columns };
        let shape = [query.shape()[0], query.shape()[1], query.shape()[2], columns];
        let mut sums = Scratch::take(count::<E::Real, 4>(shape)?)?;
        let sums =
            SequenceBlocks::new(ViewMut::contiguous(&mut sums, shape)?, queries, [1, QUERIES]);
        let query = SequenceBlocks::new(query, queries, [1, QUERIES]);
        let query_grid = query.grid();
        let query_gradient = Relay::new((query, sums));
        let key = SequenceBlocks::new(key, keys, [1, task_keys]);
        let value = SequenceBlocks::new(value, keys, [1, task_keys]);
        let [sequences, kv_heads, stretches] = key.grid();
        let parts = Reversed((key, value));
        let tasks = sequences * kv_heads * stretches;
        // A stretch of keys, as long as there are any, else the first of no keys.
        let stretch = |index: usize| {
            let (sequence, kv_head) = (index / stretches / kv_heads, index / stretches % kv_heads);
            let (_, rows) = keys.of(sequence, key_len);
            let first = index % stretches * TASK_KEYS;
            let keys = first.min(rows.len())..rows.len().min(first + TASK_KEYS);
            let heads = kv_head * group..(kv_head + 1) * group;
            (first == 0 || first < rows.len()).then_some(Stretch { sequence, heads, keys })
        };
        let threads = team.threads();
        try_for_each_part(team, parts, |index, (key, value)| {
            let _guard = query_gradient.guard();
            let index = tasks - 1 - index;
            let Some(own) = stretch(index) else { return Ok(()) };
            let next = index + threads;
            let outcome = isa.vectorize(KeyBlock {
                pass,
                stretch: own,
                // Probably.
                next: if next < tasks { stretch(next) } else { None },
                query_gradient: &query_gradient,
                query_grid,
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

/// The blocks of the gradient of the queries, with sums that outlive a task.
type QueryGradient<'a, E> = (SequenceBlocks<'a, E, 4>, SequenceBlocks<'a, <E as Element>::Real, 4>);

/// Neighbouring keys of one head.
struct Stretch {
    sequence: usize,
    /// The heads of queries that share the keys.
    heads: Range<usize>,
    keys: Range<usize>,
}

/// A stretch of keys, with the gradients that it shares with no other task.
struct KeyBlock<'a, E: Element> {
    pass: &'a Pass<'a, E>,
    stretch: Stretch,
    /// The one that the thread takes next.
    next: Option<Stretch>,
    query_gradient: &'a Relay<QueryGradient<'a, E>>,
    /// Sequences, heads and blocks of queries.
    query_grid: [usize; 3],
    key_gradient: ViewMut<'a, E, 2>,
    value_gradient: ViewMut<'a, E, 2>,
}

impl Stretch {
    /// What will be needed when the block of queries at `block` of `head` is done.
    #[inline(always)]
    fn ahead<E: Element>(
        &self,
        next: Option<&Self>,
        pass: &Pass<'_, E>,
        head: usize,
        block: usize,
    ) -> Ahead {
        let Pass { attention, saved, upstream } = pass;
        let sequences = &attention.sequences;
        let last = |sequence: usize, head: usize| {
            let (_, rows) = sequences.query_rows().of(sequence, attention.query.shape()[2]);
            let first = rows.len().saturating_sub(1) / QUERIES * QUERIES;
            Place { sequence, head, queries: first..rows.len() }
        };
        let mut ahead = Ahead::nothing();
        let sequence = self.sequence;
        let next = if block > 0 {
            Place { sequence, head, queries: (block - 1) * QUERIES..block * QUERIES }
        } else if head + 1 < self.heads.end {
            last(sequence, head + 1)
        } else if let Some(Self { sequence, heads, keys }) = next {
            let place = last(*sequence, heads.start);
            let Head { key, value, .. } = attention.head(&place);
            ahead.read(key.slice(0, keys.clone()));
            ahead.read(value.slice(0, keys.clone()));
            place
        } else {
            return ahead;
        };
        ahead.read(sequences.of_block(attention.query, &next));
        ahead.read(sequences.of_block(upstream.output, &next));
        ahead.read(sequences.of_block(saved.output, &next));
        ahead
    }
}

impl<E: Element<Real: Elementary>> Kernel<E> for KeyBlock<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { pass, stretch, next, query_gradient: relay, .. } = self;
        let Stretch { sequence, ref heads, ref keys } = stretch;
        let _tiles = hold_tiles(isa);
        let mut key_gradient = Sums::new(self.key_gradient, None)?;
        let mut value_gradient = Sums::new(self.value_gradient, None)?;
        let Attention { query, sequences, .. } = pass.attention;
        let place = |head: usize, queries: Range<usize>| Place { sequence, head, queries };
        key_gradient.clear()?;
        value_gradient.clear()?;
        let (_, rows) = sequences.query_rows().of(sequence, query.shape()[2]);
        let [_, all_heads, blocks] = self.query_grid;
        let seen = pass.attention.head(&place(heads.start, 0..0));
        let (key, value) = (seen.key.slice(0, keys.clone()), seen.value.slice(0, keys.clone()));
        let factors = KeyFactors::of(isa, &Head { key, value, ..seen })?;
        let key_rows = Operand::in_lines(isa, key)?;
        for head in heads.clone() {
            let seen = Head { key, value, ..pass.attention.head(&place(head, 0..0)) };
            // From the last, like all tasks of a head: nobody waits for more than one block.
            for block in (0..rows.len().div_ceil(QUERIES)).rev() {
                let first = block * QUERIES;
                let queries = first..seen.reach.queries.min(first + QUERIES).max(first);
                let span = if queries.is_empty() { 0..0 } else { seen.reach.span(queries.clone()) };
                let index = (sequence * all_heads + head) * blocks + block;
                if span.is_empty() {
                    if keys.start == 0 {
                        let mut turn = relay.take(index, 0)?;
                        let mut gradient = turn.part.0.reborrow().inner([0, 0]);
                        (0..gradient.rows())
                            .for_each(|row| gradient.row_mut(row).fill(E::default()));
                    }
                    continue;
                }
                if span.end <= keys.start || keys.end <= span.start {
                    continue;
                }
                let turn = keys.start / TASK_KEYS - span.start / TASK_KEYS;
                let mut gradient = relay.take(index, turn)?;
                let (target, kept) = &mut gradient.part;
                let kept = (kept.shape()[3] > 0).then(|| kept.reborrow().inner([0, 0]));
                let mut query_gradient = Sums::new(target.reborrow().inner([0, 0]), kept)?;
                if turn == 0 {
                    query_gradient.clear()?;
                }
                let block_place = place(head, queries.clone());
                let query_rows = Operand::in_lines(isa, sequences.of_block(*query, &block_place))?;
                let upstream = sequences.of_block(pass.upstream.output, &block_place);
                let upstream_rows = Operand::in_lines(isa, upstream)?;
                let mut products = Products {
                    query: query_rows.view()?,
                    upstream: upstream_rows.view()?,
                    key: key_rows.view()?,
                    chain: gradient_chain::<E>(&seen.reach),
                    query_gradient: query_gradient.view_mut()?.slice(0, 0..queries.len()),
                    key_gradient: key_gradient.view_mut()?,
                    value_gradient: value_gradient.view_mut()?,
                };
                isa.vectorize(QueryBlock {
                    pass,
                    head: seen,
                    factors: &factors,
                    keys: keys.clone(),
                    ahead: stretch.ahead(next.as_ref(), pass, head, block),
                    place: block_place,
                    consumer: &mut products,
                })?;
                if span.end <= keys.end {
                    query_gradient.finish(isa)?;
                }
            }
        }
        key_gradient.finish(isa)?;
        value_gradient.finish(isa)
    }
}
