//! How the sequences of a batch lie in the operands.

use fusewire_simd::Plain;

use super::reach::{Band, Reach};
use super::tile::Place;
use crate::error::expect_shape;
use crate::parallel::SequenceRows;
use crate::view::View;
use crate::{Error, Result};

/// Where sequences lie in `(batch, heads, length, dim)`.
#[derive(Clone, Copy, Debug)]
pub enum Sequences<'a> {
    /// One in each batch row.
    Padded {
        /// How many queries of each exist, `(batch)`; all if `None`.
        query_lengths: Option<View<'a, i64, 1>>,
        /// How many keys of each exist, `(batch)`; all if `None`.
        key_lengths: Option<View<'a, i64, 1>>,
    },
    /// One behind the other in the only batch row; see [`offsets`].
    Packed {
        /// Where queries begin, and where the last end, `(sequences + 1)`.
        query_offsets: &'a [usize],
        /// Where keys begin, and where the last end, `(sequences + 1)`.
        key_offsets: &'a [usize],
    },
}

/// Offsets of packed sequences, checked: `(sequences + 1)` numbers that rise from 0 to `total`.
///
/// # Errors
/// If they do not.
pub fn offsets(name: &str, numbers: View<'_, i64, 1>, total: usize) -> Result<Vec<usize>> {
    let [len] = numbers.shape();
    let mut offsets = Vec::with_capacity(len);
    for place in 0..len {
        let number = numbers.get([place]);
        let least = offsets.last().copied().unwrap_or(0);
        match usize::try_from(number) {
            Ok(offset) if (least..=total).contains(&offset) => offsets.push(offset),
            _ => {
                return Err(Error::Value(format!(
                    "{name} must rise from 0 to {total}, but {name}[{place}] is {number}"
                )));
            }
        }
    }
    let ends = (offsets.first().copied(), offsets.last().copied());
    if ends != (Some(0), Some(total)) {
        let got = if len == 0 { "are empty".into() } else { format!("are {offsets:?}") };
        return Err(Error::Value(format!("{name} must rise from 0 to {total}, but {got}")));
    }
    Ok(offsets)
}

impl<'a> Sequences<'a> {
    /// One in each batch row, of full length.
    pub const FULL: Self = Self::Padded { query_lengths: None, key_lengths: None };

    /// The rows of queries.
    pub(super) fn query_rows(&self) -> SequenceRows<'a> {
        match *self {
            Self::Padded { .. } => SequenceRows::Padded,
            Self::Packed { query_offsets, .. } => SequenceRows::Packed(query_offsets),
        }
    }

    /// The rows of keys and values.
    pub(super) fn key_rows(&self) -> SequenceRows<'a> {
        match *self {
            Self::Padded { .. } => SequenceRows::Padded,
            Self::Packed { key_offsets, .. } => SequenceRows::Packed(key_offsets),
        }
    }

    /// How far queries of a sequence reach, given the rows that it has in the operands.
    pub(super) fn reach(&self, sequence: usize, [queries, keys]: [usize; 2], band: Band) -> Reach {
        // Lengths were checked where the operands were.
        let length = |lengths: Option<View<'_, i64, 1>>, most: usize| {
            let given = lengths.map(|view| usize::try_from(view.get([sequence])).unwrap_or(0));
            given.map_or(most, |length| length.min(most))
        };
        match *self {
            Self::Padded { query_lengths, key_lengths } => {
                band.reach(length(query_lengths, queries), length(key_lengths, keys))
            }
            Self::Packed { .. } => band.reach(queries, keys),
        }
    }

    /// One head's rows of a sequence in something shaped like the queries.
    #[inline(always)]
    pub(super) fn of_queries<'b, T: Plain>(
        &self,
        view: View<'b, T, 4>,
        [sequence, head]: [usize; 2],
    ) -> View<'b, T, 2> {
        let (batch, rows) = self.query_rows().of(sequence, view.shape()[2]);
        view.inner([batch, head]).slice(0, rows)
    }

    /// The rows of a block of queries in something shaped like the queries.
    #[inline(always)]
    pub(super) fn of_block<'b, T: Plain>(
        &self,
        view: View<'b, T, 4>,
        place: &Place,
    ) -> View<'b, T, 2> {
        let rows = self.of_queries(view, [place.sequence, place.head]);
        rows.slice(0, place.queries.clone())
    }

    /// One head's rows of a sequence in something shaped like the keys.
    #[inline(always)]
    pub(super) fn of_keys<'b, T: Plain>(
        &self,
        view: View<'b, T, 4>,
        [sequence, kv_head]: [usize; 2],
    ) -> View<'b, T, 2> {
        let (batch, rows) = self.key_rows().of(sequence, view.shape()[2]);
        view.inner([batch, kv_head]).slice(0, rows)
    }

    /// One head's logarithms of a sequence.
    #[inline(always)]
    pub(super) fn of_lse<'b, T: Plain>(
        &self,
        view: View<'b, T, 3>,
        [sequence, head]: [usize; 2],
    ) -> View<'b, T, 1> {
        let (batch, rows) = self.query_rows().of(sequence, view.shape()[2]);
        view.inner([batch, head]).slice(0, rows)
    }

    /// Checks the sequences against operands of these sizes.
    pub(super) fn check(&self, batch: usize, query_len: usize, key_len: usize) -> Result<()> {
        match *self {
            Self::Padded { query_lengths, key_lengths } => {
                check_lengths("query_lengths", query_lengths, batch, query_len)?;
                check_lengths("key_lengths", key_lengths, batch, key_len)
            }
            Self::Packed { query_offsets, key_offsets } => {
                expect_shape("query_offsets", &[key_offsets.len()], &[query_offsets.len()])?;
                let fits = batch == 1
                    && query_offsets.last() == Some(&query_len)
                    && key_offsets.last() == Some(&key_len);
                let message = "packed sequences must fill the only batch row";
                if fits { Ok(()) } else { Err(Error::Value(message.into())) }
            }
        }
    }
}

/// Checks that there is a length between 0 and `most` for each row of a batch.
pub(super) fn check_lengths(
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
