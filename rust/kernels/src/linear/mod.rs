//! The linear layer: a matrix product with the bias and the activation fused behind it.
//!
//! `output = activation(input · weightᵀ + bias)`, and the gradients of all operands.

mod backward;
mod forward;

pub use backward::{Gradients, Saved};
pub use forward::Linear;

#[cfg(test)]
mod tests;
