//! Recurrent cells over whole sequences, forward and backward; docs/kernels/recurrent.md derives both.
//!
//! A call computes one layer in its directions. Sequences come packed step by step, the longest first
//! ([`Steps`]), so that the sequences of a step are the first rows of the state.

mod backward;
mod cell;
mod copies;
mod cut;
mod forward;
mod kept;
mod panels;
pub mod reference;
pub mod scan;
mod steps;
mod weights;

pub use backward::{Backward, Gradients, WeightGradients, backward};
pub use cell::{Cell, Elman, Gru, Lstm, Relu, Tanh};
pub use forward::{Forward, forward};
pub use steps::Steps;
pub use weights::Weights;

/// The numbers per row of what [`forward`] keeps for [`backward`].
pub fn saved_columns<C: Cell>(hidden_size: usize) -> usize {
    if C::SAVED == 0 { 0 } else { padded(hidden_size.div_ceil(C::UNITS) * C::UNITS * C::SAVED) }
}

/// A row stride for `columns` numbers that is no multiple of 4 KB, where rows would share cache sets.
fn padded(columns: usize) -> usize {
    columns.next_multiple_of(32) + 16
}

#[cfg(test)]
mod tests;
