//! Tensors straight from Python and back, past the dispatcher.
//!
//! What the dispatcher does between Python and a kernel costs more than a small kernel itself. The
//! caller in Python sees to it that nothing waits there: no mode, no transform, no autograd.

use std::ffi::c_void;
use std::ptr::null_mut;

use pyo3::prelude::*;
use pyo3::{Borrowed, IntoPyObject};

use super::symbols::{Python as Bridge, check, is_attached, symbols};
use super::tensor::Tensor;
use crate::gate::{Failure, Result};

/// Whether this process's PyTorch has the way from Python's tensors to ours.
pub(crate) fn takes_tensors() -> bool {
    is_attached() && symbols().python.is_some()
}

fn bridge() -> Result<&'static Bridge> {
    let bridge = if is_attached() { symbols().python.as_ref() } else { None };
    bridge.ok_or_else(|| Failure::Internal("no PyTorch passes tensors in this process".into()))
}

impl<'py> FromPyObject<'_, 'py> for Tensor {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let mut handle = null_mut();
        // SAFETY: the object is alive and the interpreter attached; the last argument is a place
        // for the handle, which is ours.
        let status = unsafe { (bridge()?.read)(object.as_ptr().cast::<c_void>(), &mut handle) };
        if status == 0 {
            // SAFETY: the handle is a new reference.
            Ok(unsafe { Self::from_handle(handle) })
        } else {
            let kind = object.get_type().name()?;
            Err(Failure::Type(format!("expected a PyTorch tensor, but got {kind}")).into())
        }
    }
}

impl<'py> IntoPyObject<'py> for Tensor {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let mut object = null_mut();
        // SAFETY: the handle is live, the interpreter attached, and the last argument a place for
        // the reference.
        let status = unsafe { (bridge()?.write)(self.handle(), null_mut(), &mut object) };
        check(status, "hand a tensor to Python")?;
        // SAFETY: the reference is new and ours.
        Ok(unsafe { Bound::from_owned_ptr(py, object.cast::<pyo3::ffi::PyObject>()) })
    }
}
