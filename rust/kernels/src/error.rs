//! The one error of this crate.

use std::fmt;

/// Why a kernel refused its arguments; the message is in the caller's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A shape or a value that cannot be worked with: what was expected, and what came.
    Value(String),
    /// A size that does not fit in memory or in an address.
    Memory(String),
}

impl Error {
    /// `name` should have had the shape `expected`.
    pub fn shape(name: &str, expected: &[usize], got: &[usize]) -> Self {
        Self::Value(format!("{name} must have shape {expected:?}, but has {got:?}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(message) | Self::Memory(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Whether the shape of `name` is the one that was expected.
pub(crate) fn expect_shape(name: &str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::shape(name, expected, got)) }
}
