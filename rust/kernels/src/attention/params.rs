//! The operands of attention, and the one check of their shapes.

use fusewire_simd::Real;

use super::score::Score;
use crate::view::View;
use crate::{Error, Result};

/// The operands, with any strides; several heads of queries may share one head of keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a, T: Real> {
    /// Queries, `(batch, heads, query_len, head_dim)`.
    pub query: View<'a, T, 4>,
    /// Keys, `(batch, kv_heads, key_len, head_dim)`.
    pub key: View<'a, T, 4>,
    /// Values, `(batch, kv_heads, key_len, value_dim)`.
    pub value: View<'a, T, 4>,
    /// How products become scores.
    pub score: Score<'a, T>,
}

impl<T: Real> Attention<'_, T> {
    /// `[batch, heads, query_len, value_dim]`.
    pub fn output_shape(&self) -> [usize; 4] {
        let [batch, heads, query_len, _] = self.query.shape();
        [batch, heads, query_len, self.value.shape()[3]]
    }

    /// `[batch, heads, query_len]`.
    pub fn lse_shape(&self) -> [usize; 3] {
        let [batch, heads, query_len, _] = self.query.shape();
        [batch, heads, query_len]
    }

    /// Query heads for each head of keys and values.
    pub(super) fn group(&self) -> usize {
        self.query.shape()[1] / self.key.shape()[1].max(1)
    }

    /// Checks that the shapes and lengths fit together.
    ///
    /// # Errors
    /// If they do not.
    pub(super) fn check(&self) -> Result<()> {
        let [batch, heads, query_len, head_dim] = self.query.shape();
        let [_, kv_heads, key_len, _] = self.key.shape();
        let value_dim = self.value.shape()[3];
        expect_shape("key", &[batch, kv_heads, key_len, head_dim], &self.key.shape())?;
        expect_shape("value", &[batch, kv_heads, key_len, value_dim], &self.value.shape())?;
        let divides = if kv_heads == 0 { heads == 0 } else { heads % kv_heads == 0 };
        if !divides {
            return Err(Error::Value(format!(
                "the heads of query must be a multiple of those of key and value, \
                 but there are {heads} and {kv_heads}"
            )));
        }
        if let Some(shape) = self.score.mask.shape() {
            expect_shape("attn_mask", &[batch, heads, query_len, key_len], &shape)?;
        }
        check_lengths("query_lengths", self.score.query_lengths, batch, query_len)?;
        check_lengths("key_lengths", self.score.key_lengths, batch, key_len)
    }
}

pub(super) fn expect_shape(name: &str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::shape(name, expected, got)) }
}

fn check_lengths(
    name: &str,
    lengths: Option<View<'_, i64, 1>>,
    batch: usize,
    most: usize,
) -> Result<()> {
    let Some(lengths) = lengths else { return Ok(()) };
    expect_shape(name, &[batch], &lengths.shape())?;
    for row in 0..batch {
        let length = lengths.get([row]);
        if usize::try_from(length).map_or(true, |length| length > most) {
            return Err(Error::Value(format!(
                "{name}[{row}] must lie between 0 and {most}, but is {length}"
            )));
        }
    }
    Ok(())
}
