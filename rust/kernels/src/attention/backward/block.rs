//! One block of queries of the backward pass.

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes, Real};

use super::{Saved, Upstream};
use crate::Result;
use crate::attention::ahead::Ahead;
use crate::attention::mask::{Ground, Place, hide};
use crate::attention::params::Attention;
use crate::attention::score::{Reach, Segment};
use crate::attention::tile::{Group, KEYS, Tile, copied_rows, packed_rows};
use crate::gemm::{Epilogue, Scales, Start, copy_transposed, multiply_block};
use crate::math::{Elementary, exp};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Up to 64 queries of one head, against those of some keys that they reach.
pub(super) struct QueryBlock<'a, T: Real> {
    pub(super) attention: &'a Attention<'a, T>,
    pub(super) saved: Saved<'a, T>,
    pub(super) upstream: Upstream<'a, T>,
    pub(super) place: Place,
    /// The block that comes next.
    pub(super) next: Option<Place>,
    pub(super) reach: Reach,
    /// Where the keys lie among all.
    pub(super) keys: Range<usize>,
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
    /// Queries as columns, scaled.
    query: Tile<'a, T>,
    /// Gradients of the output as columns, scaled like the scores.
    upstream: Tile<'a, T>,
    /// `scale · (rowsum(dO ∘ O) − dLSE)`.
    delta: &'a [T],
    /// The logarithms; ∞ where a query saw no key.
    lse: &'a [T],
    /// Queries as rows.
    query_rows: View<'a, T, 2>,
    /// Gradients of the output as rows.
    upstream_rows: View<'a, T, 2>,
}

/// The tiles of one segment of keys.
struct Step<'a, T> {
    segment: Segment,
    /// The first key of the block's.
    first_key: usize,
    /// What the products of queries and keys are added to.
    start: Start,
    /// The ground of the scores, then the probabilities.
    powers: Tile<'a, T>,
    /// The gradients of the scores.
    slopes: Tile<'a, T>,
}

impl<T: Real> Step<'_, T> {
    /// The keys of a group, counted from the block's first.
    fn keys(&self, group: &Group) -> Range<usize> {
        let first = self.segment.keys.start - self.first_key;
        first + group.keys.start..first + group.keys.end
    }
}

impl<T: Elementary> Kernel<T> for QueryBlock<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) -> Result<()> {
        let Attention { query, score, .. } = self.attention;
        let (head_dim, value_dim) = (self.key.columns(), self.value.columns());
        let queries = self.place.queries.clone();
        let width = queries.len().next_multiple_of(I::LANES);
        let source = self.place.of_queries(query);
        let gradient = self.place.of_queries(&self.upstream.output);

        let copies = [copied_rows(source), copied_rows(gradient)];
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
            query_rows: packed_rows(isa, source, query_copy)?,
            upstream_rows: packed_rows(isa, gradient, gradient_copy)?,
            delta: {
                self.write_delta(isa, gradient, delta)?;
                delta
            },
            lse: {
                self.write_lse(lse);
                lse
            },
        };
        packed.query.pack_transposed(isa, source, scale)?;
        packed.upstream.pack_transposed(isa, gradient, scale)?;
        let mut ahead = Ahead::nothing();
        if let Some(next) = &self.next {
            ahead.read(next.of_queries(query));
            ahead.read(next.of_queries(&self.upstream.output));
            ahead.read(next.of_queries(&self.saved.output));
        }
        ahead.spread(self.key.rows() * width * (3 * head_dim + 2 * value_dim));

        for segment in self.reach.segments(queries.clone(), self.keys.clone()) {
            let mut powers = Tile::new(powers, segment.keys.len(), width);
            let slopes = Tile::new(slopes, segment.keys.len(), width);
            let start = match score.mask.ground(isa, &self.place, &segment, &mut powers, staging)? {
                Ground::Hidden => continue,
                Ground::Clear => Start::Zero,
                Ground::Written => Start::Accumulate,
            };
            let groups = self.reach.groups(queries.clone(), &segment, I::LANES);
            let mut step = Step { segment, first_key: self.keys.start, start, powers, slopes };
            for group in groups {
                self.differentiate(isa, &packed, &group, &mut step, &mut ahead)?;
                self.accumulate(isa, &packed, &group, &step, &mut ahead)?;
            }
        }
        Ok(())
    }
}

impl<T: Elementary> QueryBlock<'_, T> {
    /// `scale · (rowsum(dO ∘ O) − dLSE)`, 0 behind the last query.
    #[inline(always)]
    fn write_delta<I: Lanes<T>>(
        &self,
        isa: I,
        gradient: View<'_, T, 2>,
        delta: &mut [T],
    ) -> Result<()> {
        let Place { batch, head, queries } = &self.place;
        let output = self.saved.output.inner::<2, 2>([*batch, *head]).slice(0, queries.clone());
        let scale = T::from_f64(self.attention.score.scale);
        let plain = output.has_unit_columns() && gradient.has_unit_columns();
        // Products of one row in each row of a tile, whose transpose sums them for all rows at once.
        for (group, delta) in delta.chunks_exact_mut(I::LANES).enumerate() {
            let mut tiles = [[T::ZERO; 256]; 2];
            let [products, turned] = &mut tiles;
            let first = group * I::LANES;
            let rows = first..queries.len().min(first + I::LANES);
            for (row, products) in rows.clone().zip(products.chunks_exact_mut(I::LANES)) {
                if plain {
                    let parts =
                        output.row(row).chunks(I::LANES).zip(gradient.row(row).chunks(I::LANES));
                    let mut sum = isa.zero();
                    for (output, gradient) in parts {
                        sum = isa.mul_add(isa.load_first(output), isa.load_first(gradient), sum);
                    }
                    isa.store(products, sum);
                } else {
                    for column in 0..output.columns() {
                        products[0] += output.get([row, column]) * gradient.get([row, column]);
                    }
                }
            }
            let shape = [I::LANES, I::LANES];
            let from = View::contiguous(&products[..I::LANES * I::LANES], shape)?;
            let to = ViewMut::contiguous(&mut turned[..I::LANES * I::LANES], shape)?;
            copy_transposed(isa, from, Scales::Absent, to);
            let mut sum = isa.zero();
            for part in turned.chunks_exact(I::LANES).take(I::LANES) {
                sum = isa.add(sum, isa.load(part));
            }
            if let Some(lse) = self.upstream.lse {
                let mut gradients = [T::ZERO; 16];
                for (row, to) in rows.zip(&mut gradients) {
                    *to = lse.get([*batch, *head, queries.start + row]);
                }
                sum = isa.sub(sum, isa.load(&gradients));
            }
            isa.store(delta, isa.mul(sum, isa.splat(scale)));
        }
        Ok(())
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

    /// Writes `P = exp(K·Qᵀ + ground − lse)` over the ground, and `dS = P ∘ (V·dOᵀ − delta)`.
    #[inline(always)]
    fn differentiate<I: Lanes<T>>(
        &self,
        isa: I,
        packed: &Packed<'_, T>,
        group: &Group,
        step: &mut Step<'_, T>,
        ahead: &mut Ahead<T>,
    ) -> Result<()> {
        let (keys, columns) = (&group.keys, &group.columns);
        let a = self.key.slice(0, step.keys(group));
        let b = packed.query.view(0..self.key.columns(), columns.clone())?;
        let c = step.powers.view_mut(keys.clone(), columns.clone())?;
        let mut power = Power { lse: &packed.lse[columns.clone()], ahead };
        multiply_block::<T, _, _>(isa, a, b, c, step.start, &mut power);
        if step.segment.edge {
            let queries = self.place.queries.clone();
            hide(isa, queries, &self.reach, &step.segment, group, T::ZERO, &mut step.powers);
        }

        if self.query_gradient.columns() + self.key_gradient.columns() == 0 {
            return Ok(());
        }
        let a = self.value.slice(0, step.keys(group));
        let b = packed.upstream.view(0..self.value.columns(), columns.clone())?;
        let c = step.slopes.view_mut(keys.clone(), columns.clone())?;
        let mut slope = Slope {
            powers: step.powers.view(keys.clone(), columns.clone())?,
            delta: &packed.delta[columns.clone()],
            ahead,
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
        ahead: &mut Ahead<T>,
    ) -> Result<()> {
        let keys = step.keys(group);
        // The lanes behind the last query have no rows.
        let queries = group.columns.start..group.columns.end.min(self.place.queries.len());
        let powers = step.powers.view(group.keys.clone(), queries.clone())?;
        let slopes = step.slopes.view(group.keys.clone(), queries.clone())?;
        let add = Start::Accumulate;
        if self.value_gradient.columns() > 0 {
            let b = packed.upstream_rows.slice(0, queries.clone());
            let c = self.value_gradient.reborrow().slice(0, keys.clone());
            multiply_block::<T, _, _>(isa, powers, b, c, add, ahead);
        }
        if self.key_gradient.columns() > 0 {
            let b = packed.query_rows.slice(0, queries.clone());
            let c = self.key_gradient.reborrow().slice(0, keys.clone());
            multiply_block::<T, _, _>(isa, slopes, b, c, add, ahead);
        }
        if self.query_gradient.columns() > 0 {
            let b = self.key_rows.slice(0, keys);
            let c = self.query_gradient.reborrow().slice(0, queries);
            multiply_block::<T, _, _>(isa, slopes.transpose(), b, c, add, ahead);
        }
        Ok(())
    }
}

/// `exp(score − lse)`, the probability.
struct Power<'a, T> {
    lse: &'a [T],
    ahead: &'a mut Ahead<T>,
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
        exp(isa, isa.sub(score, isa.load(&self.lse[column..])))
    }

    #[inline(always)]
    fn meanwhile<I: Lanes<T>>(&mut self, isa: I) {
        self.ahead.meanwhile(isa);
    }
}

/// `P ∘ (dP − delta)`, the gradient of the score.
struct Slope<'a, T> {
    powers: View<'a, T, 2>,
    delta: &'a [T],
    ahead: &'a mut Ahead<T>,
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
    #[inline(always)]
    fn meanwhile<I: Lanes<T>>(&mut self, isa: I) {
        self.ahead.meanwhile(isa);
    }
}
