//! Elementary functions on vectors: exponential, logarithm, and the activations built on them.

mod activation;
mod constants;
mod exponential;
mod normal;

pub use activation::{relu, sigmoid, silu, silu_derivative, tanh};
pub use constants::Elementary;
pub use exponential::{exp, exp2, exp2_product, exp2_short, ln};
pub use normal::{gelu, gelu_derivative, gelu_tanh, gelu_tanh_derivative};

#[cfg(test)]
mod tests;
