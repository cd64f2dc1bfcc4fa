//! The register tile: the innermost loop of every kernel.
#![allow(unsafe_code)]

use fusewire_simd::{Element, Storage};

use super::around::{Meanwhile, Start};

/// Steps along the depth between two calls of [`Meanwhile::meanwhile`] in the tall tiles of 32 registers.
/// Those of 16 multiply a quarter as much at a step, and make one call: a shorter loop costs them more.
const STEPS: usize = 16;

/// About as many multiplications as a tall tile makes between two of these calls.
#[inline(always)]
pub(crate) fn between_calls<E: Element, I: Storage<E>>() -> usize {
    match I::REGISTERS {
        32 => STEPS * 24 * I::LANES,
        _ => 64 * 12 * I::LANES,
    }
}

/// Bytes of B, whose rows follow each other, that are asked for ahead where nothing else is
/// fetched: a few rows' product takes as long as B takes to come. Panels are read by many rows.
const AHEAD: usize = 4096;
/// Bytes of a cache line, which is asked for once.
const LINE: usize = 64;

/// Steps written one behind the other where registers are few. While another thread shares the core,
/// half of its instructions are ours: too few to keep the FMA units busy beside a loop and addresses.
const UNROLLED: usize = 8;

/// Where the operands of a tile lie; strides and the depth count factors, or numbers of C.
pub(super) struct Operands<E: Element> {
    pub(super) a: *const E::Factor,
    pub(super) a_row: isize,
    pub(super) a_depth: isize,
    pub(super) b: *const E::Factor,
    pub(super) b_depth: isize,
    pub(super) c: *mut E::Real,
    pub(super) c_row: isize,
    pub(super) depth: usize,
    /// Steps of the depth that are summed one after the other at most: sums of so many are added up.
    pub(super) chain: usize,
}

/// `C (+)= A · B` for `ROWS` rows and `VECTORS` vectors of columns, kept in registers.
///
/// With `TAIL`, only the lanes of `last` exist in the last vector.
///
/// # Safety
/// `a + row · a_row + k · a_depth` must be readable for every `row < ROWS` and `k < depth`, and `b +
/// k · b_depth` and `c + row · c_row` readable, the latter writable, for `VECTORS` vectors, less the
/// missing lanes of the last one.
#[inline(always)]
pub(super) unsafe fn tile<E, I, M, const ROWS: usize, const VECTORS: usize, const TAIL: bool>(
    isa: I,
    operands: &Operands<E>,
    start: Start,
    last: I::Mask,
    meanwhile: &mut M,
) where
    E: Element,
    I: Storage<E>,
    M: Meanwhile<E::Real>,
{
    let Operands { a_row, a_depth, b_depth, .. } = *operands;
    // For the tile that does most of the work where registers are few; others have one form.
    let known = I::REGISTERS == 16 && ROWS == 6 && VECTORS == 2 && !TAIL;
    let panel = (VECTORS * I::LANES) as isize;
    macro_rules! with {
        ($strides:expr, $known:expr) => {
            // SAFETY: handed on to the caller.
            unsafe {
                tile_with::<E, I, M, ROWS, VECTORS, TAIL>(
                    isa, operands, $strides, $known, start, last, meanwhile,
                )
            }
        };
    }
    match (a_row, a_depth) {
        (_, 1) if known && b_depth == panel => with!([a_row, 1, panel], true),
        (1, _) if known && b_depth == panel && !M::FETCHES => with!([1, a_depth, panel], true),
        (_, 1) if known && M::FETCHES => with!([a_row, 1, b_depth], true),
        (1, _) if known && M::FETCHES => with!([1, a_depth, b_depth], true),
        _ => with!([a_row, a_depth, b_depth], false),
    }
}

/// [`tile`] with the strides `[a_row, a_depth, b_depth]`. Where one of A's is `known` to be 1, steps
/// are written one behind the other and B, which comes near by itself, is not asked for.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn tile_with<E, I, M, const ROWS: usize, const VECTORS: usize, const TAIL: bool>(
    isa: I,
    operands: &Operands<E>,
    [a_row, a_depth, b_depth]: [isize; 3],
    known: bool,
    start: Start,
    last: I::Mask,
    meanwhile: &mut M,
) where
    E: Element,
    I: Storage<E>,
    M: Meanwhile<E::Real>,
{
    // Vectors of factors are loaded and spread as the numbers that they are as large as.
    const { assert!(size_of::<E::Factor>() == size_of::<E::Real>()) };
    let load = |row: *const E::Real, vector: usize| {
        // SAFETY: the caller promised these lanes of B and C.
        unsafe {
            let address = row.add(vector * I::LANES);
            if TAIL && vector == VECTORS - 1 {
                isa.load_masked(address, last)
            } else {
                isa.load_pointer(address)
            }
        }
    };
    let ahead = !known && !M::FETCHES;
    // Factors side by side lie so far from a shared offset; others wait until it has come to them.
    let beside = if known && a_depth == 1 { 1 } else { 0 };
    let (mut left, mut start) = (operands.depth, start);
    // SAFETY: the caller promised A at these rows and depths.
    let rows: [*const E::Real; ROWS] = unsafe {
        let a = operands.a.cast::<E::Real>();
        std::array::from_fn(|row| a.offset(row as isize * a_row))
    };
    let (mut offset, mut b) = (0, operands.b.cast::<E::Real>());
    loop {
        let mut chain = left.min(operands.chain);
        left -= chain;
        let mut sums = [[isa.zero(); VECTORS]; ROWS];
        while chain > 0 {
            let mut steps = chain;
            if M::FETCHES && 2 * ROWS * VECTORS >= I::REGISTERS {
                meanwhile.meanwhile(isa);
                if I::REGISTERS == 32 {
                    steps = chain.min(STEPS);
                }
            }
            chain -= steps;
            macro_rules! step {
                ($step:expr) => {
                    let b = b.wrapping_offset($step * b_depth);
                    let columns: [I::Vector; VECTORS] =
                        std::array::from_fn(|vector| load(b, vector));
                    if ahead {
                        for vector in (0..VECTORS).step_by((LINE / size_of::<I::Vector>()).max(1)) {
                            let ahead = AHEAD / size_of::<E::Real>() + vector * I::LANES;
                            isa.prefetch(b.wrapping_add(ahead));
                        }
                    }
                    let here = offset + $step * beside;
                    for row in 0..ROWS {
                        // SAFETY: as above.
                        let factor = unsafe { rows[row].offset(here).read_unaligned() };
                        let factor = isa.splat(factor);
                        for vector in 0..VECTORS {
                            sums[row][vector] =
                                isa.multiply_add(factor, columns[vector], sums[row][vector]);
                        }
                    }
                    let sum = &mut sums[ROWS - 1][VECTORS - 1];
                    (offset, *sum) = isa.in_turn(offset + a_depth - beside, *sum);
                };
            }
            if known {
                while steps >= UNROLLED {
                    for step in 0..UNROLLED as isize {
                        step!(step);
                    }
                    offset += UNROLLED as isize * beside;
                    b = b.wrapping_offset(UNROLLED as isize * b_depth);
                    steps -= UNROLLED;
                }
            }
            for _ in 0..steps {
                step!(0);
                offset += beside;
                b = b.wrapping_offset(b_depth);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let target = operands.c.wrapping_offset(row as isize * operands.c_row);
            for (vector, &sum) in sums.iter().enumerate() {
                let sum = match start {
                    Start::Zero => sum,
                    Start::Accumulate => isa.add(load(target, vector), sum),
                };
                // SAFETY: the caller promised these lanes of C.
                unsafe {
                    let address = target.add(vector * I::LANES);
                    if TAIL && vector == VECTORS - 1 {
                        isa.store_masked(address, last, sum);
                    } else {
                        isa.store_pointer(address, sum);
                    }
                }
            }
        }
        if left == 0 {
            return;
        }
        start = Start::Accumulate;
    }
}
