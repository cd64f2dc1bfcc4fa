//! One block of queries of the backward pass.

use std::f64::consts::LOG2_E;
use std::ops::Range;

use fusewire_simd::{Kernel, Lanes, Real};

use super::{Saved, Upstream};
use crate::Result;
use crate::attention::mask::{Ground, Place};
use crate::attention::params::Attention;
use crate::attention::score::Reach;
use crate::attention::tile::{Group, KEYS, Tile, contiguous_rows};
use crate::gemm::{Epilogue, NoEpilogue, Start, multiply_block};
use crate::math::{Elementary, exp2};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Up to 64 queries of one head, against all the keys that they reach.
pub(super) struct QueryBlock<'a, T: Real> {
    pub(super) attention: &'a Attention<'a, T>,
    pub(super) saved: Saved<'a, T>,
    pub(super) upstream: Upstream<'a, T>,
    pub(super) place: Place,
    pub(super) reach: Reach,
    pub(super) key: View<'a, T, 2>,
    /// The keys with contiguous rows.
    pub(super) key_rows: View<'a, T, 2>,
    pub(super) value: View<'a, T, 2>,
    pub(super) query_gradient: ViewMut<'a, T, 2>,
    pub(super) key_gradient: ViewMut<'a, T, 2>,
    pub(super) value_gradient: ViewMut<'a, T, 2>,
}

/// A block of queries as the products want it.
struct Packed<'a, T: Real> {
    /// Queries as columns, scaled to units of log₂.
    query: Tile<'a, T>,
    /// Gradients of the output as columns, scaled like the scores.
    upstream: Tile<'a, T>,
    /// `scale · (rowsum(dO ∘ O) − dLSE)`.
    delta: &'a [T],
    /// The logarithms in units of log₂; ∞ where a query saw no key.
    lse: &'a [T],
    /// Queries as rows.
    query_rows: View<'a, T, 2>,
    /// Gradients of the output as rows.
    upstream_rows: View<'a, T, 2>,
}

/// The tiles of one segment of keys.
struct Step<'a, T> {
    first_key: usize,
    /// What the products of queries and keys are added to.
    start: Start,
    /// The ground of the scores, then the probabilities.
    powers: Tile<'a, T>,
    /// The gradients of the scores.
    slopes: Tile<'a, T>,
}

impl<T: Real> Step<'_, T> {
    /// The keys of a group, counted from the first of all.
    fn keys(&self, group: &Group) -> Range<usize> {
        self.first_key + group.keys.start..self.first_key + group.keys.end
    }
}

impl<T: Elementary> Kernel<T> for QueryBlock<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) -> Result<()> {
        let Attention { query, score, .. } = self.attention;
        let (head_dim, value_dim) = (self.key.columns(), self.value.columns());
        let Place { batch, head, queries } = &self.place;
        let (rows, lead) = (queries.len(), [*batch, *head]);
        let width = rows.next_multiple_of(I::LANES);
        let source = query.inner::<2, 2>(lead).slice(0, queries.clone());
        let gradient = self.upstream.output.inner::<2, 2>(lead).slice(0, queries.clone());

        let copied =
            |view: View<'_, T, 2>| if view.has_unit_columns() { 0 } else { width * view.columns() };
        let copies = [copied(source), copied(gradient)];
        let staging = score.mask.staging(KEYS, width);
        let mut scratch = Scratch::take(
            width * (head_dim + value_dim + 2 * KEYS + 2) + copies[0] + copies[1] + staging,
        )?;
        let (packed_query, rest) = scratch.split_at_mut(width * head_dim);
        let (packed_gradient, rest) = rest.split_at_mut(width * value_dim);
        let (delta, rest) = rest.split_at_mut(width);
        let (lse, rest) = rest.split_at_mut(width);
        let (powers, rest) = rest.split_at_mut(width * KEYS);
        let (slopes, rest) = rest.split_at_mut(width * KEYS);
        let (query_copy, rest) = rest.split_at_mut(copies[0]);
        let (gradient_copy, staging) = rest.split_at_mut(copies[1]);

        let scale = T::from_f64(score.scale);
        let mut packed = Packed {
            query: Tile::new(packed_query, head_dim, width),
            upstream: Tile::new(packed_gradient, value_dim, width),
            query_rows: contiguous_rows(isa, source, query_copy)?,
            upstream_rows: contiguous_rows(isa, gradient, gradient_copy)?,
            delta: {
                self.write_delta(isa, gradient, delta);
                delta
            },
            lse: {
                self.write_lse(lse);
                lse
            },
        };
        packed.query.pack_transposed(isa, source, T::from_f64(score.scale * LOG2_E))?;
        packed.upstream.pack_transposed(isa, gradient, scale)?;

        for segment in self.reach.segments(self.place.queries.clone()) {
            let mut powers = Tile::new(powers, segment.keys.len(), width);
            let slopes = Tile::new(slopes, segment.keys.len(), width);
            let (place, reach) = (&self.place, &self.reach);
            let start =
                match score.mask.ground(isa, place, reach, &segment, &mut powers, staging)? {
                    Ground::Hidden => continue,
                    Ground::Clear => Start::Zero,
                    Ground::Written => Start::Accumulate,
                };
            let groups = reach.groups(place.queries.clone(), &segment, I::LANES);
            let mut step = Step { first_key: segment.keys.start, start, powers, slopes };
            for group in groups {
                self.differentiate(isa, &packed, &group, &mut step)?;
                self.accumulate(isa, &packed, &group, &step)?;
            }
        }
        Ok(())
    }
}

impl<T: Elementary> QueryBlock<'_, T> {
    /// `scale · (rowsum(dO ∘ O) − dLSE)`, 0 behind the last query.
    #[inline(always)]
    fn write_delta<I: Lanes<T>>(&self, isa: I, gradient: View<'_, T, 2>, delta: &mut [T]) {
        let Place { batch, head, queries } = &self.place;
        let output = self.saved.output.inner::<2, 2>([*batch, *head]).slice(0, queries.clone());
        let scale = T::from_f64(self.attention.score.scale);
        delta.fill(T::ZERO);
        for (row, delta) in delta.iter_mut().enumerate().take(queries.len()) {
            let sum = if output.has_unit_columns() && gradient.has_unit_columns() {
                let mut sum = isa.zero();
                let parts =
                    output.row(row).chunks(I::LANES).zip(gradient.row(row).chunks(I::LANES));
                for (output, gradient) in parts {
                    sum = isa.mul_add(isa.load_first(output), isa.load_first(gradient), sum);
                }
                isa.sum_lanes(sum)
            } else {
                let mut sum = T::ZERO;
                for column in 0..output.columns() {
                    sum += output.get([row, column]) * gradient.get([row, column]);
                }
                sum
            };
            let from_lse = self
                .upstream
                .lse
                .map_or(T::ZERO, |lse| lse.get([*batch, *head, queries.start + row]));
            *delta = scale * (sum - from_lse);
        }
    }

    /// The logarithms, ∞ where there is no key or no query.
    #[inline(always)]
    fn write_lse(&self, lse: &mut [T]) {
        let Place { batch, head, queries } = &self.place;
        lse.fill(-T::NEG_INFINITY);
        for (query, to) in queries.clone().zip(lse) {
            let from = self.saved.lse.get([*batch, *head, query]);
            if from != T::NEG_INFINITY {
                *to = from;
            }
        }
    }

    /// Writes `P = 2^(K·Qᵀ + ground − lse · log₂e)` over the ground, and `dS = P ∘ (V·dOᵀ − delta)`.
    #[inline(always)]
    fn differentiate<I: Lanes<T>>(
        &self,
        isa: I,
        packed: &Packed<'_, T>,
        group: &Group,
        step: &mut Step<'_, T>,
    ) -> Result<()> {
        let (keys, columns) = (&group.keys, &group.columns);
        let a = self.key.slice(0, step.keys(group));
        let b = packed.query.view(0..self.key.columns(), columns.clone())?;
        let c = step.powers.view_mut(keys.clone(), columns.clone())?;
        let mut power = Power { lse: &packed.lse[columns.clone()] };
        multiply_block::<T, _, _>(isa, a, b, c, step.start, &mut power);

        let a = self.value.slice(0, step.keys(group));
        let b = packed.upstream.view(0..self.value.columns(), columns.clone())?;
        let c = step.slopes.view_mut(keys.clone(), columns.clone())?;
        let mut slope = Slope {
            powers: step.powers.view(keys.clone(), columns.clone())?,
            delta: &packed.delta[columns.clone()],
        };
        multiply_block::<T, _, _>(isa, a, b, c, Start::Zero, &mut slope);
        Ok(())
    }

    /// `dV += Pᵀ·dO`, `dK += dSᵀ·Q`, `dQ += dS·K`.
    #[inline(always)]
    fn accumulate<I: Lanes<T>>(
        &mut self,
        isa: I,
        packed: &Packed<'_, T>,
        group: &Group,
        step: &Step<'_, T>,
    ) -> Result<()> {
        let keys = step.keys(group);
        // The lanes behind the last query have no rows.
        let queries = group.columns.start..group.columns.end.min(self.place.queries.len());
        let powers = step.powers.view(group.keys.clone(), queries.clone())?;
        let slopes = step.slopes.view(group.keys.clone(), queries.clone())?;
        let product = |a, b, c| {
            multiply_block::<T, _, _>(isa, a, b, c, Start::Accumulate, &mut NoEpilogue);
        };
        product(
            powers,
            packed.upstream_rows.slice(0, queries.clone()),
            self.value_gradient.reborrow().slice(0, keys.clone()),
        );
        product(
            slopes,
            packed.query_rows.slice(0, queries.clone()),
            self.key_gradient.reborrow().slice(0, keys.clone()),
        );
        product(
            slopes.transpose(),
            self.key_rows.slice(0, keys),
            self.query_gradient.reborrow().slice(0, queries),
        );
        Ok(())
    }
}

/// `2^(score − lse · log₂e)`, the probability. The logarithm changes its unit here and not before,
/// because its rounding would be an error of the probability.
struct Power<'a, T> {
    lse: &'a [T],
}

impl<T: Elementary> Epilogue<T> for Power<'_, T> {
    #[inline(always)]
    fn apply<I: Lanes<T>>(
        &mut self,
        isa: I,
        _: usize,
        column: usize,
        score: I::Vector,
    ) -> I::Vector {
        let unit = isa.splat(T::from_f64(LOG2_E));
        exp2(isa, isa.neg_mul_add(isa.load(&self.lse[column..]), unit, score))
    }
}

/// `P ∘ (dP − delta)`, the gradient of the score.
struct Slope<'a, T> {
    powers: View<'a, T, 2>,
    delta: &'a [T],
}

impl<T: Elementary> Epilogue<T> for Slope<'_, T> {
    #[inline(always)]
    fn apply<I: Lanes<T>>(
        &mut self,
        isa: I,
        row: usize,
        column: usize,
        product: I::Vector,
    ) -> I::Vector {
        let power = isa.load(&self.powers.row(row)[column..]);
        isa.mul(power, isa.sub(product, isa.load(&self.delta[column..])))
    }
}
