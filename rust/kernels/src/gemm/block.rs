//! A block of the product: register tiles over views, with the tails of rows and columns.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use fusewire_simd::arch::amx::Tiles;
use fusewire_simd::{Element, Factor, Isa, Kernel, Storage};

use super::around::{Meanwhile, Start};
use super::microkernel::{Operands, tile};
#[cfg(target_arch = "x86_64")]
use super::tiles::ByTiles;
use crate::view::{View, ViewMut};

/// `C (+)= A · B` for operands that fit in the near caches.
///
/// `E` is what the operands were stored as: they come as its factors, the depth counted in those.
/// Rows of `b` and `c` must be contiguous; `a` may have any strides. Sums run along the depth in
/// order, so a number of `C` does not depend on the block that it is computed in.
///
/// # Panics
/// If the shapes do not fit together, or rows of `b` or `c` are not contiguous.
#[inline(always)]
pub fn multiply_block<E: Element, I: Storage<E>, M: Meanwhile<E::Real>>(
    isa: I,
    a: View<'_, E::Factor, 2>,
    b: View<'_, E::Factor, 2>,
    c: ViewMut<'_, E::Real, 2>,
    start: Start,
    meanwhile: &mut M,
) {
    let chain = a.columns();
    multiply_in_chains::<E, I, M>(isa, a, b, c, start, chain, meanwhile);
}

/// [`multiply_block`] with sums of at most `chain` steps of the depth that are then added up: their
/// rounding is smaller than that of one long sum.
///
/// # Panics
/// As [`multiply_block`].
#[inline(always)]
pub fn multiply_in_chains<E: Element, I: Storage<E>, M: Meanwhile<E::Real>>(
    isa: I,
    a: View<'_, E::Factor, 2>,
    b: View<'_, E::Factor, 2>,
    mut c: ViewMut<'_, E::Real, 2>,
    start: Start,
    chain: usize,
    meanwhile: &mut M,
) {
    assert_eq!([a.rows(), b.columns()], c.shape(), "C must have A's rows and B's columns");
    assert_eq!(a.columns(), b.rows(), "A must have as many columns as B has rows");
    assert!(b.has_unit_columns() && c.has_unit_columns(), "rows of B and C must be contiguous");
    #[cfg(target_arch = "x86_64")]
    if multiplies_by_tiles::<E, I>(isa)
        && let Some(tiles) = isa.tiles()
    {
        return isa.vectorize(ByTiles { tiles, a, b, c, start, meanwhile });
    }
    isa.vectorize(Block {
        operands: Operands {
            a: a.as_ptr(),
            a_row: a.strides()[0],
            a_depth: a.strides()[1],
            b: b.as_ptr(),
            b_depth: b.strides()[0],
            c: c.as_mut_ptr(),
            c_row: c.strides()[0],
            depth: a.columns(),
            chain: chain.max(1),
        },
        rows: c.rows(),
        columns: c.columns(),
        start,
        meanwhile,
    });
}

/// Keeps the CPU's matrix tiles, where it has some, ready for the products that come until what is
/// returned is dropped: each would otherwise set them up anew.
#[inline(always)]
pub(crate) fn hold_tiles<I: Isa>(isa: I) -> impl Sized {
    #[cfg(target_arch = "x86_64")]
    return isa.tiles().map(Tiles::hold);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
}

/// Whether products of the factors of `E` are the matrix tiles' work.
#[inline(always)]
pub(crate) fn multiplies_by_tiles<E: Element, I: Storage<E>>(isa: I) -> bool {
    #[cfg(target_arch = "x86_64")]
    return E::Factor::DEPTH > 1 && isa.tiles().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        false
    }
}

/// Columns of a packed panel of B, at most `most`: no more than a strip's where registers are few.
///
/// Lines of a narrow strip of a wide panel are a power of two apart, and fall into a few sets of the
/// nearest cache.
#[inline(always)]
pub(crate) const fn panel_columns(registers: usize, lanes: usize, most: usize) -> usize {
    if registers == 16 && 2 * lanes < most { 2 * lanes } else { most }
}

/// How many vectors wide the next strip of columns is, of `left` vectors.
#[inline(always)]
fn strip_vectors(registers: usize, rows: usize, left: usize) -> usize {
    match (registers, left) {
        (32, 5) => 3, // and then 2: a strip of 1 would keep the FMA units waiting for loads
        (32, 4) if SOME_ROWS.contains(&rows) => 2,
        (32, left) => left.min(4),
        (16, left) => left.min(2),
        (_, _) => 1,
    }
}

/// Rows that the tall tiles of a narrow strip divide better than the low ones of a wide strip, and for
/// which B is read less often.
const SOME_ROWS: std::ops::RangeInclusive<usize> = 8..=32;

/// A block whose operands hold every position of its shape; one function per type of what is done
/// meanwhile, so that a kernel with many products stays small.
struct Block<'a, E: Element, M> {
    operands: Operands<E>,
    rows: usize,
    columns: usize,
    start: Start,
    meanwhile: &'a mut M,
}

impl<E: Element, M: Meanwhile<E::Real>> Kernel<E> for Block<'_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(mut self, isa: I) {
        let mut column = 0;
        while column < self.columns {
            let left = self.columns - column;
            let vectors = strip_vectors(I::REGISTERS, self.rows, left.div_ceil(I::LANES));
            // SAFETY: the operands hold every position of the block; a strip reaches beyond the last
            // column by masked lanes only.
            unsafe {
                match vectors {
                    4 => self.strip::<I, 4, 6, 4>(isa, column, left),
                    3 => self.strip::<I, 3, 8, 4>(isa, column, left),
                    2 if I::REGISTERS == 32 => self.strip::<I, 2, 12, 8>(isa, column, left),
                    2 => self.strip::<I, 2, 6, 4>(isa, column, left),
                    _ if I::REGISTERS >= 16 => self.strip::<I, 1, 12, 8>(isa, column, left),
                    _ => self.strip::<I, 1, 4, 2>(isa, column, left),
                }
            }
            column += vectors * I::LANES;
        }
    }
}

impl<E: Element, M: Meanwhile<E::Real>> Block<'_, E, M> {
    /// The strip of `VECTORS` vectors of columns from `column` on, of which `left` columns exist, in
    /// tiles of `TALL` rows, then `MIDDLE`, then 4, 2 and 1.
    ///
    /// # Safety
    /// The operands must hold the strip's rows and existing columns.
    #[inline(always)]
    unsafe fn strip<I, const VECTORS: usize, const TALL: usize, const MIDDLE: usize>(
        &mut self,
        isa: I,
        column: usize,
        left: usize,
    ) where
        I: Storage<E>,
    {
        let last_lanes = left.min(VECTORS * I::LANES) - (VECTORS - 1) * I::LANES;
        // SAFETY: handed on to the caller.
        unsafe {
            if last_lanes < I::LANES {
                let last = isa.first(last_lanes);
                self.rows::<I, VECTORS, TALL, MIDDLE, true>(isa, column, last);
            } else {
                let last = isa.first(I::LANES);
                self.rows::<I, VECTORS, TALL, MIDDLE, false>(isa, column, last);
            }
        }
    }

    /// # Safety
    /// As for `strip`.
    #[inline(always)]
    unsafe fn rows<
        I,
        const VECTORS: usize,
        const TALL: usize,
        const MIDDLE: usize,
        const TAIL: bool,
    >(
        &mut self,
        isa: I,
        column: usize,
        last: I::Mask,
    ) where
        I: Storage<E>,
    {
        let mut row = 0;
        let mut tall = self.rows / TALL;
        let rest = self.rows % TALL;
        // A short rest keeps the FMA units waiting; with one tall tile it makes two middle ones.
        if tall > 0 && rest > 0 && rest < MIDDLE && TALL + rest >= 2 * MIDDLE {
            tall -= 1;
        }
        macro_rules! tiles {
            ($height:expr, while $more:expr) => {
                while $more {
                    let operands = Operands {
                        a: self.operands.a.wrapping_offset(row as isize * self.operands.a_row),
                        b: self.operands.b.wrapping_add(column),
                        c: self
                            .operands
                            .c
                            .wrapping_offset(row as isize * self.operands.c_row)
                            .wrapping_add(column),
                        ..self.operands
                    };
                    // SAFETY: the rows from `row` on exist; the columns are the caller's promise.
                    unsafe {
                        tile::<E, I, M, { $height }, VECTORS, TAIL>(
                            isa,
                            &operands,
                            self.start,
                            last,
                            self.meanwhile,
                        );
                    }
                    row += $height;
                }
            };
        }
        tiles!(TALL, while row < tall * TALL);
        tiles!(MIDDLE, while row + MIDDLE <= self.rows);
        if MIDDLE > 4 {
            tiles!(4, while row + 4 <= self.rows);
        }
        if MIDDLE > 2 {
            tiles!(2, while row + 2 <= self.rows);
        }
        tiles!(1, while row < self.rows);
    }
}
