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
/// fetched: a few rows' product takes as long as B takes to come, and others do not notice.
const AHEAD: usize = 4096;
/// Bytes of a cache line, which is asked for once.
const LINE: usize = 64;

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
    let (mut left, mut start) = (operands.depth, start);
    // SAFETY: the caller promised A at these rows and depths.
    let rows: [*const E::Real; ROWS] = unsafe {
        let a = operands.a.cast::<E::Real>();
        std::array::from_fn(|row| a.offset(row as isize * operands.a_row))
    };
    let (mut depth_offset, mut b) = (0, operands.b.cast::<E::Real>());
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
            for _ in 0..steps {
                let columns: [I::Vector; VECTORS] = std::array::from_fn(|vector| load(b, vector));
                if !M::FETCHES {
                    for vector in (0..VECTORS).step_by((LINE / size_of::<I::Vector>()).max(1)) {
                        let ahead = AHEAD / size_of::<E::Real>() + vector * I::LANES;
                        isa.prefetch(b.wrapping_add(ahead));
                    }
                }
                for row in 0..ROWS {
                    // SAFETY: as above.
                    let factor = unsafe { rows[row].offset(depth_offset).read_unaligned() };
                    let factor = isa.splat(factor);
                    for vector in 0..VECTORS {
                        sums[row][vector] =
                            isa.multiply_add(factor, columns[vector], sums[row][vector]);
                    }
                }
                depth_offset = isa.opaque(depth_offset + operands.a_depth);
                b = b.wrapping_offset(operands.b_depth);
            }
            chain -= steps;
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
