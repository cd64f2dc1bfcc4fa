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
    let strides = [source.strides()[0], target.strides()[0]].map(usize::try_from);
    // Tiles that are not whole, or not made of what vectors hold, go by way of these.
    let mut tiles = [[S::Real::ZERO; 256]; 2];
    let [aside_from, aside_to] = &mut tiles;
    for first_row in (0..rows).step_by(I::LANES) {
        for first_column in (0..columns).step_by(I::LANES) {
            let scales = scales.from(first_column);
            let height = (rows - first_row).min(I::LANES);
            let width = (columns - first_column).min(I::LANES);
            let whole = height == I::LANES && width == I::LANES;
            let direct = whole && S::IS_REAL && source.has_unit_columns();
            let (from, from_stride) = if let (true, Ok(stride)) = (direct, strides[0]) {
                (source.row(first_row)[first_column..].as_ptr().cast(), stride)
            } else {
                for (row, numbers) in aside_from.chunks_exact_mut(I::LANES).enumerate().take(height)
                {
                    if source.has_unit_columns() {
                        let row = &source.row(first_row + row)[first_column..];
                        isa.store(numbers, isa.read_first(row));
                    } else {
                        for (column, number) in numbers.iter_mut().enumerate().take(width) {
                            let place = [first_row + row, first_column + column];
                            *number = source.get(place).to_real();
                        }
                    }
                }
                (aside_from.as_ptr(), I::LANES)
            };
            if let (true, Ok(stride)) = (whole && D::IS_REAL, strides[1]) {
                let to = target.row_mut(first_column)[first_row..].as_mut_ptr().cast();
                // SAFETY: LANES rows and columns from here on lie inside both, views and tiles, whose
                // numbers are those of the vectors; tiles hold LANES rows of LANES, at most 16.
                unsafe { isa.transpose_tile(from, from_stride, scales, to, stride) };
                continue;
            }
            // SAFETY: as above.
            unsafe {
                isa.transpose_tile(from, from_stride, scales, aside_to.as_mut_ptr(), I::LANES);
            }
            for (column, numbers) in aside_to.chunks_exact(I::LANES).enumerate().take(width) {
                let row = &mut target.row_mut(first_column + column)[first_row..];
                isa.write_first(row, isa.load(numbers));
            }
        }
    }
}
