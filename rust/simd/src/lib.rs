//! Vectors of lanes behind a token that proves the instructions exist.
//!
//! An instruction-set token ([`Isa`]) can be built by detection only, so whoever holds one may use
//! its vectors without `unsafe`. A kernel is written once, generic over the token ([`Kernel`]), and
//! handed to [`Element::dispatch`], which detects the CPU once per process and calls the kernel inside
//! a function compiled for the best instruction set (or the one that `FUSEWIRE_ISA` asks for).
//!
//! ```
//! use fusewire_simd::{Element, Kernel, Lanes};
//!
//! struct Sum<'a>(&'a [f32]);
//!
//! impl Kernel<f32> for Sum<'_> {
//!     type Output = f32;
//!     #[inline(always)]
//!     fn run<I: Lanes<f32>>(self, isa: I) -> f32 {
//!         let mut sum = isa.zero();
//!         for part in self.0.chunks(I::LANES) {
//!             sum = isa.add(sum, isa.load_first(part));
//!         }
//!         isa.sum_lanes(sum)
//!     }
//! }
//!
//! assert_eq!(f32::dispatch(Sum(&[1.0; 37])), 37.0);
//! ```
//!
//! Everything below a kernel's `run` must be `#[inline(always)]`: a function that is not inlined is
//! compiled for the baseline CPU, where each vector operation becomes a call.

mod abreast;
pub mod arch;
mod dispatch;
mod element;
mod float_mode;
mod half;
mod lanes;
mod storage;
#[cfg(test)]
mod tests;

pub use abreast::Abreast;
pub use dispatch::{HeldSelection, IsaName, Selection, available, detected, on_each_isa, selected};
pub use element::{Element, Factor, Pair, Plain, Real, bytes};
pub use float_mode::{FloatMode, HeldMode};
pub use half::{Bf16, F16, LoneBf16};
pub use lanes::{Isa, Kernel, Lanes};
pub use storage::{HalfLanes, Storage};
