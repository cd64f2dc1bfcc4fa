//! Attention, recurrent cells and the matrix product behind them, for any number of threads.
//!
//! Nothing here knows Python. A kernel takes a struct of views ([`view`]), checks the shapes once
//! ([`Error`]), splits its output into blocks that a [`parallel::Team`] works off, and runs each
//! block on the best instruction set of the CPU. Results never depend on the size of the team.

pub mod activation;
pub mod attention;
pub mod embeddings;
mod error;
pub mod gemm;
pub mod linear;
pub mod math;
pub mod parallel;
pub mod peak;
pub mod rnn;
pub mod scratch;
pub mod view;

pub use error::{Error, Result};
