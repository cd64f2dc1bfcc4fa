//! The one way from Python into a kernel, and from a kernel's failure to an exception.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fusewire_kernels::Error;
use fusewire_kernels::parallel::Team;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::{PyErr, PyResult, Python};

use crate::team::with_team;

/// Why a call failed, with a message in the caller's words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A shape or a value that cannot be worked with.
    Value(String),
    /// A kind of number, array or tensor that is not served.
    Type(String),
    /// Memory that cannot be had.
    Memory(String),
    /// A fault of ours.
    Internal(String),
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The name of the Python exception, and the message.
    pub(crate) fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Value(message) => ("ValueError", message),
            Self::Type(message) => ("TypeError", message),
            Self::Memory(message) => ("MemoryError", message),
            Self::Internal(message) => ("RuntimeError", message),
        }
    }

    fn from_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Self::Internal(format!("fusewire has a fault, please report it: {text}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Value(message) => Self::Value(message),
            Error::Memory(message) => Self::Memory(message),
        }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Value(message) => PyValueError::new_err(message),
            Failure::Type(message) => PyTypeError::new_err(message),
            Failure::Memory(message) => PyMemoryError::new_err(message),
            Failure::Internal(message) => PyRuntimeError::new_err(message),
        }
    }
}

/// Runs `work` so that a panic becomes a [`Failure`]; refuses where `FUSEWIRE_ISA` is wrong.
pub(crate) fn contain<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    fusewire_simd::selected().map_err(Failure::Value)?;
    // Nothing that `work` could leave half-changed is looked at after a panic.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(Failure::from_panic(payload.as_ref())))
}

/// Runs `work` on the process's team of threads while other Python threads go on.
pub(crate) fn enter<R: Send>(
    py: Python<'_>,
    work: impl FnOnce(&dyn Team) -> Result<R> + Send,
) -> PyResult<R> {
    Ok(py.detach(|| contain(|| with_team(work)))?)
}

/// Nothing for operands that are not ours; who asks then goes through the dispatcher.
pub(crate) fn served<R>(results: Result<R>) -> Result<Option<R>> {
    match results {
        Err(Failure::Value(_) | Failure::Type(_)) => Ok(None),
        results => results.map(Some),
    }
}
