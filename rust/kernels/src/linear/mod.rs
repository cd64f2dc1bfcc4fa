//! The linear layer: a matrix product with the bias and the activation fused behind it.
//!
//! `output = activation(input · weightᵀ + bias)`, and the gradients of all operands.

mod activation;
mod backward;
mod forward;

pub use activation::Activation;
pub use backward::Gradients;
pub use forward::Linear;

#[cfg(test)]
mod tests;
