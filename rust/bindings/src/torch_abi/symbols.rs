//! The functions of libtorch's C shim that we call.
//!
//! Their contract is `torch/csrc/inductor/aoti_torch/c/shim.h` and `torch/csrc/stable/c/shim.h`:
//! all but `aoti_torch_check` return 0 for success and never unwind.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use super::Handle;
use super::loaded::LoadedLibrary;
use crate::gate::{Failure, Result};

/// The code that shim functions return: 0 for success.
pub(super) type Status = i32;

/// An operator's kernel as libtorch calls it: arguments in, results out, on one stack.
pub(super) type BoxedKernel = unsafe extern "C-unwind" fn(*mut u64, u64, u64);

/// A task of a parallel loop: the range of its indices and the context.
pub(super) type RangeTask = unsafe extern "C" fn(i64, i64, *mut c_void);

macro_rules! symbols {
    ($($name:ident: fn($($argument:ty),*) $(-> $returns:ty)?;)*) => {
        /// Addresses in libtorch, resolved once.
        #[allow(non_snake_case)] // the names are libtorch's
        pub(super) struct Symbols {
            $(pub(super) $name: unsafe extern "C-unwind" fn($($argument),*) $(-> $returns)?,)*
            pub(super) free_value: unsafe extern "C-unwind" fn(*mut u64),
            pub(super) python: Option<Python>,
            pub(super) constants: Constants,
        }

        impl Symbols {
            #[allow(non_snake_case)]
            fn resolve(library: &LoadedLibrary) -> Option<Self> {
                $(
                    let name = CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes());
                    let $name = library.symbol(name.ok()?)?;
                    // SAFETY: the function of this name has this signature, as libtorch's headers
                    // promise for at least two years after a release.
                    let $name = unsafe {
                        std::mem::transmute::<
                            *mut c_void,
                            unsafe extern "C-unwind" fn($($argument),*) $(-> $returns)?,
                        >($name)
                    };
                )*
                Some(Self {
                    $($name,)*
                    free_value: resolve_free_value(library)?,
                    python: Python::resolve(library),
                    constants: Constants::resolve(library)?,
                })
            }
        }
    };
}

symbols! {
    aoti_torch_delete_tensor_object: fn(Handle) -> Status;
    aoti_torch_is_defined: fn(Handle, *mut bool) -> Status;
    aoti_torch_get_dim: fn(Handle, *mut i64) -> Status;
    aoti_torch_get_sizes: fn(Handle, *mut *mut i64) -> Status;
    aoti_torch_get_strides: fn(Handle, *mut *mut i64) -> Status;
    aoti_torch_get_dtype: fn(Handle, *mut i32) -> Status;
    aoti_torch_get_device_type: fn(Handle, *mut i32) -> Status;
    aoti_torch_get_data_ptr: fn(Handle, *mut *mut c_void) -> Status;
    aoti_torch_empty_strided:
        fn(i64, *const i64, *const i64, i32, i32, i32, *mut Handle) -> Status;
    aoti_torch_check: fn(bool, *const c_char, *const c_char, u32, *const c_char);
    aoti_torch_library_init_impl:
        fn(*const c_char, *const c_char, *const c_char, u32, *mut Handle) -> Status;
    aoti_torch_library_impl: fn(Handle, *const c_char, BoxedKernel) -> Status;
    aoti_torch_delete_library_object: fn(Handle) -> Status;
    aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu:
        fn(Handle, Handle, Handle, f64, i32, *const Handle, *const f64, *mut Handle, *mut Handle)
        -> Status;
    aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu_backward:
        fn(
            Handle, Handle, Handle, Handle, Handle, Handle, f64, i32, *const Handle, *const f64,
            *mut Handle, *mut Handle, *mut Handle
        ) -> Status;
    torch_parallel_for: fn(i64, i64, i64, RangeTask, *mut c_void) -> Status;
    torch_get_num_threads: fn(*mut u32) -> Status;
    torch_list_size: fn(Handle, *mut usize) -> Status;
    torch_list_get_item: fn(Handle, usize, *mut u64) -> Status;
    torch_delete_list: fn(Handle) -> Status;
    torch_string_length: fn(Handle, *mut usize) -> Status;
    torch_string_c_str: fn(Handle, *mut *const c_char) -> Status;
    torch_delete_string: fn(Handle) -> Status;
}

/// Frees the box that an optional argument comes in: by the shim from PyTorch 2.13 on; before, by
/// C++'s `operator delete`, which is what libtorch's own header calls there.
fn resolve_free_value(library: &LoadedLibrary) -> Option<unsafe extern "C-unwind" fn(*mut u64)> {
    let found = library
        .symbol(c"torch_delete_stable_ivalue")
        .or_else(|| library.symbol(c"_ZdlPv"))
        .or_else(|| library.symbol(c"free"))?;
    // SAFETY: each takes one pointer, and none returns anything that must be looked at: the shim's
    // status is a plain integer in a scratch register.
    Some(unsafe {
        std::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn(*mut u64)>(found)
    })
}

/// The way from Python's tensors to handles and back; there from PyTorch 2.14 on.
pub(super) struct Python {
    /// From a `PyObject` to a new handle.
    pub(super) read: unsafe extern "C-unwind" fn(*mut c_void, *mut Handle) -> Status,
    /// From a handle to a new reference, of the class that the second argument is or of the default.
    pub(super) write: unsafe extern "C-unwind" fn(Handle, *mut c_void, *mut *mut c_void) -> Status,
}

impl Python {
    fn resolve(library: &LoadedLibrary) -> Option<Self> {
        let read = library.symbol(c"torch_tensor_from_pyobject")?;
        let write = library.symbol(c"torch_tensor_to_pyobject")?;
        // SAFETY: the functions of these names have these signatures in libtorch's header.
        Some(unsafe {
            Self {
                read: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C-unwind" fn(*mut c_void, *mut Handle) -> Status,
                >(read),
                write: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C-unwind" fn(Handle, *mut c_void, *mut *mut c_void) -> Status,
                >(write),
            }
        })
    }
}

/// libtorch's codes for what we serve.
pub(super) struct Constants {
    pub(super) cpu: i32,
    pub(super) float32: i32,
    pub(super) float64: i32,
    pub(super) bfloat16: i32,
    pub(super) float16: i32,
    pub(super) bool: i32,
    pub(super) int32: i32,
    pub(super) int64: i32,
}

impl Constants {
    fn resolve(library: &LoadedLibrary) -> Option<Self> {
        let read = |name| {
            let getter = library.symbol(name)?;
            // SAFETY: libtorch's constant getters take nothing and return an `int32_t`.
            Some(unsafe {
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> i32>(getter)()
            })
        };
        Some(Self {
            cpu: read(c"aoti_torch_device_type_cpu")?,
            float32: read(c"aoti_torch_dtype_float32")?,
            float64: read(c"aoti_torch_dtype_float64")?,
            bfloat16: read(c"aoti_torch_dtype_bfloat16")?,
            float16: read(c"aoti_torch_dtype_float16")?,
            bool: read(c"aoti_torch_dtype_bool")?,
            int32: read(c"aoti_torch_dtype_int32")?,
            int64: read(c"aoti_torch_dtype_int64")?,
        })
    }
}

static SYMBOLS: OnceLock<Symbols> = OnceLock::new();

/// Finds libtorch in this process; `folder` is where PyTorch keeps its libraries.
pub(crate) fn attach(folder: &str, version: &str) -> Result<()> {
    if is_attached() {
        return Ok(());
    }
    let library = LoadedLibrary::find(folder).ok_or_else(|| {
        Failure::Internal(format!("PyTorch {version} is imported, but its library was not found"))
    })?;
    let symbols = Symbols::resolve(&library).ok_or_else(|| {
        Failure::Internal(format!("fusewire needs PyTorch 2.10 or newer, but found {version}"))
    })?;
    // A second thread may have been quicker, with the same addresses.
    let _ = SYMBOLS.set(symbols);
    Ok(())
}

/// Whether [`attach`] has succeeded.
pub(crate) fn is_attached() -> bool {
    SYMBOLS.get().is_some()
}

/// The functions; to be called by what exists only after [`attach`].
pub(super) fn symbols() -> &'static Symbols {
    match SYMBOLS.get() {
        Some(symbols) => symbols,
        None => unreachable!("tensors and operators exist only after libtorch was found"),
    }
}

/// Turns the code of a shim function into a result.
pub(super) fn check(status: Status, what: &str) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(Failure::Internal(format!("PyTorch could not {what}"))) }
}
