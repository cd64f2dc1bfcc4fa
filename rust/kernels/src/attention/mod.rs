//! Attention, `softmax(scale · Q·Kᵀ + mask) · V`, and its gradients, without ever holding all scores.
//!
//! A task takes a block of queries, transposed once, so that **queries fill the vectors**: scores
//! come as `(keys, queries)` straight from the rows of K, softmax runs down the columns without
//! crossing lanes, and the probabilities are at once the right operand of the product with Vᵀ.
//! The derivation is in `docs/kernels/attention.md`.

mod ahead;
mod backward;
pub mod decode;
mod dropout;
mod forward;
mod mask;
mod operand;
mod params;
mod reach;
pub mod reference;
mod score;
mod sequences;
mod softmax;
mod tile;

pub use backward::{
    Gradients, Pass, Saved, Upstream, backward, mask_backward, sinks_backward, slopes_backward,
};
pub use dropout::Dropout;
pub use forward::forward;
pub use mask::Mask;
pub use params::Attention;
pub use reach::{Alignment, Band};
pub use score::Score;
pub use sequences::{Sequences, offsets};

#[cfg(test)]
mod tests;
