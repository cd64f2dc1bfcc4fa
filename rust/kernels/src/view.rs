//! Strided views of numbers that live elsewhere: in a slice, a NumPy array or a PyTorch tensor.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use crate::{Error, Result};

/// A shared view with `N` dimensions; strides count numbers, not bytes.
#[derive(Debug)]
pub struct View<'a, T, const N: usize> {
    start: *const T,
    shape: [usize; N],
    strides: [isize; N],
    data: PhantomData<&'a [T]>,
}

/// An exclusive view with `N` dimensions; no two positions are the same number.
#[derive(Debug)]
pub struct ViewMut<'a, T, const N: usize> {
    start: *mut T,
    shape: [usize; N],
    strides: [isize; N],
    data: PhantomData<&'a mut [T]>,
}

impl<T, const N: usize> Clone for View<'_, T, N> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, const N: usize> Copy for View<'_, T, N> {}

// SAFETY: a view is a shared borrow of numbers.
unsafe impl<T: Sync, const N: usize> Send for View<'_, T, N> {}
// SAFETY: as above.
unsafe impl<T: Sync, const N: usize> Sync for View<'_, T, N> {}
// SAFETY: an exclusive view is an exclusive borrow of numbers.
unsafe impl<T: Send, const N: usize> Send for ViewMut<'_, T, N> {}
// SAFETY: through a shared reference to it, numbers can only be read.
unsafe impl<T: Sync, const N: usize> Sync for ViewMut<'_, T, N> {}

/// The strides of a contiguous array, last dimension fastest.
#[inline]
pub fn contiguous_strides<const N: usize>(shape: [usize; N]) -> [isize; N] {
    let mut strides = [1_isize; N];
    for axis in (1..N).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1) as isize);
    }
    strides
}

/// How many numbers a shape holds, or an error where an address could not reach them.
///
/// # Errors
/// If the product of the dimensions, in bytes, exceeds `isize::MAX`.
#[inline]
pub fn count<T, const N: usize>(shape: [usize; N]) -> Result<usize> {
    if shape.contains(&0) {
        return Ok(0);
    }
    let bytes = shape
        .iter()
        .try_fold(size_of::<T>().max(1), |bytes, &size| bytes.checked_mul(size))
        .filter(|&bytes| isize::try_from(bytes).is_ok());
    match bytes {
        Some(bytes) => Ok(bytes / size_of::<T>().max(1)),
        None => Err(Error::Memory(format!("an array of shape {shape:?} is too large"))),
    }
}

impl<'a, T, const N: usize> View<'a, T, N> {
    /// A contiguous view of a slice.
    ///
    /// # Errors
    /// If the slice does not hold exactly the shape.
    #[inline]
    pub fn contiguous(data: &'a [T], shape: [usize; N]) -> Result<Self> {
        if count::<T, N>(shape)? != data.len() {
            let len = data.len();
            return Err(Error::Value(format!("{len} numbers cannot have shape {shape:?}")));
        }
        // SAFETY: every position of the shape lies in the slice.
        Ok(unsafe { Self::from_raw_parts(data.as_ptr(), shape, contiguous_strides(shape)) })
    }

    /// A view of foreign memory.
    ///
    /// # Safety
    /// For `'a`, every position of the shape must be an aligned, readable number that nobody
    /// writes to.
    #[inline]
    pub unsafe fn from_raw_parts(start: *const T, shape: [usize; N], strides: [isize; N]) -> Self {
        Self { start, shape, strides, data: PhantomData }
    }

    /// The address of the first number.
    #[inline(always)]
    pub fn as_ptr(&self) -> *const T {
        self.start
    }

    /// The number at a position.
    ///
    /// # Panics
    /// If the position is out of range.
    #[inline(always)]
    pub fn get(&self, position: [usize; N]) -> T
    where
        T: Copy,
    {
        // SAFETY: `offset` checks the position, and the constructor promised that it is readable.
        unsafe { *self.start.offset(offset(self.shape, self.strides, position)) }
    }
}

impl<'a, T, const N: usize> ViewMut<'a, T, N> {
    /// A contiguous view of a slice.
    ///
    /// # Errors
    /// If the slice does not hold exactly the shape.
    #[inline]
    pub fn contiguous(data: &'a mut [T], shape: [usize; N]) -> Result<Self> {
        if count::<T, N>(shape)? != data.len() {
            let len = data.len();
            return Err(Error::Value(format!("{len} numbers cannot have shape {shape:?}")));
        }
        // SAFETY: every position of the shape lies in the slice, and no two are the same.
        Ok(unsafe { Self::from_raw_parts(data.as_mut_ptr(), shape, contiguous_strides(shape)) })
    }

    /// A view of foreign memory.
    ///
    /// # Safety
    /// For `'a`, every position of the shape must be an aligned, writable number that nobody else
    /// reads or writes, and no two positions may be the same number.
    #[inline]
    pub unsafe fn from_raw_parts(start: *mut T, shape: [usize; N], strides: [isize; N]) -> Self {
        Self { start, shape, strides, data: PhantomData }
    }

    /// The address of the first number.
    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }

    /// The same view for a shorter time.
    #[inline(always)]
    pub fn reborrow(&mut self) -> ViewMut<'_, T, N> {
        ViewMut { start: self.start, shape: self.shape, strides: self.strides, data: PhantomData }
    }

    /// A shared view of the same numbers.
    #[inline(always)]
    pub fn as_view(&self) -> View<'_, T, N> {
        View { start: self.start, shape: self.shape, strides: self.strides, data: PhantomData }
    }

    /// Puts a number at a position.
    ///
    /// # Panics
    /// If the position is out of range.
    #[inline(always)]
    pub fn set(&mut self, position: [usize; N], value: T) {
        // SAFETY: `offset` checks the position, and the constructor promised that it is writable.
        unsafe { *self.start.offset(offset(self.shape, self.strides, position)) = value }
    }

    /// The blocks of `block` positions that tile the view; those at its ends are smaller. A length
    /// of 0 leaves a dimension uncut, even an empty one.
    pub fn blocks(self, block: [usize; N]) -> crate::parallel::Blocks<'a, T, N> {
        crate::parallel::Blocks::new(self, block)
    }
}

#[inline(always)]
fn offset<const N: usize>(shape: [usize; N], strides: [isize; N], position: [usize; N]) -> isize {
    let mut offset = 0;
    for axis in 0..N {
        assert!(position[axis] < shape[axis], "position {position:?} in shape {shape:?}");
        offset += position[axis] as isize * strides[axis];
    }
    offset
}

/// What shared and exclusive views have in common.
macro_rules! geometry {
    ($view:ident) => {
        impl<'a, T, const N: usize> $view<'a, T, N> {
            /// The length of each dimension.
            #[inline(always)]
            pub fn shape(&self) -> [usize; N] {
                self.shape
            }

            /// The distance in numbers between neighbours along each dimension.
            #[inline(always)]
            pub fn strides(&self) -> [isize; N] {
                self.strides
            }

            /// Whether neighbours along the last dimension are neighbours in memory, as far as there are
            /// any.
            #[inline(always)]
            pub fn has_unit_columns(&self) -> bool {
                self.strides[N - 1] == 1 || self.shape[N - 1] <= 1 || self.shape.contains(&0)
            }

            /// The dimensions in another order.
            ///
            /// # Panics
            /// If `axes` is not a permutation.
            #[inline(always)]
            pub fn permute(self, axes: [usize; N]) -> Self {
                let mut seen = [false; N];
                axes.iter().for_each(|&axis| seen[axis] = true);
                assert!(seen.iter().all(|&axis| axis), "{axes:?} is not a permutation");
                Self {
                    shape: axes.map(|axis| self.shape[axis]),
                    strides: axes.map(|axis| self.strides[axis]),
                    ..self
                }
            }

            /// The positions in `range` along `axis`.
            ///
            /// # Panics
            /// If the range ends beyond the dimension.
            #[inline(always)]
            pub fn slice(self, axis: usize, range: Range<usize>) -> Self {
                assert!(range.start <= range.end && range.end <= self.shape[axis]);
                let mut shape = self.shape;
                shape[axis] = range.len();
                let skipped = range.start as isize * self.strides[axis];
                // `wrapping`: an empty view may point anywhere, and is never read.
                Self { start: self.start.wrapping_offset(skipped), shape, ..self }
            }

            /// The same numbers behind a new first dimension of length 1.
            #[inline(always)]
            pub fn alone<const M: usize>(self) -> $view<'a, T, M> {
                const { assert!(M == N + 1) };
                let (mut shape, mut strides) = ([1; M], [0; M]);
                shape[1..].copy_from_slice(&self.shape);
                strides[1..].copy_from_slice(&self.strides);
                $view { start: self.start, shape, strides, data: PhantomData }
            }

            /// What lies at fixed positions of the first `L` dimensions.
            ///
            /// # Panics
            /// If a position is out of range.
            #[inline(always)]
            pub fn inner<const L: usize, const M: usize>(
                self,
                leading: [usize; L],
            ) -> $view<'a, T, M> {
                const { assert!(L + M == N) };
                let mut skipped = 0;
                for axis in 0..L {
                    assert!(leading[axis] < self.shape[axis]);
                    skipped += leading[axis] as isize * self.strides[axis];
                }
                $view {
                    start: self.start.wrapping_offset(skipped),
                    shape: std::array::from_fn(|axis| self.shape[L + axis]),
                    strides: std::array::from_fn(|axis| self.strides[L + axis]),
                    data: PhantomData,
                }
            }
        }

        impl<'a, T> $view<'a, T, 3> {
            /// The first two dimensions as one; nothing where no single stride leads through them.
            #[inline(always)]
            pub fn merge_rows(self) -> Option<$view<'a, T, 2>> {
                let Self { start, shape: [outer, inner, columns], strides, data } = self;
                let [step, row, column] = strides;
                let stride = if inner == 1 { step } else { row };
                let merges = outer <= 1 || inner <= 1 || step == inner as isize * row;
                let rows = outer.checked_mul(inner)?;
                merges.then_some($view {
                    start,
                    shape: [rows, columns],
                    strides: [stride, column],
                    data,
                })
            }
        }

        impl<'a, T> $view<'a, T, 2> {
            /// The number of rows.
            #[inline(always)]
            pub fn rows(&self) -> usize {
                self.shape[0]
            }

            /// The number of columns.
            #[inline(always)]
            pub fn columns(&self) -> usize {
                self.shape[1]
            }

            /// Columns in groups of `width`: position `[row, group, column]` is that of `[row, group ·
            /// width + column]`.
            ///
            /// # Panics
            /// If the columns are not whole groups.
            #[inline(always)]
            pub fn split_columns(self, width: usize) -> $view<'a, T, 3> {
                let Self { start, shape: [rows, columns], strides: [row, column], data } = self;
                assert!(
                    width > 0 && columns % width == 0,
                    "{columns} columns in groups of {width}"
                );
                let strides = [row, width as isize * column, column];
                $view { start, shape: [rows, columns / width, width], strides, data }
            }

            /// Rows become columns.
            #[inline(always)]
            pub fn transpose(self) -> Self {
                self.permute([1, 0])
            }
        }
    };
}

geometry!(View);
geometry!(ViewMut);

impl<T, const N: usize> View<'_, T, N> {
    /// The view with dimensions of 1 repeated, by a stride of 0, to the lengths of `shape`.
    ///
    /// # Errors
    /// If another dimension differs.
    pub fn broadcast(mut self, shape: [usize; N]) -> Result<Self> {
        for axis in 0..N {
            if self.shape[axis] == shape[axis] {
                continue;
            }
            if self.shape[axis] != 1 {
                let own = self.shape;
                return Err(Error::Value(format!(
                    "shape {own:?} cannot be broadcast to {shape:?}"
                )));
            }
            self.strides[axis] = 0;
        }
        Ok(Self { shape, ..self })
    }
}

impl<'a, T> View<'a, T, 2> {
    /// A row as a slice.
    ///
    /// # Panics
    /// If there is no such row, or its numbers are not neighbours in memory.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.shape[0] && self.has_unit_columns());
        // SAFETY: the row exists and its columns are neighbours.
        unsafe {
            let start = self.start.offset(row as isize * self.strides[0]);
            std::slice::from_raw_parts(start, self.shape[1])
        }
    }
}

impl<T> ViewMut<'_, T, 2> {
    /// A row as a slice.
    ///
    /// # Panics
    /// If there is no such row, or its numbers are not neighbours in memory.
    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.shape[0] && self.has_unit_columns());
        // SAFETY: the row exists, its columns are neighbours, and the borrow is exclusive.
        unsafe {
            let start = self.start.offset(row as isize * self.strides[0]);
            std::slice::from_raw_parts_mut(start, self.shape[1])
        }
    }
}

#[cfg(test)]
mod tests;
