//! Attention of a few queries to a cache, for both doors.

use std::ffi::CStr;

use fusewire_kernels::attention::Score;
use fusewire_kernels::attention::decode::{Cache, Decode, Pages};
use fusewire_kernels::parallel::Team;
use fusewire_kernels::view::View;
use fusewire_simd::Element;
use pyo3::prelude::*;

use super::operands::{band, broadcast, optional};
use crate::array::{Array, NumpyArray, Stored, with_stored};
use crate::gate::{self, Result};
use crate::torch_abi::{Joined, Library, Operator, Tensor};

/// Query, key and value `(batch, kv_heads, key_len, dim)`, or with a table of blocks `(num_blocks,
/// block_size, kv_heads, dim)`, the table, the lengths of keys, ALiBi's slopes, and sinks.
type Given<A> = (A, A, A, Option<A>, Option<A>, Option<A>, Option<A>);

/// Scale, softcap (0 for none), left and right bound of the window (below 0 for none), and whether
/// the diagonal ends at the bottom right.
type Options = (f64, f64, i64, i64, bool);

/// Computes the output and the logarithms.
fn forward<A: Array>(given: &Given<A>, options: Options, team: &dyn Team) -> Result<[A; 2]> {
    with_stored!(given.0.dtype("query")?, T => {
        let decode = decode::<T, A>(given, options)?;
        let shape @ [batch, heads, query_len, _] = decode.output_shape();
        let mut output = A::empty::<T>(&shape)?;
        let mut lse = A::empty::<<T as Element>::Real>(&[batch, heads, query_len])?;
        decode.forward(output.view_mut("output")?, lse.view_mut("lse")?, team)?;
        Ok([output, lse])
    })
}

fn decode<'a, T, A>(given: &'a Given<A>, options: Options) -> Result<Decode<'a, T>>
where
    T: Stored<Real: Stored>,
    A: Array,
{
    let (query, key, value, block_table, key_lengths, slopes, sinks) = given;
    let (scale, softcap, left, right, bottom_right) = options;
    let query: View<'_, T, 4> = query.view("query")?;
    let [batch, heads, ..] = query.shape();
    let per_head = |numbers: &'a Option<A>, name| {
        let numbers = optional::<T::Real, A, 2>(numbers.as_ref(), name)?;
        numbers.map(|view| broadcast(view, [batch, heads], name)).transpose()
    };
    let table = optional(block_table.as_ref(), "block_table")?;
    Ok(Decode {
        query,
        key: cache(key, "key", table)?,
        value: cache(value, "value", table)?,
        key_lengths: optional(key_lengths.as_ref(), "key_lengths")?,
        score: Score {
            softcap: (softcap != 0.0).then_some(softcap),
            band: band(left, right, bottom_right),
            slopes: per_head(slopes, "alibi_slopes")?,
            ..Score::plain(scale)
        },
        sinks: per_head(sinks, "sinks")?,
    })
}

fn cache<'a, A: Array, T: Stored>(
    numbers: &'a A,
    name: &str,
    table: Option<View<'a, i32, 2>>,
) -> Result<Cache<'a, T>> {
    let numbers: View<'_, T, 4> = numbers.view(name)?;
    Ok(match table {
        Some(table) => {
            Cache { numbers: numbers.permute([0, 2, 1, 3]), pages: Some(Pages { table }) }
        }
        None => Cache { numbers, pages: None },
    })
}

#[pyfunction]
pub(crate) fn decode_attention(
    py: Python<'_>,
    operands: Given<NumpyArray>,
    options: Options,
) -> PyResult<[NumpyArray; 2]> {
    gate::enter(py, |team| forward(&operands, options, team))
}

struct Forward;

impl Operator for Forward {
    const NAME: &CStr = c"decode_attention";
    type Arguments = Joined<Given<Tensor>, Options>;
    type Results = [Tensor; 2];

    fn call(Joined(given, options): Self::Arguments, team: &dyn Team) -> Result<[Tensor; 2]> {
        forward(&given, options, team)
    }
}

pub(super) fn register(library: &Library) -> Result<()> {
    library.add::<Forward>()
}
