//! A library that this process has loaded already.

use std::ffi::{CStr, c_void};

/// libtorch's C++ part; it stays loaded as long as the process lives.
pub(super) struct LoadedLibrary(*mut c_void);

#[cfg(unix)]
impl LoadedLibrary {
    /// The library, by its name or else by its path in `folder`; never loads anything.
    pub(super) fn find(folder: &str) -> Option<Self> {
        let name = if cfg!(target_os = "macos") { "libtorch_cpu.dylib" } else { "libtorch_cpu.so" };
        [name.to_owned(), format!("{folder}/{name}")].into_iter().find_map(|place| {
            let place = std::ffi::CString::new(place).ok()?;
            // SAFETY: the argument is a C string; without loading, no initialiser runs.
            let library =
                unsafe { libc::dlopen(place.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
            (!library.is_null()).then_some(Self(library))
        })
    }

    /// The address of a function, in the library or what it depends on.
    pub(super) fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the handle came from `dlopen` and is never closed; the name is a C string.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
}

#[cfg(windows)]
mod kernel32 {
    use std::ffi::{c_char, c_void};

    #[link(name = "kernel32")]
    unsafe extern "system" {
        pub(super) fn GetModuleHandleA(name: *const c_char) -> *mut c_void;
        pub(super) fn GetProcAddress(module: *mut c_void, name: *const c_char) -> *mut c_void;
    }
}

#[cfg(windows)]
impl LoadedLibrary {
    /// The library, by its name, which is unique in a Windows process.
    pub(super) fn find(_folder: &str) -> Option<Self> {
        // SAFETY: the argument is a C string; nothing is loaded.
        let library = unsafe { kernel32::GetModuleHandleA(c"torch_cpu.dll".as_ptr()) };
        (!library.is_null()).then_some(Self(library))
    }

    /// The address of a function of the library.
    pub(super) fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the handle is of a loaded module; the name is a C string.
        let address = unsafe { kernel32::GetProcAddress(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
}
