//! Sums over all rows, pairwise, so that rounding grows with the logarithm of their number.

use fusewire_simd::{Element, Kernel, Storage};

use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Rows that are summed in one chain: as many as the loads that hide an addition's latency.
const CHAIN: usize = 8;

/// Columns that are summed at a time: all levels' sums stay in the first-level cache.
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
    try_for_each_part(team, sums.blocks([COLUMNS]), |index, mut sums| {
        let [columns] = sums.shape();
        let mut totals = Scratch::zeros(columns)?;
        let rows = rows.slice(1, index * COLUMNS..index * COLUMNS + columns);
        E::dispatch(ColumnSums { rows, sums: &mut totals })?;
        for (column, &total) in totals.iter().enumerate() {
            sums.set([column], E::from_real(total));
        }
        Ok(())
    })
}

/// Adds the sum of each column to what is there.
pub struct ColumnSums<'a, E: Element> {
    /// What is summed; rows are contiguous.
    pub rows: View<'a, E, 2>,
    /// One for each column.
    pub sums: &'a mut [E::Real],
}

impl<E: Element> Kernel<E> for ColumnSums<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { rows, sums } = self;
        let chains = rows.rows().div_ceil(CHAIN);
        // Level by level the sums of twice as many chains, as the digits of a binary counter: those of
        // the ones in the number of chains so far are in use.
        let levels = (usize::BITS - chains.leading_zeros()) as usize;
        let mut memory = Scratch::take(levels * COLUMNS)?;
        for (block, sums) in sums.chunks_mut(COLUMNS).enumerate() {
            let first = block * COLUMNS;
            let rows = rows.slice(1, first..first + sums.len());
            for chain in 0..chains {
                let start = chain * CHAIN;
                let mut parts: [&[E]; CHAIN] = [&[]; CHAIN];
                let count = CHAIN.min(rows.rows() - start);
                for (row, part) in parts.iter_mut().enumerate().take(count) {
                    *part = rows.row(start + row);
                }
                let carried = chain.trailing_ones() as usize;
                for column in (0..sums.len()).step_by(I::LANES) {
                    let mut sum = isa.zero();
                    for part in &parts[..count] {
                        sum = isa.add(sum, isa.read_first(&part[column..]));
                    }
                    for level in 0..carried {
                        sum = isa.add(isa.load(&memory[level * COLUMNS + column..]), sum);
                    }
                    isa.store(&mut memory[carried * COLUMNS + column..], sum);
                }
            }
            for (column, target) in sums.chunks_mut(I::LANES).enumerate() {
                let mut sum = isa.zero();
                for level in (0..levels).filter(|level| chains >> level & 1 == 1) {
                    let part = isa.load(&memory[level * COLUMNS + column * I::LANES..]);
                    sum = isa.add(sum, part);
                }
                isa.store_first(target, isa.add(isa.load_first(target), sum));
            }
        }
        Ok(())
    }
}
