//! What the machine could do, measured: the throughput of one core in multiply-adds, and in reading.

use std::hint::black_box;
use std::time::Instant;

use fusewire_simd::{Element, Factor, Kernel, Real, Storage};

use crate::Result;
use crate::gemm::{Start, hold_tiles, multiplies_by_tiles, multiply_block};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Sums in registers: more than latency × throughput of any FMA unit so far (4 × 2 on most).
const SUMS: usize = 12;
/// Multiply-adds per sum in one timed burst: tens of microseconds, shorter than a time slice.
const STEPS: usize = 20_000;
/// Bursts; the fastest counts, because whatever else runs on the machine only slows one down.
const BURSTS: usize = 50;

/// Rows and columns of a product of tiles, four of them.
const SQUARE: usize = 32;
/// Its depth, in factors: long enough that clearing and storing sums takes no time.
const DEPTH: usize = 4096;

/// Products by matrix tiles whose operands' rows are all one row, in the nearest cache.
struct MultiplyTiles;

impl<E: Element> Kernel<E> for MultiplyTiles {
    type Output = Result<f64>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<f64> {
        let _tiles = hold_tiles(isa);
        let factors = Scratch::zeros(DEPTH)?;
        let mut sums = Scratch::zeros(SQUARE * SQUARE)?;
        let a = View::contiguous(&factors, [1, DEPTH])?.broadcast([SQUARE, DEPTH])?;
        let b = View::contiguous(&factors[..SQUARE], [1, SQUARE])?.broadcast([DEPTH, SQUARE])?;
        let mut best = f64::INFINITY;
        for _ in 0..BURSTS {
            let start = Instant::now();
            let c = ViewMut::contiguous(&mut sums, [SQUARE, SQUARE])?;
            multiply_block::<E, _, _>(isa, a, b, c, Start::Zero, &mut ());
            black_box(&mut sums);
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok((2 * SQUARE * SQUARE * DEPTH * E::Factor::DEPTH) as f64 / best)
    }
}

struct MultiplyAdd;

impl<E: Element> Kernel<E> for MultiplyAdd {
    type Output = f64;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> f64 {
        if multiplies_by_tiles::<E, I>(isa)
            && let Ok(flops) = isa.vectorize(MultiplyTiles)
        {
            return flops;
        }
        let half = isa.splat(black_box(E::Real::from_f64(0.5)));
        let parts = [half; 2];
        let factor = isa.join(&parts[..E::Factor::DEPTH]);
        let mut best = f64::INFINITY;
        for _ in 0..BURSTS {
            let mut sums = [half; SUMS];
            let start = Instant::now();
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = isa.multiply_add(factor, factor, *sum);
                }
            }
            let total = sums.into_iter().fold(isa.zero(), |total, sum| isa.add(total, sum));
            black_box(isa.sum_lanes(total));
            best = best.min(start.elapsed().as_secs_f64());
        }
        (2 * SUMS * STEPS * I::LANES * E::Factor::DEPTH) as f64 / best
    }
}

/// Floating-point operations per second of one core on the selected instruction set in products of
/// `E`, counting a multiply-add as two, in a loop that leaves the registers alone (and by matrix
/// tiles, where those multiply `E`); takes a few milliseconds.
///
/// ```
/// assert!(fusewire_kernels::peak::flops::<f32>() > 1e6);
/// ```
pub fn flops<E: Element>() -> f64 {
    if E::multiplies_factors() {
        E::dispatch_multiplying(MultiplyAdd)
    } else {
        flops::<E::Single>()
    }
}

/// Vectors read at a time, each into a sum of its own.
const STREAMS: usize = 8;
/// Numbers of a cache line.
const LINE: usize = 16;
/// Bytes read in one burst at least: far more than the clock takes to be read.
const BURST: usize = 1 << 20;

struct Read<'a>(&'a [f32]);

impl Kernel<f32> for Read<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Storage<f32>>(self, isa: I) -> f64 {
        let passes = BURST.div_ceil(size_of_val(self.0));
        let mut best = f64::INFINITY;
        for _ in 0..BURSTS {
            let mut sums = [isa.zero(); STREAMS];
            let start = Instant::now();
            for _ in 0..passes {
                for numbers in black_box(self.0).chunks_exact(STREAMS * I::LANES) {
                    for (stream, sum) in sums.iter_mut().enumerate() {
                        *sum = isa.add(*sum, isa.load(&numbers[stream * I::LANES..]));
                    }
                }
            }
            let total = sums.into_iter().fold(isa.zero(), |total, sum| isa.add(total, sum));
            black_box(isa.sum_lanes(total));
            best = best.min(start.elapsed().as_secs_f64());
        }
        (passes * size_of_val(self.0)) as f64 / best
    }
}

/// Bytes per second that one core reads of `bytes` which it has just read before, so that they come
/// from the nearest cache that holds them all; takes some milliseconds where that is a cache.
///
/// ```
/// assert!(fusewire_kernels::peak::read(1 << 20) > 1e6);
/// ```
pub fn read(bytes: usize) -> f64 {
    let count = (bytes / size_of::<f32>()).next_multiple_of(STREAMS * LINE);
    let numbers = vec![1.0_f32; count + LINE];
    // A vector must not lie in two lines.
    let first = numbers.as_ptr().align_offset(LINE * size_of::<f32>());
    f32::dispatch(Read(&numbers[first..first + count]))
}
