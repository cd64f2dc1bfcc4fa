//! The backward pass: probabilities again from the saved logarithms, and five products.

mod block;

use fusewire_simd::{Kernel, Lanes, Real};

use self::block::QueryBlock;
use super::mask::Place;
use super::params::{Attention, expect_shape};
use super::tile::{QUERIES, contiguous_rows};
use crate::math::Elementary;
use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

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

/// The gradients of the operands, each in the operand's shape, to be written.
#[derive(Debug)]
pub struct Gradients<'a, T: Real> {
    /// That of the queries.
    pub query: ViewMut<'a, T, 4>,
    /// That of the keys.
    pub key: ViewMut<'a, T, 4>,
    /// That of the values.
    pub value: ViewMut<'a, T, 4>,
}

/// Computes the gradients of the operands.
///
/// A head of keys and values is one task, with all the query heads that share it, so that sums run
/// in one order whatever the team.
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

fn clear<T: Real>(mut numbers: ViewMut<'_, T, 4>) {
    let [batch, heads, len, _] = numbers.shape();
    for batch in 0..batch {
        for head in 0..heads {
            let mut rows = numbers.reborrow().inner::<2, 2>([batch, head]);
            (0..len).for_each(|row| rows.row_mut(row).fill(T::ZERO));
        }
    }
}

/// The whole pass, its shapes checked.
pub(super) struct Backward<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    saved: Saved<'a, T>,
    upstream: Upstream<'a, T>,
    gradients: Gradients<'a, T>,
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
        for (name, operand, gradient) in [
            ("the gradient of query", attention.query, &gradients.query),
            ("the gradient of key", attention.key, &gradients.key),
            ("the gradient of value", attention.value, &gradients.value),
        ] {
            expect_shape(name, &operand.shape(), &gradient.shape())?;
            if !gradient.has_unit_columns() {
                return Err(Error::Value(format!("{name} must have contiguous rows")));
            }
        }
        Ok(Self { attention, saved, upstream, gradients, team })
    }
}

impl<T: Elementary> Kernel<T> for Backward<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { attention, saved, upstream, gradients, team } = self;
        let Gradients { mut query, mut key, mut value } = gradients;
        clear(query.reborrow());
        clear(key.reborrow());
        clear(value.reborrow());
        let kv_heads = key.shape()[1];
        let parts = (
            query.blocks([1, attention.group().max(1), 0, 0]),
            key.blocks([1, 1, 0, 0]),
            value.blocks([1, 1, 0, 0]),
        );
        try_for_each_part(team, parts, |index, (query, key, value)| {
            isa.vectorize(KeyHead {
                attention,
                saved,
                upstream,
                batch: index / kv_heads,
                kv_head: index % kv_heads,
                query: query.inner([0]),
                key: key.inner([0, 0]),
                value: value.inner([0, 0]),
            })
        })
    }
}

/// One head of keys and values, with the gradients that it shares with no other.
struct KeyHead<'a, T: Real> {
    attention: &'a Attention<'a, T>,
    saved: Saved<'a, T>,
    upstream: Upstream<'a, T>,
    batch: usize,
    kv_head: usize,
    /// The gradients of the queries of the group, `(group, query_len, head_dim)`.
    query: ViewMut<'a, T, 3>,
    key: ViewMut<'a, T, 2>,
    value: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Kernel<T> for KeyHead<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) -> Result<()> {
        let Attention { key, value, score, .. } = self.attention;
        let key = key.inner::<2, 2>([self.batch, self.kv_head]);
        let value = value.inner([self.batch, self.kv_head]);
        let [group, query_len, _] = self.query.shape();
        let reach = score.reach(self.batch, [query_len, key.rows()]);
        let mut copy =
            Scratch::take(if key.has_unit_columns() { 0 } else { key.rows() * key.columns() })?;
        let key_rows = contiguous_rows(isa, key, &mut copy)?;
        for member in 0..group {
            let head = self.kv_head * group + member;
            for first in (0..reach.queries).step_by(QUERIES) {
                let queries = first..reach.queries.min(first + QUERIES);
                let gradient = self.query.reborrow().inner::<1, 2>([member]);
                let block = QueryBlock {
                    attention: self.attention,
                    saved: self.saved,
                    upstream: self.upstream,
                    place: Place { batch: self.batch, head, queries: queries.clone() },
                    reach,
                    key,
                    key_rows,
                    value,
                    query_gradient: gradient.slice(0, queries),
                    key_gradient: self.key.reborrow(),
                    value_gradient: self.value.reborrow(),
                };
                isa.vectorize(block)?;
            }
        }
        Ok(())
    }
}
