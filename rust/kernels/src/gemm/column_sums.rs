//! Sums over all rows, in two levels, so that rounding does not grow with their number alone.

use fusewire_simd::{Element, Kernel, Real, Storage};

use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Rows that are summed in one chain.
const ROWS: usize = 32;

/// Columns that a thread sums at a time; both levels' sums stay in the first-level cache.
const COLUMNS: usize = 512;

/// The sum of each column of `rows`, which must be contiguous.
///
/// # Errors
/// If `sums` has another length, or memory runs out.
pub fn column_sums<E: Element>(
    rows: View<'_, E, 2>,
    sums: ViewMut<'_, E, 1>,
    team: &dyn Team,
) -> Result<()> {
    if sums.shape() != [rows.columns()] {
        return Err(Error::shape("the column sums", &[rows.columns()], &sums.shape()));
    }
    try_for_each_part(team, sums.blocks([COLUMNS]), |index, sums| {
        let first = index * COLUMNS;
        let [columns] = sums.shape();
        let rows = rows.slice(1, first..first + columns);
        let (partial, total) = (Scratch::zeros(columns)?, Scratch::zeros(columns)?);
        E::dispatch(ColumnSums { rows, sums, partial, total });
        Ok(())
    })
}

struct ColumnSums<'a, E: Element> {
    rows: View<'a, E, 2>,
    sums: ViewMut<'a, E, 1>,
    partial: Scratch<E::Real>,
    total: Scratch<E::Real>,
}

impl<E: Element> Kernel<E> for ColumnSums<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { rows, mut sums, mut partial, mut total } = self;
        for row in 0..rows.rows() {
            let numbers = rows.row(row).chunks(I::LANES);
            for (sum, numbers) in partial.chunks_mut(I::LANES).zip(numbers) {
                isa.store_first(sum, isa.add(isa.load_first(sum), isa.read_first(numbers)));
            }
            if (row + 1) % ROWS == 0 || row + 1 == rows.rows() {
                for (sum, part) in total.chunks_mut(I::LANES).zip(partial.chunks(I::LANES)) {
                    isa.store_first(sum, isa.add(isa.load_first(sum), isa.load_first(part)));
                }
                partial.fill(E::Real::ZERO);
            }
        }
        for (column, &sum) in total.iter().enumerate() {
            sums.set([column], E::from_real(sum));
        }
    }
}
