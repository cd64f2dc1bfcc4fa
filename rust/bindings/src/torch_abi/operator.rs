//! Operators in PyTorch's dispatcher.

use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use fusewire_kernels::parallel::Team;

use super::Handle;
use super::symbols::{check, symbols};
use super::team::TorchTeam;
use super::value::{Arguments, Results};
use crate::gate::{Failure, Result, contain};

/// A function of tensors with the name and the types of its schema in Python.
pub(crate) trait Operator {
    /// The name in its library's namespace.
    const NAME: &CStr;
    /// The schema's arguments.
    type Arguments: Arguments;
    /// The schema's results.
    type Results: Results;

    /// Computes the results; no Python object may be touched, the interpreter is detached.
    fn call(arguments: Self::Arguments, team: &dyn Team) -> Result<Self::Results>;
}

/// CPU kernels of operators; they stay registered as long as the value lives.
pub(crate) struct Library(Handle);

// SAFETY: libtorch's registrations are behind a lock of its own.
unsafe impl Send for Library {}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and used no more.
        unsafe { (symbols().aoti_torch_delete_library_object)(self.0) };
    }
}

impl Library {
    /// Opens a namespace for kernels of the CPU.
    pub(crate) fn open(namespace: &CStr) -> Result<Self> {
        let mut library = null_mut();
        // SAFETY: the strings end with NUL, and the last argument is a place for the library.
        let status = unsafe {
            (symbols().aoti_torch_library_init_impl)(
                namespace.as_ptr(),
                c"CPU".as_ptr(),
                c"fusewire".as_ptr(),
                0,
                &mut library,
            )
        };
        check(status, "open a library of operators").map(|()| Self(library))
    }

    /// Registers the kernel of an operator.
    pub(crate) fn add<O: Operator>(&self) -> Result<()> {
        // SAFETY: the library is live, the name ends with NUL, and the kernel is for its schema.
        let status =
            unsafe { (symbols().aoti_torch_library_impl)(self.0, O::NAME.as_ptr(), kernel::<O>) };
        check(status, "register an operator")
    }
}

/// What the dispatcher calls; a failure leaves as PyTorch's own exception.
unsafe extern "C-unwind" fn kernel<O: Operator>(stack: *mut u64, inputs: u64, outputs: u64) {
    let outcome = contain(|| {
        assert_eq!((inputs, outputs), (O::Arguments::COUNT as u64, O::Results::COUNT as u64));
        // SAFETY: the schema declares these arguments, and libtorch gives them to us to own.
        let arguments = unsafe { O::Arguments::read(stack) }?;
        O::call(arguments, &TorchTeam)
    });
    match outcome {
        // SAFETY: the schema declares these results, and the stack is as long as the longer of
        // arguments and results.
        Ok(results) => unsafe { results.write(stack) },
        Err(failure) => throw(O::NAME, &failure),
    }
}

/// Throws a `c10::Error`, which PyTorch makes a `RuntimeError`: the shim knows no other kind, so the
/// message begins with the exception that Python shall raise.
fn throw(operator: &CStr, failure: &Failure) {
    let (kind, message) = failure.parts();
    let text = CString::new(format!("{kind}: {message}")).unwrap_or_default();
    // SAFETY: the strings end with NUL; the exception unwinds through frames that permit it
    // ("C-unwind"), and copies the message first.
    unsafe {
        (symbols().aoti_torch_check)(
            false,
            operator.as_ptr(),
            c"fusewire".as_ptr(),
            0,
            text.as_ptr(),
        );
    }
}
