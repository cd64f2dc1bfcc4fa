//! Products with a matrix as it lies, row by row along the depth: too few rows to repay packing it.
#![allow(unsafe_code)]

use fusewire_simd::{Kernel, Lanes, Real};

use super::epilogue::Start;
use crate::view::{View, ViewMut};

/// `C (+)= A · Bᵀ`, where the depth of both operands is contiguous, and columns of C come in groups:
/// the rows of B make the columns of the first group, then those of the second.
///
/// Each number of `C` is a sum over lanes, then of the lanes, whatever block it is computed in.
///
/// # Panics
/// If the shapes do not fit together, or the depth or the columns of a group are not contiguous.
#[inline(always)]
pub fn multiply_rows<T: Real, I: Lanes<T>>(
    isa: I,
    a: View<'_, T, 2>,
    b: View<'_, T, 2>,
    c: ViewMut<'_, T, 3>,
    start: Start,
) {
    let [rows, groups, width] = c.shape();
    assert_eq!(a.rows(), rows, "C must have A's rows");
    assert!(b.rows() <= groups * width, "C must have a column for each row of B");
    assert_eq!(a.columns(), b.columns(), "A and B must be equally deep");
    assert!(a.has_unit_columns() && b.has_unit_columns() && c.has_unit_columns());
    isa.vectorize(Dots { a, b, c, start });
}

struct Dots<'a, T> {
    a: View<'a, T, 2>,
    b: View<'a, T, 2>,
    c: ViewMut<'a, T, 3>,
    start: Start,
}

impl<T: Real> Kernel<T> for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let [rows, _, width] = self.c.shape();
        let mut row = 0;
        while row < rows {
            let height = if rows - row >= 4 { 4 } else { 1 };
            let mut column = 0;
            while column < self.b.rows() {
                let left = (width - column % width).min(self.b.rows() - column);
                // SAFETY: the rows and columns from here on are at least as many as the tile's.
                unsafe {
                    column += match (height, left) {
                        (4, 4..) => self.tile::<I, 4, 4>(isa, row, column),
                        (4, _) => self.tile::<I, 4, 1>(isa, row, column),
                        (_, 8..) => self.tile::<I, 1, 8>(isa, row, column),
                        (_, _) => self.tile::<I, 1, 1>(isa, row, column),
                    };
                }
            }
            row += height;
        }
    }
}

impl<T: Real> Dots<'_, T> {
    /// The products of `ROWS` rows of A with `COLUMNS` rows of B; returns `COLUMNS`.
    ///
    /// # Safety
    /// A must have the rows from `row` on, and B those from `column` on, of one group of columns.
    #[inline(always)]
    unsafe fn tile<I: Lanes<T>, const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        isa: I,
        row: usize,
        column: usize,
    ) -> usize {
        let depth = self.a.columns();
        let [a_row, b_row] = [self.a.strides()[0], self.b.strides()[0]];
        let a = self.a.as_ptr().wrapping_offset(row as isize * a_row);
        let b = self.b.as_ptr().wrapping_offset(column as isize * b_row);
        let mut sums = [[isa.zero(); COLUMNS]; ROWS];
        let mut at = 0;
        while at < depth {
            let mask = isa.first(depth - at);
            let whole = depth - at >= I::LANES;
            let load = |row: *const T| {
                // SAFETY: the caller promised the row, which has the masked lanes from `at` on.
                unsafe {
                    let address = row.add(at);
                    if whole { isa.load_pointer(address) } else { isa.load_masked(address, mask) }
                }
            };
            let mut rows = [isa.zero(); ROWS];
            for (i, vector) in rows.iter_mut().enumerate() {
                *vector = load(a.wrapping_offset(i as isize * a_row));
            }
            let mut columns = [isa.zero(); COLUMNS];
            for (j, vector) in columns.iter_mut().enumerate() {
                let address = b.wrapping_offset(j as isize * b_row);
                // The same place in the next tile: B is read once, as fast as it comes.
                isa.prefetch(address.wrapping_offset(COLUMNS as isize * b_row).wrapping_add(at));
                *vector = load(address);
            }
            for (sums, &factor) in sums.iter_mut().zip(&rows) {
                for (sum, &vector) in sums.iter_mut().zip(&columns) {
                    *sum = isa.mul_add(factor, vector, *sum);
                }
            }
            at += I::LANES;
        }
        let width = self.c.shape()[2];
        for (i, sums) in sums.iter().enumerate() {
            let mut groups = self.c.reborrow().inner::<1, 2>([row + i]);
            let target = &mut groups.row_mut(column / width)[column % width..][..COLUMNS];
            for (target, &sum) in target.iter_mut().zip(sums) {
                let sum = isa.sum_lanes(sum);
                *target = match self.start {
                    Start::Zero => sum,
                    Start::Accumulate => *target + sum,
                };
            }
        }
        COLUMNS
    }
}
