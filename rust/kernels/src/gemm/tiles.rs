//! The block product by the CPU's matrix tiles, where it has some for the factors.
#![allow(unsafe_code)]

use std::ops::Range;

use fusewire_simd::arch::amx::{HeldTiles, SIDE, TileOperands, TileShape, Tiles};
use fusewire_simd::{Element, Kernel, Storage};

use super::around::{Meanwhile, Start};
use super::microkernel::between_calls;
use crate::view::{View, ViewMut};

/// Rows and columns of four tiles.
const PAIR: usize = 2 * SIDE;
/// Steps of the depth of a piece of A that is turned.
const TURNED: usize = 8 * SIDE;

/// [`multiply_block`](super::multiply_block) by tiles; one function for each thing done meanwhile.
///
/// Sums run along the depth tile by tile, each tile's products being summed first.
pub(super) struct ByTiles<'a, E: Element, M> {
    pub(super) tiles: Tiles,
    pub(super) a: View<'a, E::Factor, 2>,
    pub(super) b: View<'a, E::Factor, 2>,
    pub(super) c: ViewMut<'a, E::Real, 2>,
    pub(super) start: Start,
    pub(super) meanwhile: &'a mut M,
}

impl<E: Element, M: Meanwhile<E::Real>> Kernel<E> for ByTiles<'_, E, M> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { tiles, a, b, mut c, start, meanwhile } = self;
        let tiles = tiles.hold();
        if a.has_unit_columns() {
            return in_lines::<E, I, M>(isa, &tiles, a, b, c, start, meanwhile);
        }
        // Tiles are loaded line by line along the depth: A is turned, as much at a time as stays near.
        let mut lines = [E::Factor::default(); PAIR * TURNED];
        for row in (0..a.rows()).step_by(PAIR) {
            let rows = row..a.rows().min(row + PAIR);
            for step in (0..a.columns().max(1)).step_by(TURNED) {
                let depth = step..a.columns().min(step + TURNED);
                let piece = a.slice(0, rows.clone()).slice(1, depth.clone());
                turn::<E, I>(isa, piece, &mut lines);
                // SAFETY: so many rows, TURNED apart, were just written.
                let piece = unsafe {
                    View::from_raw_parts(lines.as_ptr(), piece.shape(), [TURNED as isize, 1])
                };
                let (b, c) = (b.slice(0, depth), c.reborrow().slice(0, rows.clone()));
                let start = if step == 0 { start } else { Start::Accumulate };
                in_lines::<E, I, M>(isa, &tiles, piece, b, c, start, meanwhile);
            }
        }
    }
}

/// Writes rows of `a` along the depth, `TURNED` apart.
#[inline(always)]
fn turn<E: Element, I: Storage<E>>(isa: I, a: View<'_, E::Factor, 2>, lines: &mut [E::Factor]) {
    let [rows, depth] = a.shape();
    let stride = usize::try_from(a.strides()[1]).ok().filter(|_| a.strides()[0] == 1);
    for row in (0..rows).step_by(SIDE) {
        for step in (0..depth).step_by(SIDE) {
            let (height, width) = (SIDE.min(rows - row), SIDE.min(depth - step));
            let to = &mut lines[row * TURNED + step..];
            if let (SIDE, SIDE, Some(stride)) = (height, width, stride) {
                assert!(I::LANES == SIDE && to.len() > (SIDE - 1) * TURNED + (SIDE - 1));
                let from = a.slice(0, row..row + SIDE).slice(1, step..step + SIDE).as_ptr();
                // SAFETY: SIDE rows and columns from here on lie in both; factors are as large as
                // numbers.
                unsafe {
                    isa.transpose_tile(from.cast(), stride, None, to.as_mut_ptr().cast(), TURNED);
                }
                continue;
            }
            for row_inside in 0..height {
                for step_inside in 0..width {
                    to[row_inside * TURNED + step_inside] =
                        a.get([row + row_inside, step + step_inside]);
                }
            }
        }
    }
}

/// The product with rows of `a` that are contiguous.
#[inline(always)]
fn in_lines<E: Element, I: Storage<E>, M: Meanwhile<E::Real>>(
    isa: I,
    tiles: &HeldTiles,
    a: View<'_, E::Factor, 2>,
    b: View<'_, E::Factor, 2>,
    mut c: ViewMut<'_, E::Real, 2>,
    start: Start,
    meanwhile: &mut M,
) {
    assert!(size_of::<E::Factor>() == size_of::<u32>() && size_of::<E::Real>() == size_of::<f32>());
    let bytes = |stride: isize| stride * size_of::<u32>() as isize;
    let ([rows, depth], columns) = (a.shape(), b.columns());
    let (whole, rest) = (depth - depth % SIDE, depth % SIDE);
    let operands = TileOperands {
        a: a.as_ptr().cast(),
        a_stride: bytes(a.strides()[0]),
        b: b.as_ptr().cast(),
        b_stride: bytes(b.strides()[0]),
        c: c.as_mut_ptr().cast(),
        c_stride: bytes(c.strides()[0]),
        steps: 0,
    };
    let passes = [(0, SIDE, whole / SIDE), (whole, rest, 1)];
    // Without any depth the first one clears the sums.
    let needed = usize::from(whole == 0 && rest > 0)..1 + usize::from(rest > 0);
    for (first, depth, steps) in passes[needed].iter().copied() {
        let accumulate = start == Start::Accumulate || first > 0;
        let at = |row: usize, column: usize| TileOperands {
            a: operands
                .a
                .wrapping_byte_offset(row as isize * operands.a_stride)
                .wrapping_add(first),
            b: operands
                .b
                .wrapping_byte_offset(first as isize * operands.b_stride)
                .wrapping_add(column),
            c: operands
                .c
                .wrapping_byte_offset(row as isize * operands.c_stride)
                .wrapping_add(column),
            steps,
            ..operands
        };
        let calls = PAIR * PAIR * steps * SIDE / between_calls::<E, I>();
        for (columns, width) in parts(columns) {
            for (rows, height) in parts(rows) {
                tiles.configure(TileShape { rows: height, columns: width, depth });
                // Four tiles at a time, and what is left of them one by one.
                let mut square = [rows.len() / PAIR * PAIR, columns.len() / PAIR * PAIR];
                if square.contains(&0) {
                    square = [0; 2];
                }
                let [square_rows, square_columns] = square;
                for column in (0..square_columns).step_by(PAIR) {
                    for row in (0..square_rows).step_by(PAIR) {
                        // SAFETY: the operands hold every position of the block.
                        unsafe {
                            let operands = at(rows.start + row, columns.start + column);
                            tiles.multiply_four(operands, accumulate);
                        }
                        for _ in 0..calls {
                            meanwhile.meanwhile(isa);
                        }
                    }
                }
                for column in columns.clone().step_by(SIDE) {
                    let below =
                        if column - columns.start < square_columns { square_rows } else { 0 };
                    for row in (rows.start + below..rows.end).step_by(SIDE) {
                        // SAFETY: as above.
                        unsafe { tiles.multiply_one(at(row, column), accumulate) }
                    }
                }
            }
        }
    }
}

/// The range that whole tiles fill and the rest, with the side of their tiles.
#[inline(always)]
fn parts(length: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let whole = length - length % SIDE;
    [(0..whole, SIDE), (whole..length, length - whole)]
        .into_iter()
        .filter(|(range, _)| !range.is_empty())
}
