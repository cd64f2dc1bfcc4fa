//! The operands of attention, and the one check of their shapes.

use fusewire_simd::Element;

use super::dropout::Dropout;
use super::reach::Reach;
use super::score::Score;
use super::sequences::Sequences;
use super::tile::Place;
use crate::error::expect_shape;
use crate::gemm::singles;
use crate::view::View;
use crate::{Error, Result};

/// The operands, with any strides; several heads of queries may share one head of keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a, E: Element> {
    /// Queries, `(batch, heads, query_len, head_dim)`.
    pub query: View<'a, E, 4>,
    /// Keys, `(batch, kv_heads, key_len, head_dim)`.
    pub key: View<'a, E, 4>,
    /// Values, `(batch, kv_heads, key_len, value_dim)`.
    pub value: View<'a, E, 4>,
    /// How sequences lie in them.
    pub sequences: Sequences<'a>,
    /// How products become scores.
    pub score: Score<'a, E>,
    /// The score of one more key whose value is 0, `(sequences, heads)`.
    pub sinks: Option<View<'a, E::Real, 2>>,
    /// Which probabilities are dropped.
    pub dropout: Option<Dropout>,
}

/// What a head of queries of one sequence sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a, E: Element> {
    /// `(key_len, head_dim)`.
    pub(super) key: View<'a, E, 2>,
    /// `(key_len, value_dim)`.
    pub(super) value: View<'a, E, 2>,
    pub(super) reach: Reach,
    /// The score of the key without a value, if there is one.
    pub(super) sink: Option<E::Real>,
}

impl<'a, E: Element> Attention<'a, E> {
    /// The same of [`Element::Single`], for instruction sets without products of pairs.
    pub(super) fn single(&self) -> Attention<'a, E::Single> {
        let Self { query, key, value, sequences, score, sinks, dropout } = *self;
        let [query, key, value] = [query, key, value].map(singles);
        Attention { query, key, value, sequences, score: score.single(), sinks, dropout }
    }

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

    /// `[sequences, heads, query_len, key_len]` with the lengths of the longest sequence.
    pub fn score_shape(&self) -> [usize; 4] {
        let [batch, heads, query_len, _] = self.query.shape();
        let (queries, keys) = (self.sequences.query_rows(), self.sequences.key_rows());
        let key_len = keys.longest(self.key.shape()[2]);
        [queries.count(batch), heads, queries.longest(query_len), key_len]
    }

    /// Query heads for each head of keys and values.
    pub(super) fn group(&self) -> usize {
        self.query.shape()[1] / self.key.shape()[1].max(1)
    }

    /// The sequence and the head of keys and values that a block of queries sees.
    #[inline(always)]
    pub(super) fn kv_head(&self, place: &Place) -> [usize; 2] {
        [place.sequence, place.head / self.group()]
    }

    /// What the head of a block of queries sees.
    #[inline(always)]
    pub(super) fn head(&self, place: &Place) -> Head<'a, E> {
        let key = self.sequences.of_keys(self.key, self.kv_head(place));
        let value = self.sequences.of_keys(self.value, self.kv_head(place));
        let (_, queries) = self.sequences.query_rows().of(place.sequence, self.query.shape()[2]);
        let lengths = [queries.len(), key.rows()];
        let reach = self.sequences.reach(place.sequence, lengths, self.score.band);
        let sink = self.sinks.map(|sinks| sinks.get([place.sequence, place.head]));
        Head { key, value, reach, sink }
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
        self.sequences.check(batch, query_len, key_len)?;
        let scores = self.score_shape();
        if let Some(shape) = self.score.mask.shape() {
            expect_shape("attn_mask", &scores, &shape)?;
        }
        for (name, numbers) in [("alibi_slopes", self.score.slopes), ("sinks", self.sinks)] {
            if let Some(numbers) = numbers {
                expect_shape(name, &scores[..2], &numbers.shape())?;
            }
        }
        match self.dropout {
            Some(Dropout { probability, .. }) if !(0.0..=1.0).contains(&probability) => Err(
                Error::Value(format!("dropout_p must lie between 0 and 1, but is {probability}")),
            ),
            _ => Ok(()),
        }
    }
}
