//! Intel's matrix tiles (AMX): products of 16 × 16 numbers at a time, from pairs of `bfloat16`.
//!
//! They are no instruction set to compile kernels for but a unit beside the vectors', which multiplies
//! sixteen times as fast: kernels run on AVX-512 and hand it whole products. The compiler has no stable
//! intrinsics for them and never uses their registers itself, so each loop is one piece of assembly.
#![allow(unsafe_code)]

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::Pair;

/// Rows of a tile, and its columns of sums or pairs.
pub const SIDE: usize = 16;

/// Proof that the CPU has tiles of `bfloat16` pairs and that the process may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles(());

impl Tiles {
    /// The name that `FUSEWIRE_ISA` uses for them.
    pub const NAME: &'static str = "amx";

    /// The token, if this CPU has the instructions and the kernel lets the process use them.
    pub fn detect() -> Option<Self> {
        static DETECTED: OnceLock<bool> = OnceLock::new();
        let present = *DETECTED.get_or_init(|| instructions_exist() && may_use());
        present.then_some(Self(()))
    }

    /// Makes tiles ready on this thread; what holds them already stays in force.
    pub fn hold(self) -> HeldTiles {
        let outermost = CONFIGURED.get().is_none();
        if outermost {
            CONFIGURED.set(Some(TileShape { rows: 0, columns: 0, depth: 0 }));
        }
        HeldTiles { outermost, of_thread: PhantomData }
    }
}

/// Whether `cpuid` tells of tiles and of their product of `bfloat16` pairs.
fn instructions_exist() -> bool {
    use std::arch::x86_64::__cpuid_count;

    const FEATURES: u32 = 7;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let exists = __cpuid_count(0, 0).eax >= FEATURES;
    exists && __cpuid_count(FEATURES, 0).edx & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE
}

/// Asks the operating system for the registers, which it hands out on request only.
fn may_use() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: i64 = 158;
        const REQUEST_PERMISSION: i64 = 0x1023;
        const TILE_DATA: i64 = 18;
        let outcome: i64;
        // SAFETY: the system call reads and writes no memory of this process.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => outcome,
                in("rdi") REQUEST_PERMISSION,
                in("rsi") TILE_DATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        outcome == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// How much of the tiles a product fills, each at most 16: rows and columns of sums, and pairs of its
/// depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileShape {
    /// Rows of the left operand and of the sums.
    pub rows: usize,
    /// Columns of the right operand and of the sums.
    pub columns: usize,
    /// Pairs in a row of the left operand, rows of the right one.
    pub depth: usize,
}

thread_local! {
    /// The shape that this thread's tiles are configured for; `None` where nobody holds them.
    static CONFIGURED: Cell<Option<TileShape>> = const { Cell::new(None) };
}

/// Where the operands of a product lie: strides are bytes between rows.
#[derive(Clone, Copy, Debug)]
pub struct TileOperands {
    /// Rows of pairs along the depth.
    pub a: *const Pair,
    /// From row to row of `a`.
    pub a_stride: isize,
    /// Rows of pairs along the columns.
    pub b: *const Pair,
    /// From row to row of `b`.
    pub b_stride: isize,
    /// Rows of sums.
    pub c: *mut f32,
    /// From row to row of `c`.
    pub c_stride: isize,
    /// How many tiles deep the product is.
    pub steps: usize,
}

/// Tiles that this thread may use; given back when the outermost holder drops them, because a thread
/// that keeps them is slower to switch.
#[derive(Debug)]
pub struct HeldTiles {
    outermost: bool,
    /// The registers are the thread's.
    of_thread: PhantomData<*const ()>,
}

impl Drop for HeldTiles {
    fn drop(&mut self) {
        if self.outermost {
            CONFIGURED.set(None);
            // SAFETY: a held tile exists on a CPU with the instruction only.
            unsafe { asm!("tilerelease", options(nostack, nomem)) }
        }
    }
}

/// The memory that configures the tiles.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Which registers hold what: four tiles of sums, two of the left operand, two of the right.
const SUMS: std::ops::Range<usize> = 0..4;
const LEFT: std::ops::Range<usize> = 4..6;
const RIGHT: std::ops::Range<usize> = 6..8;

impl HeldTiles {
    /// Makes the tiles so large, which forgets what they hold.
    ///
    /// # Panics
    /// If a side is 0 or greater than 16.
    #[inline]
    pub fn configure(&self, shape: TileShape) {
        if CONFIGURED.get() != Some(shape) {
            self.load_configuration(shape);
        }
    }

    #[cold]
    fn load_configuration(&self, shape: TileShape) {
        let TileShape { rows, columns, depth } = shape;
        let fits = |side: usize| (1..=SIDE).contains(&side);
        assert!(fits(rows) && fits(columns) && fits(depth), "a tile of {shape:?}");
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let tiles = [(SUMS, rows, columns), (LEFT, rows, depth), (RIGHT, depth, columns)];
        for (registers, rows, columns) in tiles {
            configuration.rows[registers.clone()].fill(rows as u8);
            configuration.row_bytes[registers].fill((columns * size_of::<Pair>()) as u16);
        }
        // SAFETY: whoever holds tiles has the instruction; the memory is a valid configuration.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const configuration,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        CONFIGURED.set(Some(shape));
    }
}

/// A product that stays in the tiles of sums while it runs down the depth: what happens to those before
/// it and behind it, and one step.
macro_rules! product {
    (
        $operands:expr, $accumulate:expr,
        load: $load:literal, clear: $clear:literal, step: $step:literal, store: $store:literal,
        $($below:tt)*
    ) => {{
        let TileOperands { a, a_stride, b, b_stride, c, c_stride, steps } = $operands;
        asm!(
            "test {accumulate}, {accumulate}",
            "jz 2f",
            $load,
            "jmp 3f",
            "2:",
            $clear,
            "3:",
            "test {steps}, {steps}",
            "jz 5f",
            "4:",
            $step,
            "add {a}, 64",
            "add {b}, {b_step}",
            "dec {steps}",
            "jnz 4b",
            "5:",
            $store,
            accumulate = in(reg) usize::from($accumulate),
            a = inout(reg) a => _,
            a_stride = in(reg) a_stride,
            b = inout(reg) b => _,
            b_stride = in(reg) b_stride,
            b_step = in(reg) SIDE as isize * b_stride,
            c = in(reg) c,
            c_stride = in(reg) c_stride,
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
            $($below)*
        );
    }};
}

impl HeldTiles {
    /// `C (+)= A · B` for one tile.
    ///
    /// # Safety
    /// The tiles must be configured, and so much of every operand be readable, that of `c` writable,
    /// too.
    #[inline]
    pub unsafe fn multiply_one(&self, operands: TileOperands, accumulate: bool) {
        // SAFETY: whoever holds tiles has the instructions; the rest the caller has promised.
        unsafe {
            product!(
                operands, accumulate,
                load: "tileloadd tmm0, [{c} + {c_stride}]",
                clear: "tilezero tmm0",
                step: "tileloadd tmm4, [{a} + {a_stride}]
                       tileloadd tmm6, [{b} + {b_stride}]
                       tdpbf16ps tmm0, tmm4, tmm6",
                store: "tilestored [{c} + {c_stride}], tmm0",
            );
        }
    }

    /// The same for four tiles, two of them below the others: each operand's is loaded once for two.
    ///
    /// # Safety
    /// As for [`HeldTiles::multiply_one`], of tiles with all their rows and columns.
    #[inline]
    pub unsafe fn multiply_four(&self, operands: TileOperands, accumulate: bool) {
        let below = SIDE as isize;
        // SAFETY: as above.
        unsafe {
            product!(
                operands, accumulate,
                load: "tileloadd tmm0, [{c} + {c_stride}]
                       tileloadd tmm1, [{c} + {c_stride} + 64]
                       tileloadd tmm2, [{c_below} + {c_stride}]
                       tileloadd tmm3, [{c_below} + {c_stride} + 64]",
                clear: "tilezero tmm0
                        tilezero tmm1
                        tilezero tmm2
                        tilezero tmm3",
                step: "tileloadd tmm4, [{a} + {a_stride}]
                       tileloadd tmm6, [{b} + {b_stride}]
                       tdpbf16ps tmm0, tmm4, tmm6
                       tileloadd tmm7, [{b} + {b_stride} + 64]
                       tdpbf16ps tmm1, tmm4, tmm7
                       tileloadd tmm5, [{a_below} + {a_stride}]
                       add {a_below}, 64
                       tdpbf16ps tmm2, tmm5, tmm6
                       tdpbf16ps tmm3, tmm5, tmm7",
                store: "tilestored [{c} + {c_stride}], tmm0
                        tilestored [{c} + {c_stride} + 64], tmm1
                        tilestored [{c_below} + {c_stride}], tmm2
                        tilestored [{c_below} + {c_stride} + 64], tmm3",
                a_below = inout(reg) operands.a.wrapping_byte_offset(below * operands.a_stride) => _,
                c_below = in(reg) operands.c.wrapping_byte_offset(below * operands.c_stride),
            );
        }
    }
}
