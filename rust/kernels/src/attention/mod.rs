//! Attention, `softmax(scale · Q·Kᵀ + mask) · V`, and its gradients, without ever holding all scores.
//!
//! A task takes a block of queries, transposed once, so that **queries fill the vectors**: scores
//! come as `(keys, queries)` straight from the rows of K, softmax runs down the columns without
//! crossing lanes, and the probabilities are at once the right operand of the product with Vᵀ.
//! The derivation is in `docs/kernels/attention.md`.

mod ahead;
mod backward;
mod forward;
mod mask;
mod params;
pub mod reference;
mod score;
mod softmax;
mod tile;

pub use backward::{Gradients, Saved, Upstream, backward};
pub use forward::forward;
pub use mask::Mask;
pub use params::Attention;
pub use score::{Alignment, Band, Score};

#[cfg(test)]
mod tests;
