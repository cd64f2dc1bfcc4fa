//! Detection once per process, the `FUSEWIRE_ISA` override, and the door into a kernel.

use std::cell::Cell;
use std::convert::identity;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::arch::portable::Portable;
#[cfg(target_arch = "x86_64")]
use crate::arch::{amx::Tiles, avx2::Avx2, avx512::Avx512};
use crate::{Bf16, Element, F16, Isa, Kernel, LoneBf16, Pair};

/// An instruction set by name, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum IsaName {
    /// What every CPU of the target has.
    Portable = 1,
    /// x86-64 with AVX2 and FMA.
    Avx2 = 2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512 = 3,
    /// The same with its dot product of `bfloat16` pairs; other types run as on [`Self::Avx512`].
    Avx512Bf16 = 4,
    /// The same with matrix tiles of those pairs, which multiply whole blocks.
    Amx = 5,
}

const ALL: [IsaName; 5] =
    [IsaName::Portable, IsaName::Avx2, IsaName::Avx512, IsaName::Avx512Bf16, IsaName::Amx];

impl IsaName {
    /// The name that `FUSEWIRE_ISA` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Portable => Portable::NAME,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::NAME,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::<false>::NAME,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Avx512::<true>::NAME,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Tiles::NAME,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Avx512Bf16 | Self::Amx => "absent",
        }
    }

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::<false>::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Avx512::<true>::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Avx512::<true>::detect_with_tiles().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Avx512Bf16 | Self::Amx => false,
        }
    }
}

impl fmt::Display for IsaName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for IsaName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let available: Vec<_> = available().map(IsaName::as_str).collect();
        let found = ALL.into_iter().find(|isa| isa.as_str() == text && isa.is_available());
        found.ok_or_else(|| {
            format!(
                "FUSEWIRE_ISA must be one of {} on this CPU, but it is {text:?}",
                available.join(", ")
            )
        })
    }
}

/// The instruction sets of this CPU, from the least to the most capable.
pub fn available() -> impl Iterator<Item = IsaName> {
    ALL.into_iter().filter(|isa| isa.is_available())
}

/// The most capable instruction set of this CPU.
pub fn detected() -> IsaName {
    static DETECTED: OnceLock<IsaName> = OnceLock::new();
    *DETECTED.get_or_init(|| available().last().unwrap_or(IsaName::Portable))
}

/// 0 until the first use; then the name in force.
static SELECTED: AtomicU8 = AtomicU8::new(0);

thread_local! {
    /// What this thread was told to run on, whatever the process has selected.
    static OF_THREAD: Cell<Option<IsaName>> = const { Cell::new(None) };
}

/// The instruction set that kernels run on: the detected one, or the one that `FUSEWIRE_ISA` names.
///
/// # Errors
/// If `FUSEWIRE_ISA` names an instruction set that does not exist or that this CPU lacks.
pub fn selected() -> Result<IsaName, String> {
    if let Some(isa) = OF_THREAD.get() {
        return Ok(isa);
    }
    match SELECTED.load(Ordering::Relaxed) {
        1 => Ok(IsaName::Portable),
        2 => Ok(IsaName::Avx2),
        3 => Ok(IsaName::Avx512),
        4 => Ok(IsaName::Avx512Bf16),
        5 => Ok(IsaName::Amx),
        _ => {
            let isa = match std::env::var("FUSEWIRE_ISA") {
                Ok(name) if !name.is_empty() => name.parse()?,
                _ => detected(),
            };
            SELECTED.store(isa as u8, Ordering::Relaxed);
            Ok(isa)
        }
    }
}

/// What this thread was told to run on, to be told to the threads that work for it.
#[derive(Clone, Copy, Debug)]
pub struct Selection(Option<IsaName>);

impl Selection {
    /// That of the calling thread.
    pub fn of_thread() -> Self {
        Self(OF_THREAD.get())
    }

    /// Makes it that of the calling thread, until the guard is dropped.
    pub fn hold(self) -> HeldSelection {
        HeldSelection(Self(OF_THREAD.replace(self.0)))
    }
}

/// See [`Selection::hold`].
#[derive(Debug)]
pub struct HeldSelection(Selection);

impl Drop for HeldSelection {
    fn drop(&mut self) {
        OF_THREAD.set(self.0.0);
    }
}

/// Calls `work` on each instruction set of this CPU, from the least to the most capable.
///
/// What `work` calls runs on that instruction set; other threads do not notice.
pub fn on_each_isa(mut work: impl FnMut(IsaName)) {
    for isa in available() {
        let _held = Selection(Some(isa)).hold();
        work(isa);
    }
}

/// The instruction set that kernels run on, or would if `FUSEWIRE_ISA` named one.
fn in_force() -> IsaName {
    selected().unwrap_or_else(|_| detected())
}

/// What tells kernels on factors where to run: for pairs (`true`) where the CPU multiplies those.
macro_rules! multiplying {
    (false) => {
        fn multiplies_factors() -> bool {
            true
        }

        fn dispatch_multiplying<K: Kernel<Self>>(kernel: K) -> K::Output {
            Self::dispatch(kernel)
        }
    };
    (true) => {
        fn multiplies_factors() -> bool {
            in_force() >= IsaName::Avx512Bf16
        }

        fn dispatch_multiplying<K: Kernel<Self>>(kernel: K) -> K::Output {
            #[cfg(target_arch = "x86_64")]
            if Self::multiplies_factors()
                && let Some(isa) = multiplying_pairs(in_force())
            {
                return isa.vectorize(kernel);
            }
            let _ = kernel;
            panic!("{} multiplies no pairs", in_force())
        }
    };
}

/// The token of `name`, which has pairs.
#[cfg(target_arch = "x86_64")]
fn multiplying_pairs(name: IsaName) -> Option<Avx512<true>> {
    match name {
        IsaName::Amx => Avx512::<true>::detect_with_tiles(),
        _ => Avx512::<true>::detect(),
    }
}

/// The token of an instruction set with pairs, for numbers whose products gain from them or not.
#[cfg(target_arch = "x86_64")]
macro_rules! on_pairs {
    (true, $name:expr) => {
        multiplying_pairs($name)
    };
    (false, $name:expr) => {
        Avx512::<false>::detect()
    };
}

macro_rules! element {
    // `$pairs` tells whether its products gain from the CPU's own on pairs.
    ($number:ty: $real:ty, from: $from:expr, to: $to:expr,
        $factor:ty: |$numbers:ident| $join:expr, lies: $lies:expr, single: $single:ty,
        pairs: $pairs:tt) => {
        impl Element for $number {
            type Real = $real;
            type Factor = $factor;
            type Single = $single;

            multiplying!($pairs);

            #[inline(always)]
            fn from_real(x: $real) -> Self {
                $from(x)
            }

            #[inline(always)]
            fn to_real(self) -> $real {
                $to(self)
            }

            #[inline(always)]
            fn factor($numbers: &[Self]) -> $factor {
                $join
            }

            #[inline(always)]
            fn as_factors(numbers: &[Self]) -> Option<&[$factor]> {
                $lies(numbers)
            }

            fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output {
                match Self::dispatch_on(in_force(), kernel) {
                    Some(output) => output,
                    None => unreachable!("only an available instruction set is ever selected"),
                }
            }

            fn dispatch_on<K: Kernel<Self>>(name: IsaName, kernel: K) -> Option<K::Output> {
                match name {
                    IsaName::Portable => Some(Portable.vectorize(kernel)),
                    #[cfg(target_arch = "x86_64")]
                    IsaName::Avx2 => Avx2::detect().map(|isa| isa.vectorize(kernel)),
                    #[cfg(target_arch = "x86_64")]
                    IsaName::Avx512 => Avx512::<false>::detect().map(|isa| isa.vectorize(kernel)),
                    #[cfg(target_arch = "x86_64")]
                    IsaName::Avx512Bf16 | IsaName::Amx => {
                        on_pairs!($pairs, name).map(|isa| isa.vectorize(kernel))
                    }
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => None,
                }
            }
        }
    };
}

element!(f32: f32, from: identity, to: identity, f32: |numbers| numbers[0], lies: Some,
    single: f32, pairs: false);
element!(f64: f64, from: identity, to: identity, f64: |numbers| numbers[0], lies: Some,
    single: f64, pairs: false);
element!(Bf16: f32, from: Bf16::from_f32, to: Bf16::to_f32,
    Pair: |numbers| Pair([numbers[0], numbers.get(1).copied().unwrap_or_default()]),
    lies: |numbers| Some(Pair::lying(numbers)), single: LoneBf16, pairs: true);
element!(LoneBf16: f32, from: LoneBf16::from_f32, to: LoneBf16::to_f32,
    f32: |numbers| numbers[0].to_f32(), lies: |_| None, single: LoneBf16, pairs: false);
element!(F16: f32, from: F16::from_f32, to: F16::to_f32, f32: |numbers| numbers[0].to_f32(),
    lies: |_| None, single: F16, pairs: false);
