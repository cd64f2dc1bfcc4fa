//! An output cut into parts that threads may write at the same time.

use crate::view::ViewMut;

/// An output in parts, of which no two share a number.
///
/// # Safety
/// Parts of different indices below `parts` must be disjoint.
pub unsafe trait Partition: Sync {
    /// One part.
    type Part;

    /// The number of parts.
    fn parts(&self) -> usize;

    /// The part at `index`.
    ///
    /// # Safety
    /// While a part lives, `part` must not be called with the same index again, and the output
    /// must not be used otherwise.
    unsafe fn part(&self, index: usize) -> Self::Part;
}

/// All parts at once, in order.
pub fn all_parts<P: Partition>(partition: P) -> Vec<P::Part> {
    // SAFETY: each index comes once, and the partition, which owns the exclusive views of the
    // output, is used for nothing else.
    (0..partition.parts()).map(|index| unsafe { partition.part(index) }).collect()
}

/// A view cut into a grid of blocks, numbered with the last dimension fastest.
pub struct Blocks<'a, T, const N: usize> {
    view: ViewMut<'a, T, N>,
    start: *mut T,
    block: [usize; N],
    grid: [usize; N],
}

// SAFETY: blocks are handed out as exclusive views, at most once at a time by the trait's contract.
unsafe impl<T: Send, const N: usize> Sync for Blocks<'_, T, N> {}

impl<'a, T, const N: usize> Blocks<'a, T, N> {
    pub(crate) fn new(mut view: ViewMut<'a, T, N>, block: [usize; N]) -> Self {
        let shape = view.shape();
        let grid = std::array::from_fn(|axis| match block[axis] {
            0 => 1,
            length => shape[axis].div_ceil(length),
        });
        Self { start: view.as_mut_ptr(), view, block, grid }
    }

    /// The place in the grid of the block at `index`.
    pub fn place(&self, index: usize) -> [usize; N] {
        place(self.grid, index)
    }
}

/// The place of `index` in a grid numbered with the last dimension fastest.
pub(crate) fn place<const N: usize>(grid: [usize; N], mut index: usize) -> [usize; N] {
    let mut place = [0; N];
    for axis in (0..N).rev() {
        place[axis] = index % grid[axis];
        index /= grid[axis];
    }
    place
}

// SAFETY: blocks at different places of the grid share no position of the view, and no two
// positions of an exclusive view are the same number.
unsafe impl<'a, T: Send, const N: usize> Partition for Blocks<'a, T, N> {
    type Part = ViewMut<'a, T, N>;

    fn parts(&self) -> usize {
        self.grid.iter().product()
    }

    unsafe fn part(&self, index: usize) -> ViewMut<'a, T, N> {
        assert!(index < self.parts());
        let place = self.place(index);
        let (shape, strides) = (self.view.shape(), self.view.strides());
        let first: [usize; N] = std::array::from_fn(|axis| place[axis] * self.block[axis]);
        let skipped: isize = (0..N).map(|axis| first[axis] as isize * strides[axis]).sum();
        let size = std::array::from_fn(|axis| match self.block[axis] {
            0 => shape[axis],
            length => length.min(shape[axis] - first[axis]),
        });
        // SAFETY: the block lies inside the view, and the caller keeps it exclusive.
        unsafe { ViewMut::from_raw_parts(self.start.wrapping_offset(skipped), size, strides) }
    }
}

/// The parts of another partition, the last first.
pub struct Reversed<P>(pub P);

// SAFETY: different indices stay different.
unsafe impl<P: Partition> Partition for Reversed<P> {
    type Part = P::Part;

    fn parts(&self) -> usize {
        self.0.parts()
    }

    unsafe fn part(&self, index: usize) -> P::Part {
        // SAFETY: the caller's promise holds for the mirrored index.
        unsafe { self.0.part(self.0.parts() - 1 - index) }
    }
}

macro_rules! partition_of_tuple {
    ($($name:ident),+) => {
        // SAFETY: parts of different indices are tuples of disjoint parts of different outputs.
        #[allow(non_snake_case)]
        unsafe impl<$($name: Partition),+> Partition for ($($name,)+) {
            type Part = ($($name::Part,)+);

            fn parts(&self) -> usize {
                let ($($name,)+) = self;
                let parts = [$($name.parts()),+];
                assert!(parts.iter().all(|&count| count == parts[0]), "parts {parts:?} differ");
                parts[0]
            }

            unsafe fn part(&self, index: usize) -> Self::Part {
                let ($($name,)+) = self;
                // SAFETY: the caller's promise holds for each of them.
                ($(unsafe { $name.part(index) },)+)
            }
        }
    };
}

partition_of_tuple!(A, B);
partition_of_tuple!(A, B, C);
partition_of_tuple!(A, B, C, D);
