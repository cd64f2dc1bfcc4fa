//! How the work of a layer is cut for threads.

use std::ops::Range;

use super::weights::Sizes;

/// Sequences of a run at most: more would push a step's products out of the first-level cache.
const MOST_ROWS: usize = 64;

/// Sequences that are worth a run of their own: fewer would read the weights for too few rows.
const ENOUGH_ROWS: usize = 32;

/// Units of a part are a multiple of this, whole blocks of every cell and whole panels of columns.
pub(super) const GRAIN: usize = 32;

/// Units of a part at least: fewer are computed in less time than threads take to wait for each other.
const FEWEST_UNITS: usize = 64;

/// Runs of sequences, which do not wait for each other, and parts of each run's units, which do so at
/// every step.
///
/// A number does not depend on the run and the part that it is computed in.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Sequences of a run; the last may have fewer.
    pub(super) rows: usize,
    /// Units of a part; the last may have fewer.
    pub(super) units: usize,
    /// Parts of a run.
    pub(super) parts: usize,
}

impl Cut {
    /// Gives each of `threads` a share of `directions` of a layer.
    pub(super) fn new(sizes: Sizes, directions: usize, threads: usize) -> Self {
        let Sizes { batch, hidden_size, .. } = sizes;
        let wanted = threads.div_ceil(directions.max(1));
        let runs = batch.div_ceil(MOST_ROWS).max(wanted.min(batch / ENOUGH_ROWS)).max(1);
        let parts = threads.div_ceil(directions.max(1) * runs);
        let units = hidden_size.div_ceil(parts).max(FEWEST_UNITS).next_multiple_of(GRAIN);
        Self { rows: batch.div_ceil(runs).max(1), units, parts: hidden_size.div_ceil(units) }
    }

    /// The sequences of a run.
    pub(super) fn sequences(&self, run: usize, batch: usize) -> Range<usize> {
        run * self.rows..batch.min((run + 1) * self.rows)
    }

    /// The units of a part.
    pub(super) fn part(&self, part: usize, hidden_size: usize) -> Range<usize> {
        part * self.units..hidden_size.min((part + 1) * self.units)
    }
}
