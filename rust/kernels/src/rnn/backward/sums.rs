//! Sums over rows, which make the biases' gradients: in two levels, so that rounding grows with neither
//! the length nor the number of sequences alone.

use fusewire_simd::{Kernel, Lanes, Real};

use crate::view::{View, ViewMut};

/// Rows that are summed in one chain.
const SUM_ROWS: usize = 32;

/// Adds the sum of each column to what is there.
pub(super) struct ColumnSums<'a, T> {
    pub(super) rows: View<'a, T, 2>,
    pub(super) sums: ViewMut<'a, T, 1>,
}

impl<T: Real> Kernel<T> for ColumnSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        const VECTORS: usize = 8;
        let Self { rows, sums } = self;
        let [count, columns] = rows.shape();
        let mut sums = sums.alone::<2>();
        let whole = columns - columns % (VECTORS * I::LANES);
        for first in (0..count).step_by(SUM_ROWS) {
            let chain = first..count.min(first + SUM_ROWS);
            for column in (0..whole).step_by(VECTORS * I::LANES) {
                let mut partial = [isa.zero(); VECTORS];
                for row in chain.clone() {
                    let row = &rows.row(row)[column..][..VECTORS * I::LANES];
                    for (partial, numbers) in partial.iter_mut().zip(row.chunks_exact(I::LANES)) {
                        *partial = isa.add(*partial, isa.load(numbers));
                    }
                }
                let target = &mut sums.row_mut(0)[column..][..VECTORS * I::LANES];
                for (target, partial) in target.chunks_exact_mut(I::LANES).zip(partial) {
                    isa.store(target, isa.add(isa.load(target), partial));
                }
            }
            for column in (whole..columns).step_by(I::LANES) {
                let mut partial = isa.zero();
                for row in chain.clone() {
                    partial = isa.add(partial, isa.load_first(&rows.row(row)[column..]));
                }
                let target = &mut sums.row_mut(0)[column..];
                isa.store_first(target, isa.add(isa.load_first(target), partial));
            }
        }
    }
}
