//! Elementary functions on vectors: exponential, logarithm, and the activations built on them.

mod activation;
mod exponential;

pub use activation::{relu, sigmoid, silu, silu_derivative, tanh};
pub use exponential::{Elementary, exp, exp2, exp2_minus_one, ln};

#[cfg(test)]
mod tests;
