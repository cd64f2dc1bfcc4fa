//! Memory that is needed soon, fetched while products are computed.

use fusewire_simd::{Element, Lanes, Real, Storage};

use crate::gemm::{Meanwhile, between_calls};
use crate::view::{View, ViewMut};

/// Lines asked for at once: about as many misses as a core keeps in flight.
const MOST_LINES: usize = 24;
/// Matrices in one list.
const MATRICES: usize = 8;

/// Matrices whose lines are asked for one after another, a few in every stretch of a product.
///
/// Spread over the multiplications they arrive unnoticed; in one burst they would fill the queue of
/// misses, and what the products themselves wait for would stand behind them.
pub(super) struct Ahead {
    matrices: [Option<Matrix>; MATRICES],
    row: usize,
    line: usize,
    lines_each: usize,
}

/// Where a matrix lies.
#[derive(Clone, Copy)]
struct Matrix {
    start: *mut u8,
    /// Rows, and lines of each.
    shape: [usize; 2],
    /// Bytes from row to row.
    stride: isize,
    written: bool,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl Ahead {
    /// Nothing.
    #[inline(always)]
    pub(super) fn nothing() -> Self {
        Self { matrices: [None; MATRICES], row: 0, line: 0, lines_each: 0 }
    }

    /// Also `matrix`, which will be read; more than fit are dropped.
    #[inline(always)]
    pub(super) fn read<E: Element>(&mut self, matrix: View<'_, E, 2>) {
        self.add::<E>(matrix.as_ptr().cast_mut(), matrix.shape(), matrix.strides(), false);
    }

    /// Also `matrix`, which will be written.
    #[inline(always)]
    pub(super) fn write<E: Element>(&mut self, matrix: &mut ViewMut<'_, E, 2>) {
        let (shape, strides) = (matrix.shape(), matrix.strides());
        self.add::<E>(matrix.as_mut_ptr(), shape, strides, true);
    }

    #[inline(always)]
    fn add<E: Element>(
        &mut self,
        start: *mut E,
        [rows, columns]: [usize; 2],
        [stride, _]: [isize; 2],
        written: bool,
    ) {
        let free = self.matrices.iter_mut().find(|place| place.is_none());
        if let (Some(free), true) = (free, rows > 0 && columns > 0) {
            let size = size_of::<E>();
            let shape = [rows, (columns * size).div_ceil(LINE)];
            let stride = stride * size as isize;
            *free = Some(Matrix { start: start.cast(), shape, stride, written });
        }
    }

    /// Spreads the lines over products of so many multiplications of factors.
    #[inline(always)]
    pub(super) fn spread<E: Element, I: Storage<E>>(&mut self, multiplications: usize) {
        let lines: usize = self
            .matrices
            .iter()
            .flatten()
            .map(|Matrix { shape: [rows, lines], .. }| rows * lines)
            .sum();
        let calls = multiplications / between_calls::<E, I>();
        self.lines_each = lines.div_ceil(calls.max(1)).min(MOST_LINES);
    }
}

impl<T: Real> Meanwhile<T> for Ahead {
    const FETCHES: bool = true;

    #[inline(always)]
    fn meanwhile<I: Lanes<T>>(&mut self, isa: I) {
        for _ in 0..self.lines_each {
            let Some(Matrix { start, shape, stride, written }) = self.matrices[0] else { return };
            let row = start.wrapping_offset(self.row as isize * stride);
            let line = row.wrapping_add(self.line * LINE);
            if written {
                isa.prefetch_write(line.cast());
            } else {
                isa.prefetch(line.cast_const().cast());
            }
            self.line += 1;
            if self.line == shape[1] {
                (self.line, self.row) = (0, self.row + 1);
            }
            if self.row == shape[0] {
                self.row = 0;
                self.matrices.rotate_left(1);
                self.matrices[MATRICES - 1] = None;
            }
        }
    }
}
