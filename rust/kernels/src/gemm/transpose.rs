//! Transposed copies of numbers, scaled and rounded on the way.
#![allow(unsafe_code)]

use fusewire_simd::{Element, Real, Storage};

use crate::view::{View, ViewMut};

/// What the numbers of a copy are multiplied by.
#[derive(Clone, Copy, Debug)]
pub enum Scales<'a, T> {
    /// Nothing: they stay what they are, bit for bit.
    Absent,
    /// A number for each column of the source, whole vectors of them.
    Columns(&'a [T]),
}

impl<T: Real> Scales<'_, T> {
    /// Those of the columns from `column` on.
    #[inline(always)]
    fn from(&self, column: usize) -> Option<&[T]> {
        match self {
            Self::Absent => None,
            Self::Columns(scales) => Some(&scales[column..]),
        }
    }
}

/// Copies the transpose of `source`, its columns times `scales`, into `target`, whose rows are
/// contiguous; rows of `source` are best contiguous. Narrow numbers are widened and rounded.
///
/// # Panics
/// If the shapes do not fit, or rows of `target` are not contiguous.
#[inline(always)]
pub fn copy_transposed<S, D, I>(
    isa: I,
    source: View<'_, S, 2>,
    scales: Scales<'_, S::Real>,
    mut target: ViewMut<'_, D, 2>,
) where
    S: Element,
    D: Element<Real = S::Real>,
    I: Storage<S> + Storage<D>,
{
    let [rows, columns] = source.shape();
    assert_eq!([columns, rows], target.shape());
    let (from_stride, to_stride) = (source.strides()[0], target.strides()[0]);
    for first_row in (0..rows).step_by(I::LANES) {
        for first_column in (0..columns).step_by(I::LANES) {
            let scales = scales.from(first_column);
            let height = (rows - first_row).min(I::LANES);
            let width = (columns - first_column).min(I::LANES);
            let whole = height == I::LANES && width == I::LANES && source.has_unit_columns();
            let whole = whole && S::IS_REAL && D::IS_REAL;
            if let (true, Ok(from_stride), Ok(to_stride)) =
                (whole, usize::try_from(from_stride), usize::try_from(to_stride))
            {
                let from = source.row(first_row)[first_column..].as_ptr().cast();
                let to = target.row_mut(first_column)[first_row..].as_mut_ptr().cast();
                // SAFETY: LANES rows and columns from here on lie inside both views, whose numbers are
                // those of the vectors.
                unsafe { isa.transpose_tile(from, from_stride, scales, to, to_stride) };
                continue;
            }
            // By way of whole tiles.
            let mut tiles = [[S::Real::ZERO; 256]; 2];
            let [from, to] = &mut tiles;
            for (row, numbers) in from.chunks_exact_mut(I::LANES).enumerate().take(height) {
                if source.has_unit_columns() {
                    let row = &source.row(first_row + row)[first_column..];
                    isa.store(numbers, isa.read_first(row));
                } else {
                    for (column, number) in numbers.iter_mut().enumerate().take(width) {
                        *number = source.get([first_row + row, first_column + column]).to_real();
                    }
                }
            }
            // SAFETY: both hold LANES rows of LANES, of which there are 16 at most.
            unsafe {
                isa.transpose_tile(from.as_ptr(), I::LANES, scales, to.as_mut_ptr(), I::LANES);
            }
            for (column, numbers) in to.chunks_exact(I::LANES).enumerate().take(width) {
                let row = &mut target.row_mut(first_column + column)[first_row..];
                isa.write_first(row, isa.load(numbers));
            }
        }
    }
}
