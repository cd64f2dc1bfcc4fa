//! Weights packed once per call into the layout that the step's product reads as one stream.

use fusewire_simd::{Kernel, Lanes, Real};

use crate::Result;
use crate::gemm::copy_rows;
use crate::parallel::{Team, for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// A matrix `(depth, gates · size)` in panels `[block of units][depth][gate][unit]`.
///
/// A panel holds all gates of its units side by side, so that the cell can run on a block of units
/// right after the panel's product. Units beyond the last are 0.
pub(super) struct Panels<T: Real> {
    numbers: Scratch<T>,
    depth: usize,
    width: usize,
}

impl<T: Real> Panels<T> {
    /// Packs `matrix`, whose columns are `gates` runs of equal size, in blocks of `units` of each.
    pub(super) fn pack<I: Lanes<T>>(
        isa: I,
        matrix: View<'_, T, 2>,
        gates: usize,
        units: usize,
        team: &dyn Team,
    ) -> Result<Self> {
        let (depth, size, width) = (matrix.rows(), matrix.columns() / gates, gates * units);
        let blocks = size.div_ceil(units);
        let mut numbers = Scratch::take(blocks * depth * width)?;
        if depth > 0 {
            let target = ViewMut::contiguous(&mut numbers, [blocks, depth, width])?;
            for_each_part(team, target.blocks([1, depth, width]), |block, panel| {
                let first = block * units;
                let count = units.min(size - first);
                let panel = panel.inner([0]);
                isa.vectorize(PackPanel { matrix, gates, units, size, first, count, panel });
            });
        }
        Ok(Self { numbers, depth, width })
    }

    /// One panel, `(depth, gates · units)`.
    pub(super) fn panel(&self, block: usize) -> Result<View<'_, T, 2>> {
        let size = self.depth * self.width;
        View::contiguous(&self.numbers[block * size..][..size], [self.depth, self.width])
    }
}

struct PackPanel<'a, T> {
    matrix: View<'a, T, 2>,
    gates: usize,
    units: usize,
    size: usize,
    first: usize,
    count: usize,
    panel: ViewMut<'a, T, 2>,
}

impl<T: Real> Kernel<T> for PackPanel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        for gate in 0..self.gates {
            let source = gate * self.size + self.first;
            let target = gate * self.units;
            let from = self.matrix.slice(1, source..source + self.count);
            copy_rows(isa, from, self.panel.reborrow().slice(1, target..target + self.count));
            for row in 0..self.panel.rows() {
                self.panel.row_mut(row)[target + self.count..target + self.units].fill(T::ZERO);
            }
        }
    }
}

/// A copy of rows, compiled once for all cells.
pub(super) struct CopyRows<'a, T>(pub(super) View<'a, T, 2>, pub(super) ViewMut<'a, T, 2>);

impl<T: Real> Kernel<T> for CopyRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        copy_rows(isa, self.0, self.1);
    }
}
