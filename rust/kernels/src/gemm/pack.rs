//! Copies that bring an operand into the layout that a block wants.
#![allow(unsafe_code)]

use fusewire_simd::{Lanes, Real};

use crate::view::{View, ViewMut};

/// Rows are far apart, so the CPU's own prefetcher starts anew on each: ask for them this early.
const ROWS_AHEAD: usize = 8;

/// Copies `source` into `target`, whose rows are contiguous; `source` may have any strides.
///
/// A source whose columns are contiguous is transposed in registers on the way.
///
/// # Panics
/// If the shapes differ, or rows of `target` are not contiguous.
#[inline(always)]
pub fn copy_rows<T: Real, I: Lanes<T>>(
    isa: I,
    source: View<'_, T, 2>,
    mut target: ViewMut<'_, T, 2>,
) {
    assert_eq!(source.shape(), target.shape());
    let [rows, columns] = source.shape();
    if source.has_unit_columns() {
        for row in 0..rows {
            let (from, to) = (source.row(row), target.row_mut(row));
            let later = source.row((row + ROWS_AHEAD).min(rows - 1));
            let parts = from.chunks(I::LANES).zip(to.chunks_mut(I::LANES));
            for ((from, to), later) in parts.zip(later.chunks(I::LANES)) {
                isa.prefetch(later.as_ptr());
                isa.store_first(to, isa.load_first(from));
            }
        }
    } else if source.strides()[0] == 1 {
        transpose_tiles(isa, source.transpose(), target);
    } else {
        for row in 0..rows {
            let to = target.row_mut(row);
            for (column, to) in to.iter_mut().enumerate().take(columns) {
                *to = source.get([row, column]);
            }
        }
    }
}

/// Writes the transpose of `source` into `target`; rows of both are contiguous.
#[inline(always)]
fn transpose_tiles<T: Real, I: Lanes<T>>(
    isa: I,
    source: View<'_, T, 2>,
    mut target: ViewMut<'_, T, 2>,
) {
    let [rows, columns] = source.shape();
    let (full_rows, full_columns) = (rows - rows % I::LANES, columns - columns % I::LANES);
    let strides = (source.strides()[0], target.strides()[0]);
    if let (Ok(from_stride), Ok(to_stride)) =
        (usize::try_from(strides.0), usize::try_from(strides.1))
    {
        for row in (0..full_rows).step_by(I::LANES) {
            for column in (0..full_columns).step_by(I::LANES) {
                let from = source.row(row)[column..].as_ptr();
                let to = target.row_mut(column)[row..].as_mut_ptr();
                // SAFETY: LANES rows and columns from here on lie inside both views.
                unsafe { isa.transpose_tile(from, from_stride, to, to_stride) };
            }
        }
        transpose_numbers(source, &mut target, 0..full_rows, full_columns..columns);
        transpose_numbers(source, &mut target, full_rows..rows, 0..columns);
    } else {
        transpose_numbers(source, &mut target, 0..rows, 0..columns);
    }
}

#[inline(always)]
fn transpose_numbers<T: Real>(
    source: View<'_, T, 2>,
    target: &mut ViewMut<'_, T, 2>,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) {
    for row in rows {
        let from = source.row(row);
        for column in columns.clone() {
            target.set([column, row], from[column]);
        }
    }
}
