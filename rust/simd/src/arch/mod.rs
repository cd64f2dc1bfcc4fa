//! One folder entry per instruction set; the only intrinsics of the project.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;

/// Calls intrinsics inside a method of a token.
#[cfg(target_arch = "x86_64")]
macro_rules! proved {
    ($call:expr) => {{
        // SAFETY: the token in `self` exists only where detection found these instructions; what
        // the method's own contract asks of its pointers, the caller has promised.
        unsafe { $call }
    }};
}
#[cfg(target_arch = "x86_64")]
pub(crate) use proved;

/// A function for `Lanes::tie`, which is inlined only into what is compiled for the same instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! tie {
    ($name:ident, $feature:literal, $register:ident, $vector:ty) => {
        #[inline]
        #[target_feature(enable = $feature)]
        fn $name(mut a: $vector, mut b: $vector) -> ($vector, $vector) {
            // SAFETY: no instruction at all.
            unsafe {
                asm!(
                    "/* {0} {1} */",
                    inout($register) a,
                    inout($register) b,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            (a, b)
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use tie;

/// A function for `Lanes::in_turn`.
#[cfg(target_arch = "x86_64")]
macro_rules! in_turn {
    ($name:ident, $feature:literal, $register:ident, $vector:ty) => {
        #[inline]
        #[target_feature(enable = $feature)]
        fn $name(mut offset: isize, mut sum: $vector) -> (isize, $vector) {
            // SAFETY: no instruction at all.
            unsafe {
                asm!(
                    "/* {0} {1} */",
                    inout(reg) offset,
                    inout($register) sum,
                    options(nostack, preserves_flags)
                );
            }
            (offset, sum)
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use in_turn;

/// Methods of `Lanes` that are one intrinsic of the vectors' own type.
#[cfg(target_arch = "x86_64")]
macro_rules! single_intrinsics {
    ($number:ty: $splat:ident $add:ident $sub:ident $mul:ident $div:ident $min:ident $max:ident
        $mul_add:ident $neg_mul_add:ident $load:ident $store:ident) => {
        #[inline(always)]
        fn splat(self, x: $number) -> Self::Vector {
            proved!($splat(x))
        }
        #[inline(always)]
        fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            proved!($add(a, b))
        }
        #[inline(always)]
        fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            proved!($sub(a, b))
        }
        #[inline(always)]
        fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            proved!($mul(a, b))
        }
        #[inline(always)]
        fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            proved!($div(a, b))
        }
        #[inline(always)]
        fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            proved!($min(a, b))
        }
        #[inline(always)]
        fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            proved!($max(a, b))
        }
        #[inline(always)]
        fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
            proved!($mul_add(a, b, c))
        }
        #[inline(always)]
        fn neg_mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
            proved!($neg_mul_add(a, b, c))
        }
        #[inline(always)]
        unsafe fn load_pointer(self, source: *const $number) -> Self::Vector {
            proved!($load(source))
        }
        #[inline(always)]
        unsafe fn store_pointer(self, target: *mut $number, a: Self::Vector) {
            proved!($store(target, a));
        }
        #[inline(always)]
        fn prefetch(self, target: *const $number) {
            proved!(_mm_prefetch::<_MM_HINT_T0>(target.cast()));
        }
        #[inline(always)]
        fn prefetch_second(self, target: *const $number) {
            proved!(_mm_prefetch::<_MM_HINT_T1>(target.cast()));
        }
        #[inline(always)]
        fn prefetch_write(self, target: *mut $number) {
            proved!(_mm_prefetch::<_MM_HINT_ET0>(target.cast_const().cast()));
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use single_intrinsics;
