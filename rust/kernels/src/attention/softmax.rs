//! Softmax over keys that come tile by tile, for queries that fill the vectors.

use std::f64::consts::LOG2_E;
use std::ops::Range;

use fusewire_simd::{Lanes, Real};

use super::tile::Tile;
use crate::Result;
use crate::gemm::{Scales, copy_transposed};
use crate::math::{Elementary, exp2, ln};
use crate::view::ViewMut;

/// Powers that are summed by themselves before they join the sum of all.
const SUMMED_TOGETHER: usize = 12;

/// The largest score of each query so far, and the sum of powers relative to it.
pub(super) struct Running<'a, T> {
    maxima: &'a mut [T],
    sums: &'a mut [T],
}

impl<'a, T: Elementary> Running<'a, T> {
    /// No keys so far, or one whose score is the `sink`; `numbers` holds twice the queries.
    #[inline(always)]
    pub(super) fn start(numbers: &'a mut [T], sink: Option<T>) -> Self {
        let (maxima, sums) = numbers.split_at_mut(numbers.len() / 2);
        let sink = sink.filter(|&sink| sink != T::NEG_INFINITY);
        maxima.fill(sink.unwrap_or(T::NEG_INFINITY));
        // Not a number where the sink is ∞ or not a number.
        sums.fill(sink.map_or(T::ZERO, |sink| T::ONE + sink * T::ZERO));
        Self { maxima, sums }
    }

    /// Turns scores into powers of e relative to the largest so far, and brings `output` to the
    /// same unit.
    #[inline(always)]
    pub(super) fn absorb<I: Lanes<T>>(
        &mut self,
        isa: I,
        scores: &mut Tile<'_, T>,
        output: &mut Tile<'_, T>,
    ) {
        let (rows, width) = (0..scores.height(), scores.width());
        let mut column = 0;
        while column + 4 * I::LANES <= width {
            self.absorb_strip::<I, 4>(isa, column, rows.clone(), scores, output);
            column += 4 * I::LANES;
        }
        while column < width {
            self.absorb_strip::<I, 1>(isa, column, rows.clone(), scores, output);
            column += I::LANES;
        }
    }

    /// [`Running::absorb`] for the rows `rows` and `VECTORS` vectors of columns from `column` on.
    #[inline(always)]
    pub(super) fn absorb_strip<I: Lanes<T>, const VECTORS: usize>(
        &mut self,
        isa: I,
        column: usize,
        rows: Range<usize>,
        scores: &mut Tile<'_, T>,
        output: &mut Tile<'_, T>,
    ) {
        let width = scores.width();
        let columns = column..column + VECTORS * I::LANES;
        let maxima = &mut self.maxima[columns.clone()];
        let sums = &mut self.sums[columns.clone()];
        let before: [I::Vector; VECTORS] = load_all(isa, maxima);
        let mut highest = before;
        for row in scores.rows(rows.clone()).chunks_exact(width) {
            let row: [I::Vector; VECTORS] = load_all(isa, &row[columns.clone()]);
            for vector in 0..VECTORS {
                highest[vector] = isa.max(highest[vector], row[vector]);
            }
        }
        store_all(isa, maxima, highest);

        // A query that has seen no key stays at e^−∞ = 0 instead of −∞ − (−∞).
        let mut unit = [isa.zero(); VECTORS];
        for vector in 0..VECTORS {
            let seen = isa.less(isa.splat(T::NEG_INFINITY), highest[vector]);
            unit[vector] = isa.select(seen, highest[vector], isa.zero());
        }
        let mut sum: [I::Vector; VECTORS] = load_all(isa, sums);
        let mut moved = false;
        for vector in 0..VECTORS {
            moved |= isa.any(isa.less(before[vector], highest[vector]));
        }
        if moved {
            let mut factors = [isa.zero(); VECTORS];
            for vector in 0..VECTORS {
                factors[vector] = power(isa, isa.sub(before[vector], unit[vector]));
                sum[vector] = isa.mul(sum[vector], factors[vector]);
            }
            scale_rows(isa, output, column, factors);
        }
        // In groups, because the rounding of a long running sum would be the error of the output.
        for rows in scores.rows_mut(rows).chunks_mut(SUMMED_TOGETHER * width) {
            let mut group = [isa.zero(); VECTORS];
            for row in rows.chunks_exact_mut(width) {
                let row = &mut row[columns.clone()];
                let mut powers: [I::Vector; VECTORS] = load_all(isa, row);
                for vector in 0..VECTORS {
                    powers[vector] = power(isa, isa.sub(powers[vector], unit[vector]));
                    group[vector] = isa.add(group[vector], powers[vector]);
                }
                store_all(isa, row, powers);
            }
            for vector in 0..VECTORS {
                sum[vector] = isa.add(sum[vector], group[vector]);
            }
        }
        store_all(isa, sums, sum);
    }

    /// Writes `sums`, divided by the sums of powers and transposed, to `output`, and the
    /// logarithms of all to `lse`.
    ///
    /// A query that saw no key gets 0 and −∞.
    #[inline(always)]
    pub(super) fn finish<I: Lanes<T>>(
        self,
        isa: I,
        sums: &Tile<'_, T>,
        output: ViewMut<'_, T, 2>,
        mut lse: ViewMut<'_, T, 1>,
    ) -> Result<()> {
        let [queries] = lse.shape();
        for column in (0..sums.width()).step_by(I::LANES) {
            let sum = isa.load(&self.sums[column..]);
            let seen = isa.less(isa.zero(), sum);
            let factor = isa.select(seen, isa.div(isa.splat(T::ONE), sum), sum);
            isa.store(&mut self.sums[column..], factor);
            let highest = isa.load(&self.maxima[column..]);
            let logarithm = isa.add(highest, ln(isa, sum));
            // Not a number stays what it is; 0 becomes −∞.
            let unseen = isa.add(sum, isa.splat(T::NEG_INFINITY));
            isa.store(&mut self.maxima[column..], isa.select(seen, logarithm, unseen));
        }
        for (query, &logarithm) in self.maxima.iter().enumerate().take(queries) {
            lse.set([query], logarithm);
        }
        let result = sums.view(0..sums.height(), 0..sums.width())?;
        copy_transposed(isa, result.slice(1, 0..queries), Scales::Columns(self.sums), output);
        Ok(())
    }
}

/// `e^x` for scores relative to the largest, where x near 0 carries the weight: the rounding of
/// x · log₂e is then as small as that of x.
#[inline(always)]
fn power<T: Elementary, I: Lanes<T>>(isa: I, x: I::Vector) -> I::Vector {
    exp2(isa, isa.mul(x, isa.splat(T::from_f64(LOG2_E))))
}

/// Multiplies the columns from `column` on.
#[inline(always)]
fn scale_rows<T: Real, I: Lanes<T>, const VECTORS: usize>(
    isa: I,
    tile: &mut Tile<'_, T>,
    column: usize,
    factors: [I::Vector; VECTORS],
) {
    let (rows, width) = (0..tile.height(), tile.width());
    for row in tile.rows_mut(rows).chunks_exact_mut(width) {
        let row = &mut row[column..column + VECTORS * I::LANES];
        let mut scaled: [I::Vector; VECTORS] = load_all(isa, row);
        for vector in 0..VECTORS {
            scaled[vector] = isa.mul(scaled[vector], factors[vector]);
        }
        store_all(isa, row, scaled);
    }
}

#[inline(always)]
fn load_all<T: Real, I: Lanes<T>, const VECTORS: usize>(
    isa: I,
    numbers: &[T],
) -> [I::Vector; VECTORS] {
    // Not `from_fn`, which is compiled for the baseline CPU where it is not inlined.
    let mut vectors = [isa.zero(); VECTORS];
    for (vector, value) in vectors.iter_mut().enumerate() {
        *value = isa.load(&numbers[vector * I::LANES..]);
    }
    vectors
}

#[inline(always)]
fn store_all<T: Real, I: Lanes<T>, const VECTORS: usize>(
    isa: I,
    numbers: &mut [T],
    vectors: [I::Vector; VECTORS],
) {
    for (vector, value) in vectors.into_iter().enumerate() {
        isa.store(&mut numbers[vector * I::LANES..], value);
    }
}
