//! Softmax over keys that come tile by tile, for queries that fill the vectors.
// Counted loops become registers; iterators over parts of arrays may not.
#![allow(clippy::needless_range_loop)]

use std::f64::consts::LOG2_E;
use std::ops::Range;

use fusewire_simd::{Abreast, Element, Factor, Lanes, Real, Storage};

use super::dropout::Keep;
use super::tile::Tile;
use crate::Result;
use crate::gemm::{DEEPEST, Scales, copy_transposed};
use crate::math::{Elementary, exp2_product, exp2_short, ln};
use crate::view::ViewMut;

/// Powers that are summed by themselves before they join the sum of all.
const SUMMED_TOGETHER: usize = 12;

/// The largest score of each query so far, and the sum of powers relative to it.
pub(super) struct Running<'a, E: Element> {
    maxima: &'a mut [E::Real],
    sums: &'a mut [E::Real],
    /// What scores are counted in.
    unit: E::Real,
}

impl<'a, E: Element<Real: Elementary>> Running<'a, E> {
    /// No keys so far, or one whose score is the `sink`; `numbers` holds twice the queries, and
    /// scores come in multiples of the `unit`, which is positive.
    #[inline(always)]
    pub(super) fn start(numbers: &'a mut [E::Real], sink: Option<E::Real>, unit: E::Real) -> Self {
        let (maxima, sums) = numbers.split_at_mut(numbers.len() / 2);
        let sink = sink.filter(|&sink| sink != E::Real::NEG_INFINITY);
        maxima.fill(sink.map_or(E::Real::NEG_INFINITY, |sink| sink / unit));
        // Not a number where the sink is ∞ or not a number.
        sums.fill(sink.map_or(E::Real::ZERO, |sink| E::Real::ONE + sink * E::Real::ZERO));
        Self { maxima, sums, unit }
    }

    /// Turns scores of some columns and rows into powers of e relative to the largest so far, and brings
    /// `output` to the same base; powers become factors of `E`, which take the first rows.
    ///
    /// What dropout decides comes with the key of the first row.
    #[inline(always)]
    pub(super) fn absorb<I: Storage<E>>(
        &mut self,
        isa: I,
        columns: Range<usize>,
        rows: Range<usize>,
        scores: &mut Tile<'_, E::Real>,
        output: &mut Tile<'_, E::Real>,
        dropout: Option<(&Keep, usize)>,
    ) {
        let mut column = columns.start;
        while column + 4 * I::LANES <= columns.end {
            self.absorb_strip::<I, 4>(isa, column, rows.clone(), scores, output, dropout);
            column += 4 * I::LANES;
        }
        while column < columns.end {
            self.absorb_strip::<I, 1>(isa, column, rows.clone(), scores, output, dropout);
            column += I::LANES;
        }
    }

    /// [`Running::absorb`] for `VECTORS` vectors of columns from `column` on.
    #[inline(always)]
    fn absorb_strip<I: Storage<E>, const VECTORS: usize>(
        &mut self,
        isa: I,
        column: usize,
        rows: Range<usize>,
        scores: &mut Tile<'_, E::Real>,
        output: &mut Tile<'_, E::Real>,
        dropout: Option<(&Keep, usize)>,
    ) {
        let wide = Abreast::<I, VECTORS>(isa);
        let width = scores.width();
        let columns = column..column + VECTORS * I::LANES;
        let maxima = &mut self.maxima[columns.clone()];
        let sums = &mut self.sums[columns.clone()];
        let before = wide.load(maxima);
        let mut highest = before;
        for row in scores.rows(rows.clone()).chunks_exact(width) {
            highest = wide.max(highest, wide.load(&row[columns.clone()]));
        }
        wide.store(maxima, highest);

        // A query that has seen no key stays at e^−∞ = 0 instead of −∞ − (−∞).
        let seen = wide.less(wide.splat(E::Real::NEG_INFINITY), highest);
        let base = wide.select(seen, highest, wide.zero());
        let octaves = E::Real::from_f64(self.unit.to_f64() * LOG2_E);
        let mut sum = wide.load(sums);
        if wide.any(wide.less(before, highest)) {
            let factors = power::<E, _>(wide, wide.sub(before, base), octaves);
            sum = wide.mul(sum, factors);
            scale_rows(wide, output, column, factors);
        }
        // In groups, because the rounding of a long running sum would be the error of the output.
        for first in rows.clone().step_by(SUMMED_TOGETHER) {
            let mut group = wide.zero();
            let end = rows.end.min(first + SUMMED_TOGETHER);
            for first in (first..end).step_by(E::Factor::DEPTH) {
                let mut parts = [[isa.zero(); DEEPEST]; VECTORS];
                for part in 0..E::Factor::DEPTH {
                    if first + part >= end {
                        continue;
                    }
                    let row = &mut scores.row_mut(first + part)[columns.clone()];
                    let fall = wide.sub(wide.load(row), base);
                    let mut powers = power::<E, _>(wide, fall, octaves);
                    group = wide.add(group, powers);
                    if let Some((keep, first_key)) = dropout {
                        wide.store(row, powers);
                        keep.apply_row(isa, first_key + first + part, column, row);
                        powers = wide.load(row);
                    }
                    for vector in 0..VECTORS {
                        parts[vector][part] = powers[vector];
                    }
                }
                let mut factors = [isa.zero(); VECTORS];
                for vector in 0..VECTORS {
                    factors[vector] = isa.join(&parts[vector][..E::Factor::DEPTH]);
                }
                let row = scores.row_mut(first / E::Factor::DEPTH);
                wide.store(&mut row[columns.clone()], factors);
            }
            sum = wide.add(sum, group);
        }
        wide.store(sums, sum);
    }

    /// Writes `sums`, divided by the sums of powers and transposed, to `output`, and the
    /// logarithms of all to `lse`.
    ///
    /// A query that saw no key gets 0 and −∞.
    #[inline(always)]
    pub(super) fn finish<I: Storage<E>>(
        self,
        isa: I,
        sums: &Tile<'_, E::Real>,
        output: ViewMut<'_, E, 2>,
        mut lse: ViewMut<'_, E::Real, 1>,
    ) -> Result<()> {
        let [queries] = lse.shape();
        for column in (0..sums.width()).step_by(I::LANES) {
            let sum = isa.load(&self.sums[column..]);
            let seen = isa.less(isa.zero(), sum);
            let factor = isa.select(seen, isa.div(isa.splat(E::Real::ONE), sum), sum);
            isa.store(&mut self.sums[column..], factor);
            let highest = isa.mul(isa.load(&self.maxima[column..]), isa.splat(self.unit));
            let logarithm = isa.add(highest, ln(isa, sum));
            // Not a number stays what it is; 0 becomes −∞.
            let unseen = isa.add(sum, isa.splat(E::Real::NEG_INFINITY));
            isa.store(&mut self.maxima[column..], isa.select(seen, logarithm, unseen));
        }
        for (query, &logarithm) in self.maxima.iter().enumerate().take(queries) {
            lse.set([query], logarithm);
        }
        let result = sums.view(0..sums.height(), 0..sums.width())?;
        copy_transposed::<E::Real, E, I>(
            isa,
            result.slice(1, 0..queries),
            Scales::Columns(self.sums),
            output,
        );
        Ok(())
    }
}

/// `2^(x · octaves)`, as precise as what becomes factors of `E` must be.
#[inline(always)]
fn power<E: Element<Real: Elementary>, I: Lanes<E::Real>>(
    isa: I,
    x: I::Vector,
    octaves: E::Real,
) -> I::Vector {
    if E::IS_REAL {
        exp2_product(isa, x, octaves)
    } else {
        exp2_short(isa, isa.mul(x, isa.splat(octaves)))
    }
}

/// Multiplies the columns from `column` on.
#[inline(always)]
fn scale_rows<T: Real, I: Lanes<T>>(
    isa: I,
    tile: &mut Tile<'_, T>,
    column: usize,
    factors: I::Vector,
) {
    let (rows, width) = (0..tile.height(), tile.width());
    for row in tile.rows_mut(rows).chunks_exact_mut(width) {
        let row = &mut row[column..column + I::LANES];
        isa.store(row, isa.mul(isa.load(row), factors));
    }
}
