//! Arguments and results on the dispatcher's stack: each is 64 bits, read by its type in the schema.

use std::ffi::c_char;
use std::ptr::null;

use super::Handle;
use super::symbols::{check, symbols};
use super::tensor::Tensor;
use crate::gate::Result;

/// What a schema's argument type becomes in Rust.
pub(crate) trait Argument: Sized {
    /// Reads the argument, and takes over what it owns.
    ///
    /// # Safety
    /// `value` must encode this type, and must be read once only.
    unsafe fn read(value: u64) -> Result<Self>;

    /// Whether an optional argument with this value is there.
    fn is_given(&self) -> bool {
        true
    }
}

/// All arguments of an operator.
pub(crate) trait Arguments: Sized {
    /// The number of arguments.
    const COUNT: usize;

    /// Reads the arguments from the bottom of the stack.
    ///
    /// # Safety
    /// The stack must hold `COUNT` values of these types, which are read once only.
    unsafe fn read(stack: *const u64) -> Result<Self>;
}

/// All results of an operator.
pub(crate) trait Results {
    /// The number of results.
    const COUNT: usize;

    /// Writes the results from the bottom of the stack on.
    ///
    /// # Safety
    /// The stack must have room for `COUNT` values.
    unsafe fn write(self, stack: *mut u64);
}

/// `Tensor`.
impl Argument for Tensor {
    unsafe fn read(value: u64) -> Result<Self> {
        // SAFETY: the caller says that this is a tensor, which comes as an owned handle.
        Ok(unsafe { Self::from_handle(value as Handle) })
    }

    /// PyTorch's autograd passes what was not given as a tensor that is not defined.
    fn is_given(&self) -> bool {
        self.is_defined()
    }
}

/// `int`.
impl Argument for i64 {
    unsafe fn read(value: u64) -> Result<Self> {
        Ok(value.cast_signed())
    }
}

/// `float`.
impl Argument for f64 {
    unsafe fn read(value: u64) -> Result<Self> {
        Ok(Self::from_bits(value))
    }
}

/// `bool`.
impl Argument for bool {
    unsafe fn read(value: u64) -> Result<Self> {
        Ok(value as u8 != 0)
    }
}

/// `T?`: nothing, or the address of a box that is ours to free.
impl<T: Argument> Argument for Option<T> {
    unsafe fn read(value: u64) -> Result<Self> {
        let boxed = value as *mut u64;
        if boxed.is_null() {
            return Ok(None);
        }
        // SAFETY: the box holds one value of type `T`, and is freed once it has been read.
        unsafe {
            let inner = T::read(*boxed);
            (symbols().free_value)(boxed);
            inner.map(|value| value.is_given().then_some(value))
        }
    }
}

/// `T[]`.
impl<T: Argument> Argument for Vec<T> {
    unsafe fn read(value: u64) -> Result<Self> {
        let list = value as Handle;
        // SAFETY: the list is ours, its values are read once each, and it is deleted at the end;
        // deleting a list does not touch what its values own.
        unsafe {
            let mut len = 0;
            let mut outcome = check((symbols().torch_list_size)(list, &mut len), "read a list");
            let mut values = Self::with_capacity(len);
            for index in 0..len {
                let mut item = 0;
                let status = (symbols().torch_list_get_item)(list, index, &mut item);
                match check(status, "read a list").and_then(|()| T::read(item)) {
                    Ok(value) => values.push(value),
                    Err(failure) => outcome = Err(failure),
                }
            }
            (symbols().torch_delete_list)(list);
            outcome.map(|()| values)
        }
    }
}

/// `str`, in memory of libtorch.
pub(crate) struct Text(Handle);

impl Argument for Text {
    unsafe fn read(value: u64) -> Result<Self> {
        Ok(Self(value as Handle))
    }
}

impl Text {
    /// The text; what is not UTF-8 reads as empty.
    pub(crate) fn as_str(&self) -> &str {
        let (mut len, mut start): (usize, *const c_char) = (0, null());
        // SAFETY: the handle is a live string, whose bytes stay where they are while it is borrowed.
        let bytes = unsafe {
            (symbols().torch_string_length)(self.0, &mut len);
            (symbols().torch_string_c_str)(self.0, &mut start);
            if start.is_null() { &[] } else { std::slice::from_raw_parts(start.cast::<u8>(), len) }
        };
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: the handle is owned, and used no more.
        unsafe { (symbols().torch_delete_string)(self.0) };
    }
}

impl Results for Tensor {
    const COUNT: usize = 1;

    unsafe fn write(self, stack: *mut u64) {
        // SAFETY: the stack has room for one value; libtorch takes the handle over.
        unsafe { *stack = self.into_handle() as u64 };
    }
}

macro_rules! tuples {
    ($count:literal: $($name:ident $place:literal),+) => {
        #[allow(non_snake_case)]
        impl<$($name: Argument),+> Arguments for ($($name,)+) {
            const COUNT: usize = $count;

            unsafe fn read(stack: *const u64) -> Result<Self> {
                // All are read before the first failure is looked at, so that none leaks.
                // SAFETY: the caller promised values of these types.
                $(let $name = unsafe { $name::read(*stack.add($place)) };)+
                Ok(($($name?,)+))
            }
        }
    };
}

tuples!(1: A 0);
tuples!(2: A 0, B 1);
tuples!(3: A 0, B 1, C 2);
tuples!(4: A 0, B 1, C 2, D 3);
tuples!(5: A 0, B 1, C 2, D 3, E 4);
tuples!(6: A 0, B 1, C 2, D 3, E 4, F 5);
tuples!(7: A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuples!(8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
tuples!(9: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);
tuples!(10: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9);
tuples!(11: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10);
tuples!(12: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11);
tuples!(13: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12);
tuples!(14: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13);
tuples!(15: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14);

/// The arguments of `A`, then those of `B`.
pub(crate) struct Joined<A, B>(pub(crate) A, pub(crate) B);

impl<A: Arguments, B: Arguments> Arguments for Joined<A, B> {
    const COUNT: usize = A::COUNT + B::COUNT;

    unsafe fn read(stack: *const u64) -> Result<Self> {
        // Both are read before the first failure is looked at, so that none leaks.
        // SAFETY: the caller promised values of these types.
        let (first, second) = unsafe { (A::read(stack), B::read(stack.add(A::COUNT))) };
        Ok(Self(first?, second?))
    }
}

impl<const N: usize> Results for [Tensor; N] {
    const COUNT: usize = N;

    unsafe fn write(self, stack: *mut u64) {
        for (place, tensor) in self.into_iter().enumerate() {
            // SAFETY: the stack has room for `N` values; libtorch takes the handle over.
            unsafe { *stack.add(place) = tensor.into_handle() as u64 };
        }
    }
}
