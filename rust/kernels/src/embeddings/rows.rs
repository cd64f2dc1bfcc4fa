//! Rows of tables: how threads share them, and how they are fetched ahead.

use fusewire_simd::Lanes;

use super::COLUMNS;
use crate::math::Elementary;
use crate::parallel::Team;

/// Columns for each thread. They do not depend on each other, so that their division changes no bit.
pub(super) fn width(columns: usize, team: &dyn Team) -> usize {
    (columns / COLUMNS).div_ceil(team.threads()) * COLUMNS
}

/// Asks for a row to be brought near.
#[inline(always)]
pub(super) fn prefetch_row<T: Elementary, I: Lanes<T>>(isa: I, row: &[T]) {
    for line in row.chunks(64 / size_of::<T>()) {
        isa.prefetch(line.as_ptr());
    }
}
