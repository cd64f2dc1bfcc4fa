//! Sums over all rows, which make the parameters' gradients: in two levels, so that rounding grows
//! with neither the length nor the number of sequences alone.

use fusewire_simd::{Kernel, Lanes, Real};

use crate::Result;
use crate::gemm::{Matmul, NoEpilogue, Start, matmul};
use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Rows whose products are summed in one chain.
const PRODUCT_ROWS: usize = 128;

/// Rows that are summed in one chain.
const SUM_ROWS: usize = 32;

/// Columns that a thread sums at a time; both levels' sums stay in the first-level cache.
const COLUMNS: usize = 512;

/// `A · B` summed over many rows of `B`.
pub(super) fn product_over_rows<T: Real>(
    a: View<'_, T, 2>,
    b: View<'_, T, 2>,
    mut c: ViewMut<'_, T, 2>,
    team: &dyn Team,
) -> Result<()> {
    for first in (0..b.rows().max(1)).step_by(PRODUCT_ROWS) {
        let rows = first..b.rows().min(first + PRODUCT_ROWS);
        let start = if first == 0 { Start::Zero } else { Start::Accumulate };
        let (a, b) = (a.slice(1, rows.clone()), b.slice(0, rows));
        matmul(Matmul { a, b, c: c.reborrow(), start, epilogue: NoEpilogue }, team)?;
    }
    Ok(())
}

/// The sum of each column.
pub(super) fn column_sums<T: Real>(
    rows: View<'_, T, 2>,
    sums: ViewMut<'_, T, 1>,
    team: &dyn Team,
) -> Result<()> {
    try_for_each_part(team, sums.blocks([COLUMNS]), |index, sums| {
        let first = index * COLUMNS;
        let [columns] = sums.shape();
        let rows = rows.slice(1, first..first + columns);
        T::dispatch(ColumnSums { rows, sums, partial: Scratch::zeros(columns)? });
        Ok(())
    })
}

struct ColumnSums<'a, T: Real> {
    rows: View<'a, T, 2>,
    sums: ViewMut<'a, T, 1>,
    partial: Scratch<T>,
}

impl<T: Real> Kernel<T> for ColumnSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        let Self { rows, sums, mut partial } = self;
        let mut sums = sums.alone::<2>();
        let sums = sums.row_mut(0);
        let add = |sums: &mut [T], numbers: &[T]| {
            for (sum, numbers) in sums.chunks_mut(I::LANES).zip(numbers.chunks(I::LANES)) {
                isa.store_first(sum, isa.add(isa.load_first(sum), isa.load_first(numbers)));
            }
        };
        sums.fill(T::ZERO);
        for row in 0..rows.rows() {
            add(&mut partial, rows.row(row));
            if (row + 1) % SUM_ROWS == 0 || row + 1 == rows.rows() {
                add(sums, &partial);
                partial.fill(T::ZERO);
            }
        }
    }
}
