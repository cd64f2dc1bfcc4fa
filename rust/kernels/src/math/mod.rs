//! Elementary functions on vectors: exponential, logarithm, and the activations built on them.

mod activation;
mod exponential;
mod normal;

pub use activation::{relu, sigmoid, silu, silu_derivative, tanh};
pub use exponential::{Elementary, exp, exp2, exp2_product, exp2_short, ln};
pub use normal::{Normal, erf, gelu, gelu_derivative, gelu_tanh, gelu_tanh_derivative};

#[cfg(test)]
mod tests;
