//! The matrix product: one register tile, blocks of it, and the whole product around them.
//!
//! Everything that multiplies goes through [`multiply_block`]: `C (+)= A · B` with rows of `B` and
//! `C` contiguous, so that their columns fill vectors, while numbers of `A` are broadcast and may lie
//! anywhere. Whole products have an epilogue, a [`ColumnEpilogue`]. [`multiply_rows`] is for a few rows of `A` and
//! rows of `Bᵀ` as they lie.

mod around;
mod block;
mod cache_blocks;
mod column_sums;
mod dots;
mod epilogue;
mod few_rows;
mod matmul;
mod microkernel;
mod pack;
pub mod reference;
mod rounded;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod transpose;
mod turned;

pub use around::{Meanwhile, Start};
pub(crate) use block::panel_columns;
pub(crate) use block::{hold_tiles, multiplies_by_tiles};
pub use block::{multiply_block, multiply_in_chains};
pub use cache_blocks::Matmul;
pub use column_sums::{ColumnSums, column_sums};
pub use dots::multiply_rows;
pub(crate) use dots::{Next, dot_rows};
pub use epilogue::{ColumnEpilogue, NoEpilogue};
pub use matmul::matmul;
pub(crate) use microkernel::between_calls;
pub(crate) use pack::DEEPEST;
pub use pack::{copy_columns, copy_rows, factors};
pub use rounded::{as_sums, singles, singles_mut, stored_factors};
pub use transpose::{Scales, copy_transposed};

#[cfg(test)]
mod tests;
