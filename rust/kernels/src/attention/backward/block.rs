//! Probabilities and gradients of scores of one block of queries, segment by segment.

use std::ops::Range;

use fusewire_simd::{Kernel, Lanes, Real};

use super::Pass;
use crate::Result;
use crate::attention::ahead::Ahead;
use crate::attention::dropout::Keep;
use crate::attention::params::Head;
use crate::attention::reach::Segment;
use crate::attention::score::{Bend, Ground, Place, hide};
use crate::attention::tile::{Group, KEYS, Tile};
use crate::gemm::{Epilogue, Start, apply_epilogue, multiply_block};
use crate::math::{Elementary, exp};
use crate::scratch::Scratch;
use crate::view::View;

/// What becomes of the gradients of scores.
pub(super) trait Consumer<T: Elementary> {
    /// Whether it wants the gradients of the products of queries and keys, which lie before scale and
    /// softcap, and not those of the scores behind them.
    const OF_PRODUCTS: bool;

    /// Whether it wants gradients at all, and not only probabilities.
    fn wants_slopes(&self) -> bool;

    /// Takes one piece; what is needed next may be fetched `ahead`.
    fn take<I: Lanes<T>>(&mut self, isa: I, piece: &Piece<'_, T>, ahead: &mut Ahead<T>);
}

/// What neighbouring keys and neighbouring queries of a block have to do with each other.
pub(super) struct Piece<'a, T: Real> {
    /// The keys, counted from the block's first.
    pub(super) keys: Range<usize>,
    /// The queries, counted from the first of the block.
    pub(super) queries: Range<usize>,
    /// The probabilities, as dropout left them, `(keys, queries)`.
    pub(super) powers: View<'a, T, 2>,
    /// The gradients that the consumer wants, `(keys, queries)`.
    pub(super) slopes: View<'a, T, 2>,
}

/// Up to 64 queries of one head, against those of some keys that they reach.
pub(super) struct QueryBlock<'a, 'b, T: Real, C> {
    pub(super) pass: &'a Pass<'a, T>,
    /// What the head sees, of keys and values only these.
    pub(super) head: Head<'a, T>,
    /// Where the keys lie among all.
    pub(super) keys: Range<usize>,
    pub(super) place: Place,
    /// The block that comes next.
    pub(super) next: Option<Place>,
    pub(super) consumer: &'b mut C,
}

impl<'a, 'b, T: Real, C> QueryBlock<'a, 'b, T, C> {
    /// One against all keys that its `head` sees.
    pub(super) fn of_all_keys(
        pass: &'a Pass<'a, T>,
        head: Head<'a, T>,
        place: Place,
        consumer: &'b mut C,
    ) -> Self {
        Self { pass, head, keys: 0..head.key.rows(), place, next: None, consumer }
    }
}

/// A block of queries as the products want it.
struct Packed<'a, T> {
    /// Queries as columns, scaled.
    query: Tile<'a, T>,
    /// Gradients of the output as columns, scaled like the scores.
    upstream: Tile<'a, T>,
    /// `rowsum(dO ∘ O) − dLSE`, scaled like the scores.
    delta: &'a [T],
    /// The logarithms; ∞ where a query saw no key.
    lse: &'a [T],
    /// What dropout decided.
    keep: Option<Keep>,
}

/// The tiles of one segment of keys.
struct Step<'a, T> {
    segment: Segment,
    /// The first key of the block's.
    first_key: usize,
    ground: Ground,
    /// The ground of the scores, then the probabilities.
    powers: Tile<'a, T>,
    /// The gradients of the scores.
    slopes: Tile<'a, T>,
    /// With a softcap the ground, then the derivative of the softcap.
    bends: Option<Tile<'a, T>>,
}

impl<T: Real> Step<'_, T> {
    /// The keys of a group, counted from the block's first.
    fn keys(&self, group: &Group) -> Range<usize> {
        let first = self.segment.keys.start - self.first_key;
        first + group.keys.start..first + group.keys.end
    }
}

impl<T: Elementary, C: Consumer<T>> Kernel<T> for QueryBlock<'_, '_, T, C> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { pass, head, keys, place, next, consumer } = self;
        let score = &pass.attention.score;
        let (head_dim, value_dim) = (head.key.columns(), head.value.columns());
        let queries = place.queries.clone();
        let width = queries.len().next_multiple_of(I::LANES);
        let Pass { attention, saved, upstream } = pass;
        let sequences = &attention.sequences;

        let bent = if score.softcap.is_some() { width * KEYS } else { 0 };
        let staging = score.mask.staging(KEYS, width);
        let mut scratch =
            Scratch::take(width * (head_dim + value_dim + 2 * KEYS + 2) + bent + staging)?;
        let (packed_query, rest) = scratch.split_at_mut(width * head_dim);
        let (packed_upstream, rest) = rest.split_at_mut(width * value_dim);
        let (delta, rest) = rest.split_at_mut(width);
        let (lse, rest) = rest.split_at_mut(width);
        let (powers, rest) = rest.split_at_mut(width * KEYS);
        let (slopes, rest) = rest.split_at_mut(width * KEYS);
        let (bends, staging) = rest.split_at_mut(bent);

        let scale = if C::OF_PRODUCTS { T::from_f64(score.scale) } else { T::ONE };
        pass.write_delta(isa, &place, scale, delta)?;
        pass.write_lse(&place, lse);
        let mut packed = Packed {
            query: Tile::new(packed_query, head_dim, width),
            upstream: Tile::new(packed_upstream, value_dim, width),
            delta,
            lse,
            keep: pass.attention.dropout.map(|dropout| dropout.keep(&place)),
        };
        let source = sequences.of_block(attention.query, &place);
        packed.query.pack_transposed(isa, source, T::from_f64(score.scale))?;
        let source = sequences.of_block(upstream.output, &place);
        packed.upstream.pack_transposed(isa, source, scale)?;
        let mut ahead = Ahead::nothing();
        if let Some(next) = &next {
            ahead.read(sequences.of_block(attention.query, next));
            ahead.read(sequences.of_block(upstream.output, next));
            ahead.read(sequences.of_block(saved.output, next));
        }
        ahead.spread(keys.len() * width * (3 * head_dim + 2 * value_dim));

        for segment in head.reach.segments(queries.clone(), keys.clone()) {
            let Some(segment) = score.mask.narrow(&place, segment) else { continue };
            let rows = segment.keys.len();
            let mut powers = Tile::new(powers, rows, width);
            let mut bends = score.softcap.map(|_| Tile::new(bends, rows, width));
            let tile = bends.as_mut().unwrap_or(&mut powers);
            let ground = score.ground(isa, &place, &head.reach, &segment, tile, staging)?;
            if ground == Ground::Hidden {
                continue;
            }
            let slopes = Tile::new(slopes, rows, width);
            let groups = head.reach.groups(queries.clone(), &segment, I::LANES);
            let mut step = Step { segment, first_key: keys.start, ground, powers, slopes, bends };
            for group in groups {
                let block = Block { pass, head: &head, place: &place, packed: &packed };
                block.write_powers(isa, &group, &mut step, &mut ahead)?;
                if consumer.wants_slopes() {
                    block.write_slopes::<I, C>(isa, &group, &mut step, &mut ahead)?;
                }
                if let Some(keep) = &packed.keep {
                    let first = [step.segment.keys.start + group.keys.start, group.columns.start];
                    keep.apply(
                        first,
                        step.powers.view_mut(group.keys.clone(), group.columns.clone())?,
                    );
                }
                // The lanes behind the last query have no rows.
                let columns = group.columns.start..group.columns.end.min(queries.len());
                let piece = Piece {
                    keys: step.keys(&group),
                    queries: columns.clone(),
                    powers: step.powers.view(group.keys.clone(), columns.clone())?,
                    slopes: step.slopes.view(group.keys.clone(), columns)?,
                };
                consumer.take(isa, &piece, &mut ahead);
            }
        }
        Ok(())
    }
}

/// A block of queries, packed.
struct Block<'a, T: Real> {
    pass: &'a Pass<'a, T>,
    head: &'a Head<'a, T>,
    place: &'a Place,
    packed: &'a Packed<'a, T>,
}

impl<T: Elementary> Block<'_, T> {
    /// Writes `P = exp(score − lse)` over the ground.
    #[inline(always)]
    fn write_powers<I: Lanes<T>>(
        &self,
        isa: I,
        group: &Group,
        step: &mut Step<'_, T>,
        ahead: &mut Ahead<T>,
    ) -> Result<()> {
        let (keys, columns) = (group.keys.clone(), group.columns.clone());
        let a = self.head.key.slice(0, step.keys(group));
        let b = self.packed.query.view(0..self.head.key.columns(), columns.clone())?;
        let mut c = step.powers.view_mut(keys.clone(), columns.clone())?;
        let written = step.ground == Ground::Written;
        match (self.pass.attention.score.softcap, &mut step.bends) {
            (Some(cap), Some(bends)) => {
                multiply_block::<T, _, _>(isa, a, b, c.reborrow(), Start::Zero, ahead);
                let (scores, ground) = (c.reborrow(), bends.view_mut(keys, columns.clone())?);
                isa.vectorize(Bend { cap, scores, ground, written });
            }
            _ => {
                let start = if written { Start::Accumulate } else { Start::Zero };
                multiply_block::<T, _, _>(isa, a, b, c.reborrow(), start, ahead);
            }
        }
        apply_epilogue(isa, c, &mut Power { lse: &self.packed.lse[columns] });
        if step.segment.edge {
            let (queries, reach) = (self.place.queries.clone(), &self.head.reach);
            hide(isa, queries, reach, &step.segment, group, T::ZERO, &mut step.powers);
        }
        Ok(())
    }

    /// Writes `dS = P ∘ (V·dOᵀ − delta)`, where dropout acts on the product.
    #[inline(always)]
    fn write_slopes<I: Lanes<T>, C: Consumer<T>>(
        &self,
        isa: I,
        group: &Group,
        step: &mut Step<'_, T>,
        ahead: &mut Ahead<T>,
    ) -> Result<()> {
        let (keys, columns) = (group.keys.clone(), group.columns.clone());
        let a = self.head.value.slice(0, step.keys(group));
        let b = self.packed.upstream.view(0..self.head.value.columns(), columns.clone())?;
        let first = [step.segment.keys.start + keys.start, columns.start];
        let mut c = step.slopes.view_mut(keys.clone(), columns.clone())?;
        multiply_block::<T, _, _>(isa, a, b, c.reborrow(), Start::Zero, ahead);
        if let Some(keep) = &self.packed.keep {
            keep.apply(first, c.reborrow());
        }
        let mut slope = Slope {
            powers: step.powers.view(keys.clone(), columns.clone())?,
            delta: &self.packed.delta[columns.clone()],
        };
        apply_epilogue(isa, c.reborrow(), &mut slope);
        if let (true, Some(bends)) = (C::OF_PRODUCTS, &step.bends) {
            apply_epilogue(isa, c, &mut Times(bends.view(keys, columns)?));
        }
        Ok(())
    }
}

/// `exp(score − lse)`, the probability.
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
        exp(isa, isa.sub(score, isa.load(&self.lse[column..])))
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

/// The product by elements.
struct Times<'a, T>(View<'a, T, 2>);

impl<T: Real> Epilogue<T> for Times<'_, T> {
    #[inline(always)]
    fn apply<I: Lanes<T>>(
        &mut self,
        isa: I,
        row: usize,
        column: usize,
        value: I::Vector,
    ) -> I::Vector {
        isa.mul(isa.load(&self.0.row(row)[column..]), value)
    }
}
