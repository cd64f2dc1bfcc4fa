//! The register tile: the innermost loop of every kernel.
#![allow(unsafe_code)]

use fusewire_simd::{Element, Storage};

use super::epilogue::{Epilogue, Start};

/// Steps along the depth between two calls of [`Epilogue::meanwhile`].
pub(crate) const STEPS: usize = 16;
/// Accumulators of tiles that are worth the calls.
const BUSY: usize = 16;
/// Bytes of B, whose rows follow each other, that are asked for ahead where the epilogue fetches
/// nothing: a few rows' product takes as long as B takes to come, and others do not notice.
const AHEAD: usize = 4096;

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
}

/// The tile's place in its block, and how it begins.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) start: Start,
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
pub(super) unsafe fn tile<E, I, F, const ROWS: usize, const VECTORS: usize, const TAIL: bool>(
    isa: I,
    operands: &Operands<E>,
    place: Place,
    last: I::Mask,
    epilogue: &mut F,
) where
    E: Element,
    I: Storage<E>,
    F: Epilogue<E::Real>,
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
    let mut sums = [[isa.zero(); VECTORS]; ROWS];
    // SAFETY: the caller promised A at these rows and depths.
    unsafe {
        let a = operands.a.cast::<E::Real>();
        let rows: [*const E::Real; ROWS] =
            std::array::from_fn(|row| a.offset(row as isize * operands.a_row));
        let mut depth_offset = 0;
        let mut b = operands.b.cast::<E::Real>();
        let mut left = operands.depth;
        while left > 0 {
            let mut steps = left;
            if F::FETCHES && ROWS * VECTORS >= BUSY {
                epilogue.meanwhile(isa);
                steps = left.min(STEPS);
            }
            for _ in 0..steps {
                let columns: [I::Vector; VECTORS] = std::array::from_fn(|vector| load(b, vector));
                if !F::FETCHES {
                    for vector in 0..VECTORS {
                        let ahead = AHEAD / size_of::<E::Real>() + vector * I::LANES;
                        isa.prefetch(b.wrapping_add(ahead));
                    }
                }
                for row in 0..ROWS {
                    let factor = isa.splat(rows[row].offset(depth_offset).read_unaligned());
                    for vector in 0..VECTORS {
                        sums[row][vector] =
                            isa.multiply_add(factor, columns[vector], sums[row][vector]);
                    }
                }
                depth_offset += operands.a_depth;
                b = b.wrapping_offset(operands.b_depth);
            }
            left -= steps;
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let target = operands.c.wrapping_offset(row as isize * operands.c_row);
        for (vector, &sum) in sums.iter().enumerate() {
            let sum = match place.start {
                Start::Zero => sum,
                Start::Accumulate => isa.add(load(target, vector), sum),
            };
            let column = place.column + vector * I::LANES;
            let value = epilogue.apply(isa, place.row + row, column, sum);
            // SAFETY: the caller promised these lanes of C.
            unsafe {
                let address = target.add(vector * I::LANES);
                if TAIL && vector == VECTORS - 1 {
                    isa.store_masked(address, last, value);
                } else {
                    isa.store_pointer(address, value);
                }
            }
        }
    }
}
