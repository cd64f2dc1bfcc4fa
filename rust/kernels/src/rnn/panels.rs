//! Weights as the steps' products read them: packed into panels, or as they lie.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use fusewire_simd::{Element, Factor, Kernel, Lanes, Real, Storage};

use super::cell::Cell;
use super::kept;
use crate::Result;
use crate::gemm::{Start, copy_rows, multiply_block, multiply_rows, panel_columns};
use crate::parallel::{Serial, Team, for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Depth of a product at a time, about: that much of a panel stays in the first-level cache while the
/// rows pass over it, and no sum runs much longer in one chain.
const DEPTH: usize = 128;

/// What may be added to it, so that no pass is made for a few.
const REST: usize = 32;

/// Numbers that are packed in so little time, some ten microseconds, that a team would not gain any.
const WORTH_A_TEAM: usize = 1 << 18;

/// Matrices `(depth, width)` of factors, one behind the other, each in strips of columns that products
/// read as streams.
struct Panels<E: Element> {
    factors: Scratch<E::Factor>,
    depth: usize,
    width: usize,
    /// Columns of a strip, which divide the width.
    strip: usize,
}

impl<E: Element> Panels<E> {
    /// Fills `count` panels, each by `pack` with its index and its strips, `(strips, depth, strip)`.
    fn fill<I: Storage<E>>(
        [count, depth, width]: [usize; 3],
        team: &dyn Team,
        pack: impl Fn(usize, ViewMut<'_, E::Factor, 3>) + Sync,
    ) -> Result<Self> {
        let strip = panel_columns(I::REGISTERS, I::LANES, width);
        let strips = width / strip;
        let mut factors = Scratch::take(count * depth * width)?;
        if depth > 0 {
            let team = if factors.len() < WORTH_A_TEAM { &Serial } else { team };
            let target = ViewMut::contiguous(&mut factors, [count * strips, depth, strip])?;
            for_each_part(team, target.blocks([strips, depth, strip]), pack);
        }
        Ok(Self { factors, depth, width, strip })
    }

    /// `C (+)= A ·` one panel, of which `c` has the first columns.
    #[inline(always)]
    fn multiply<I: Storage<E>>(
        &self,
        isa: I,
        panel: usize,
        a: View<'_, E::Factor, 2>,
        mut c: ViewMut<'_, E::Real, 2>,
        start: Start,
    ) -> Result<()> {
        let size = self.depth * self.width;
        let factors = &self.factors[panel * size..][..size];
        let passes = self.depth.saturating_sub(REST).div_ceil(DEPTH).max(1);
        for first in (0..self.depth.max(1)).step_by(self.depth.div_ceil(passes).max(1)) {
            let depth = first..self.depth.min(first + self.depth.div_ceil(passes));
            let a = a.slice(1, depth.clone());
            let start = if first == 0 { start } else { Start::Accumulate };
            for column in (0..c.columns()).step_by(self.strip) {
                let columns = column..c.columns().min(column + self.strip);
                let strip = &factors[column * self.depth..][..self.strip * self.depth];
                let b = View::contiguous(strip, [self.depth, self.strip])?;
                let b = b.slice(0, depth.clone()).slice(1, 0..columns.len());
                let c = c.reborrow().slice(1, columns);
                multiply_block::<E, _, _>(isa, a, b, c, start, &mut ());
            }
        }
        Ok(())
    }
}

/// The rows of a weight `(gates · size, …)` gate by gate in each of `blocks` of units, with the place of
/// the first in the order `[block][gate][unit]`.
fn gate_rows<C: Cell>(
    size: usize,
    blocks: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> + Clone + Sync {
    blocks.flat_map(move |block| {
        let units = block * C::UNITS..size.min((block + 1) * C::UNITS);
        (0..C::GATES).map(move |gate| {
            let place = block * C::COLUMNS + gate * C::UNITS;
            (place, gate * size + units.start..gate * size + units.end)
        })
    })
}

/// A weight `(gates · size, depth)` whose product makes the gates' sums.
pub(super) enum GateWeight<'a, E: Element, C> {
    /// As it lies.
    Plain(View<'a, E, 2>),
    /// Panels `[block of units][depth][gate][unit]`: all gates of a block side by side, so that the
    /// cell can run on it right after the panel's product. Units beyond the last are 0.
    Packed(Arc<PackedGates<E, C>>),
}

/// See [`GateWeight::Packed`].
pub(super) struct PackedGates<E: Element, C>(Panels<E>, PhantomData<C>);

impl<'a, E: Element, C: Cell> GateWeight<'a, E, C> {
    /// Packs `weight` unless so `few` rows are multiplied with it that this would not be repaid.
    pub(super) fn new<I: Storage<E>>(
        isa: I,
        weight: View<'a, E, 2>,
        few: bool,
        team: &dyn Team,
    ) -> Result<Self> {
        if few && weight.has_unit_columns() {
            return Ok(Self::Plain(weight));
        }
        let blocks = (weight.rows() / C::GATES).div_ceil(C::UNITS);
        let shape = [blocks, weight.columns().div_ceil(E::Factor::DEPTH), C::COLUMNS];
        let pack = || {
            let panels = Panels::fill::<I>(shape, team, |block, panel| {
                isa.vectorize(PackGates { weight, block, panel, cell: PhantomData::<C> });
            })?;
            Ok(PackedGates(panels, PhantomData))
        };
        Ok(Self::Packed(kept::packed(isa, weight, pack)?))
    }

    /// `C (+)= A · Wᵀ` for blocks of units, in columns `[block][gate][unit]`; columns of missing units
    /// may stay as they are.
    #[inline(always)]
    pub(super) fn multiply<I: Storage<E>>(
        &self,
        isa: I,
        blocks: Range<usize>,
        a: View<'_, E::Factor, 2>,
        mut c: ViewMut<'_, E::Real, 2>,
        start: Start,
    ) -> Result<()> {
        match self {
            Self::Packed(packed) => {
                let panels = &packed.0;
                for (index, block) in blocks.enumerate() {
                    let columns = index * C::COLUMNS..(index + 1) * C::COLUMNS;
                    panels.multiply(isa, block, a, c.reborrow().slice(1, columns), start)?;
                }
            }
            Self::Plain(weight) => {
                let size = weight.rows() / C::GATES;
                let units = blocks.start * C::UNITS..size.min(blocks.end * C::UNITS);
                for gate in 0..C::GATES {
                    let rows = gate * size + units.start..gate * size + units.end;
                    let c = c.reborrow().split_columns(C::COLUMNS);
                    let c = c.slice(2, gate * C::UNITS..(gate + 1) * C::UNITS);
                    multiply_rows::<E, I>(isa, a, weight.slice(0, rows), c, start);
                }
            }
        }
        Ok(())
    }
}

struct PackGates<'a, E: Element, C> {
    weight: View<'a, E, 2>,
    block: usize,
    panel: ViewMut<'a, E::Factor, 3>,
    cell: PhantomData<C>,
}

impl<E: Element, C: Cell> Kernel<E> for PackGates<'_, E, C> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { weight, block, mut panel, .. } = self;
        let size = weight.rows() / C::GATES;
        let [_, depth, strip] = panel.shape();
        let width = strip.min(C::UNITS);
        for (place, rows) in gate_rows::<C>(size, block..block + 1) {
            for unit in (0..C::UNITS).step_by(width) {
                let first = place - block * C::COLUMNS + unit;
                let part = panel.reborrow().inner::<1, 2>([first / strip]);
                let mut part = part.slice(1, first % strip..first % strip + width);
                let rows = rows.end.min(rows.start + unit)..rows.end.min(rows.start + unit + width);
                let existing = rows.len();
                let source = weight.slice(0, rows).transpose();
                copy_rows(isa, source, part.reborrow().slice(1, 0..existing));
                if existing < width {
                    for row in 0..depth {
                        part.row_mut(row)[existing..].fill(E::Factor::default());
                    }
                }
            }
        }
    }
}

/// The same weight for the way back, from gradients `[block of units][gate][unit]` of the gates' sums
/// to those of what it was multiplied with.
pub(super) enum BackWeight<'a, T: Real, C> {
    /// As it lies.
    Plain(View<'a, T, 2>),
    /// Panels of columns, with rows in the gradients' order; rows of units beyond the last are 0.
    Packed(Arc<PackedColumns<T, C>>),
}

/// See [`BackWeight::Packed`].
pub(super) struct PackedColumns<T: Real, C>(Panels<T>, PhantomData<C>);

/// Columns of such a panel: two vectors of the widest registers in float32.
const PANEL: usize = 32;

impl<'a, T: Real, C: Cell> BackWeight<'a, T, C> {
    /// Packs `weight` unless so `few` rows are multiplied with it that this would not be repaid.
    pub(super) fn new<I: Lanes<T>>(
        isa: I,
        weight: View<'a, T, 2>,
        few: bool,
        team: &dyn Team,
    ) -> Result<Self> {
        if few && weight.has_unit_columns() {
            return Ok(Self::Plain(weight));
        }
        let blocks = (weight.rows() / C::GATES).div_ceil(C::UNITS);
        let shape = [weight.columns().div_ceil(PANEL), blocks * C::COLUMNS, PANEL];
        let pack = || {
            let panels = Panels::fill::<I>(shape, team, |index, panel| {
                let columns = index * PANEL..weight.columns().min((index + 1) * PANEL);
                let weight = weight.slice(1, columns);
                isa.vectorize(PackColumns { weight, panel, cell: PhantomData::<C> });
            })?;
            Ok(PackedColumns(panels, PhantomData))
        };
        Ok(Self::Packed(kept::packed(isa, weight, pack)?))
    }

    /// `C += A · W` for some columns of `W`, of which the first begins a panel.
    #[inline(always)]
    pub(super) fn multiply<I: Lanes<T>>(
        &self,
        isa: I,
        columns: Range<usize>,
        a: View<'_, T, 2>,
        mut c: ViewMut<'_, T, 2>,
    ) -> Result<()> {
        match self {
            Self::Packed(packed) => {
                let panels = &packed.0;
                for first in columns.clone().step_by(PANEL) {
                    let target = first..columns.end.min(first + PANEL);
                    let target = target.start - columns.start..target.end - columns.start;
                    let c = c.reborrow().slice(1, target);
                    panels.multiply(isa, first / PANEL, a, c, Start::Accumulate)?;
                }
            }
            Self::Plain(weight) => {
                let size = weight.rows() / C::GATES;
                for (first, rows) in gate_rows::<C>(size, 0..size.div_ceil(C::UNITS)) {
                    let a = a.slice(1, first..first + rows.len());
                    let b = weight.slice(0, rows).slice(1, columns.clone());
                    let start = Start::Accumulate;
                    multiply_block::<T, _, _>(isa, a, b, c.reborrow(), start, &mut ());
                }
            }
        }
        Ok(())
    }
}

struct PackColumns<'a, T, C> {
    weight: View<'a, T, 2>,
    panel: ViewMut<'a, T, 3>,
    cell: PhantomData<C>,
}

impl<T: Real, C: Cell> Kernel<T> for PackColumns<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        let Self { weight, mut panel, .. } = self;
        let size = weight.rows() / C::GATES;
        let [_, _, strip] = panel.shape();
        for column in (0..weight.columns()).step_by(strip) {
            let weight = weight.slice(1, column..weight.columns().min(column + strip));
            let mut part = panel.reborrow().inner::<1, 2>([column / strip]);
            for (first, rows) in gate_rows::<C>(size, 0..size.div_ceil(C::UNITS)) {
                let end = first + rows.len();
                let target = part.reborrow().slice(0, first..end).slice(1, 0..weight.columns());
                copy_rows(isa, weight.slice(0, rows), target);
                (end..first + C::UNITS).for_each(|row| part.row_mut(row).fill(T::ZERO));
            }
        }
    }
}
