//! Memory that is needed soon, fetched while products are computed.

use fusewire_simd::{Lanes, Real};

use crate::gemm::{Epilogue, STEPS};
use crate::view::{View, ViewMut};

/// Lines asked for at once: about as many misses as a core keeps in flight.
const MOST_LINES: usize = 12;

/// Matrices whose lines are asked for one after another, a few in every stretch of a product.
///
/// Spread over the multiplications they arrive unnoticed; in one burst they would fill the queue of
/// misses, and what the products themselves wait for would stand behind them.
pub(super) struct Ahead<T> {
    matrices: [Option<Matrix<T>>; 4],
    row: usize,
    column: usize,
    lines_each: usize,
}

/// Where a matrix lies.
#[derive(Clone, Copy)]
struct Matrix<T> {
    start: *mut T,
    shape: [usize; 2],
    stride: isize,
    written: bool,
}

impl<T: Real> Ahead<T> {
    /// Numbers in a cache line.
    const LINE: usize = 64 / size_of::<T>();

    /// Nothing.
    #[inline(always)]
    pub(super) fn nothing() -> Self {
        Self { matrices: [None; 4], row: 0, column: 0, lines_each: 0 }
    }

    /// Also `matrix`, which will be read; the fifth matrix is dropped.
    #[inline(always)]
    pub(super) fn read(&mut self, matrix: View<'_, T, 2>) {
        let (shape, [stride, _]) = (matrix.shape(), matrix.strides());
        self.add(Matrix { start: matrix.as_ptr().cast_mut(), shape, stride, written: false });
    }

    /// Also `matrix`, which will be written.
    #[inline(always)]
    pub(super) fn write(&mut self, matrix: &mut ViewMut<'_, T, 2>) {
        let (shape, [stride, _]) = (matrix.shape(), matrix.strides());
        self.add(Matrix { start: matrix.as_mut_ptr(), shape, stride, written: true });
    }

    #[inline(always)]
    fn add(&mut self, matrix: Matrix<T>) {
        let free = self.matrices.iter_mut().find(|place| place.is_none());
        if let (Some(free), false) = (free, matrix.shape.contains(&0)) {
            *free = Some(matrix);
        }
    }

    /// Spreads the lines over products of so many multiplications.
    #[inline(always)]
    pub(super) fn spread(&mut self, multiplications: usize) {
        let lines = |&Matrix { shape: [rows, columns], .. }: &Matrix<T>| {
            rows * columns.div_ceil(Self::LINE)
        };
        let lines: usize = self.matrices.iter().flatten().map(lines).sum();
        // What the register tile of AVX-512 multiplies between two calls.
        let calls = multiplications / (STEPS * 6 * 64);
        self.lines_each = lines.div_ceil(calls.max(1)).min(MOST_LINES);
    }
}

impl<T: Real> Epilogue<T> for Ahead<T> {
    const FETCHES: bool = true;

    #[inline(always)]
    fn apply<I: Lanes<T>>(&mut self, _: I, _: usize, _: usize, product: I::Vector) -> I::Vector {
        product
    }

    #[inline(always)]
    fn meanwhile<I: Lanes<T>>(&mut self, isa: I) {
        for _ in 0..self.lines_each {
            let Some(Matrix { start, shape, stride, written }) = self.matrices[0] else { return };
            let row = start.wrapping_offset(self.row as isize * stride);
            let line = row.wrapping_add(self.column);
            if written {
                isa.prefetch_write(line);
            } else {
                isa.prefetch(line);
            }
            self.column += Self::LINE;
            if self.column >= shape[1] {
                (self.column, self.row) = (0, self.row + 1);
            }
            if self.row == shape[0] {
                self.row = 0;
                self.matrices.rotate_left(1);
                self.matrices[3] = None;
            }
        }
    }
}
