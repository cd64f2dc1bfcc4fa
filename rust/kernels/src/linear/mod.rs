//! The linear layer: a matrix product with the bias and the activation fused behind it.
//!
//! `output = activation(input · weightᵀ + bias)`, and the gradients of all operands.

mod activation;
mod backward;
mod elementwise;
mod forward;

pub use activation::{Activation, Needs};
pub use backward::{Gradients, Saved};
pub use forward::Linear;

#[cfg(test)]
mod tests;
