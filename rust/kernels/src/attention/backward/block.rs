//! Probabilities and gradients of scores of one block of queries, segment by segment.

use std::ops::Range;

use fusewire_simd::{Element, Factor, Kernel, Real, Storage};

use super::Pass;
use super::delta::Deltas;
use super::elementwise::{Powers, Slopes, Wanted, add_means};
use crate::Result;
use crate::attention::ahead::Ahead;
use crate::attention::dropout::Keep;
use crate::attention::operand::{Operand, chain, deep, pack_columns};
use crate::attention::params::Head;
use crate::attention::reach::Segment;
use crate::attention::score::{Raise, hide};
use crate::attention::tile::{Ground, Group, KEYS, Place, QUERIES, Tile, grain};
use crate::gemm::{Start, multiply_in_chains};
use crate::math::Elementary;
use crate::scratch::Scratch;
use crate::view::View;

/// What becomes of the gradients of scores.
pub(super) trait Consumer<E: Element<Real: Elementary>> {
    /// What it wants beside probabilities.
    fn wanted(&self) -> Wanted;

    /// Takes one piece; what is needed next may be fetched `ahead`.
    fn take<I: Storage<E>>(
        &mut self,
        isa: I,
        piece: Piece<'_, E::Real>,
        ahead: &mut Ahead,
    ) -> Result<()>;
}

/// Keys up to which `rowsum(dO ∘ O)` is taken as the mean of `dP`, weighed by `P`, from the very
/// numbers that it is taken off: with few of them most of both cancels, and another rounding would
/// be left.
const FEW_KEYS: usize = 32;

/// What neighbouring keys and neighbouring queries of a block have to do with each other. Rows are
/// whole vectors, the last with zeros behind the last query.
pub(super) struct Piece<'a, T: Real> {
    /// The keys, counted from the block's first.
    pub(super) keys: Range<usize>,
    /// The queries, counted from the first of the block.
    pub(super) queries: Range<usize>,
    /// The probabilities, as dropout left them, `(keys, queries)`; for who wants the gradients of
    /// scores as numbers, else as the factors that neighbouring queries make.
    pub(super) powers: View<'a, T, 2>,
    /// The gradients that the consumer wants, likewise.
    pub(super) slopes: View<'a, T, 2>,
    /// Those of products once more, as the factors that neighbouring keys make.
    pub(super) joined: View<'a, T, 2>,
}

/// Keys and values as factors along their dimension.
pub(super) struct KeyFactors<'a, E: Element> {
    key: Operand<'a, E>,
    value: Operand<'a, E>,
}

impl<'a, E: Element> KeyFactors<'a, E> {
    /// Those of the keys that `head` sees.
    #[inline(always)]
    pub(super) fn of<I: Storage<E>>(isa: I, head: &Head<'a, E>) -> Result<Self> {
        let key = Operand::along_columns(isa, head.key)?;
        Ok(Self { key, value: Operand::along_columns(isa, head.value)? })
    }
}

/// Up to 64 queries of one head, against those of some keys that they reach.
pub(super) struct QueryBlock<'a, 'b, E: Element, C> {
    pub(super) pass: &'a Pass<'a, E>,
    /// What the head sees, of keys and values only these.
    pub(super) head: Head<'a, E>,
    pub(super) factors: &'b KeyFactors<'a, E>,
    /// Where the keys lie among all.
    pub(super) keys: Range<usize>,
    pub(super) place: Place,
    /// What is needed behind it.
    pub(super) ahead: Ahead,
    pub(super) consumer: &'b mut C,
}

impl<'a, 'b, E: Element, C> QueryBlock<'a, 'b, E, C> {
    /// One against all keys that its `head` sees.
    pub(super) fn of_all_keys(
        pass: &'a Pass<'a, E>,
        head: Head<'a, E>,
        factors: &'b KeyFactors<'a, E>,
        place: Place,
        consumer: &'b mut C,
    ) -> Self {
        Self {
            pass,
            head,
            factors,
            keys: 0..head.key.rows(),
            place,
            ahead: Ahead::nothing(),
            consumer,
        }
    }
}

/// A block of queries as the products want it.
struct Packed<'a, E: Element> {
    /// Queries as columns.
    query: View<'a, E::Factor, 2>,
    /// Gradients of the output as columns.
    upstream: View<'a, E::Factor, 2>,
    /// `rowsum(dO ∘ O) − dLSE`, or `−dLSE` where the rest comes from what it is taken off.
    delta: &'a [E::Real],
    /// The logarithms; ∞ where a query saw no key.
    lse: &'a [E::Real],
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
    /// The same as factors of neighbouring keys, if those are more than a number.
    joined: Tile<'a, T>,
    /// Where more than a scale lies between products and scores: the ground, then the derivative of
    /// the softcap.
    bends: Option<Tile<'a, T>>,
}

impl<T: Real> Step<'_, T> {
    /// The keys of a group, counted from the block's first.
    fn keys(&self, group: &Group) -> Range<usize> {
        let first = self.segment.keys.start - self.first_key;
        first + group.keys.start..first + group.keys.end
    }
}

impl<E: Element<Real: Elementary>, C: Consumer<E>> Kernel<E> for QueryBlock<'_, '_, E, C> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { pass, head, factors, keys, place, mut ahead, consumer } = self;
        let score = &pass.attention.score;
        let (key, value) = (factors.key.view()?, factors.value.view()?);
        let queries = place.queries.clone();
        let width = queries.len().next_multiple_of(I::LANES);
        let cut = [grain::<E, I>(isa), width];
        let Pass { attention, upstream, .. } = pass;
        let sequences = &attention.sequences;

        let raised = if score.is_scaled_only() { 0 } else { width * KEYS };
        let staging = score.mask.staging(KEYS, width);
        let room = width * KEYS / E::Factor::DEPTH;
        let mut scratch = Scratch::take(width * (2 * KEYS + 2) + room + raised + staging)?;
        let (delta, rest) = scratch.split_at_mut(width);
        let (lse, rest) = rest.split_at_mut(width);
        let (powers, rest) = rest.split_at_mut(width * KEYS);
        let (slopes, rest) = rest.split_at_mut(width * KEYS);
        let (joined, rest) = rest.split_at_mut(room);
        let (bends, staging) = rest.split_at_mut(raised);

        // A sink has a share of the probability, but no key.
        let few = head.sink.is_none() && head.reach.span(queries.clone()).len() <= FEW_KEYS;
        let groups = |segment| head.reach.groups(queries.clone(), &segment, cut);
        let whole = few
            && head.reach.segments(queries.clone(), 0..head.reach.keys).flat_map(groups).count()
                < 2;
        pass.begin_deltas(&place, delta);
        if !whole {
            isa.vectorize(Deltas { pass, place: &place, delta: &mut *delta })?;
        }
        pass.write_lse(&place, lse);
        let query = pack_columns(isa, sequences.of_block(attention.query, &place), width)?;
        let gradient = pack_columns(isa, sequences.of_block(upstream.output, &place), width)?;
        let packed = Packed {
            query: query.view()?,
            upstream: gradient.view()?,
            delta,
            lse,
            keep: pass.attention.dropout.map(|dropout| dropout.keep(&place)),
        };
        let pairs = head.reach.pairs(queries.clone()).min(keys.len() * width);
        ahead.spread::<E, I>(pairs * (3 * key.columns() + 2 * value.columns()));

        for segment in head.reach.segments(queries.clone(), keys.clone()) {
            let Some(segment) = score.mask.narrow(&place, segment) else { continue };
            let rows = segment.keys.len();
            let mut powers = Tile::new(powers, rows, width);
            let mut bends = (raised > 0).then(|| Tile::new(bends, rows, width));
            let tile = bends.as_mut().unwrap_or(&mut powers);
            let ground = score.ground(isa, &place, &head.reach, &segment, tile, staging)?;
            if ground == Ground::Hidden {
                continue;
            }
            let slopes = Tile::new(slopes, rows, width);
            let joined = Tile::new(joined, rows.div_ceil(E::Factor::DEPTH), width);
            let groups = head.reach.groups(queries.clone(), &segment, cut);
            let first_key = keys.start;
            let mut step = Step { segment, first_key, ground, powers, slopes, joined, bends };
            for group in groups {
                isa.vectorize(Block {
                    pass,
                    head: &head,
                    key,
                    value,
                    place: &place,
                    packed: &packed,
                    wanted: consumer.wanted(),
                    whole,
                    group: &group,
                    step: &mut step,
                    ahead: &mut ahead,
                })?;
                let columns = group.columns.clone();
                let piece = Piece {
                    keys: step.keys(&group),
                    // The lanes behind the last query have no rows.
                    queries: columns.start..columns.end.min(queries.len()),
                    powers: step.powers.view(group.keys.clone(), columns.clone())?,
                    slopes: step.slopes.view(group.keys.clone(), columns.clone())?,
                    joined: if E::Factor::DEPTH == 1 {
                        step.slopes.view(group.keys, columns)?
                    } else {
                        step.joined.view(deep::<E>(group.keys), columns)?
                    },
                };
                consumer.take(isa, piece, &mut ahead)?;
            }
        }
        Ok(())
    }
}

/// Neighbouring keys against a block of queries; one function for all consumers.
struct Block<'a, 'b, E: Element> {
    pass: &'a Pass<'a, E>,
    head: &'a Head<'a, E>,
    key: View<'a, E::Factor, 2>,
    value: View<'a, E::Factor, 2>,
    place: &'a Place,
    packed: &'a Packed<'a, E>,
    wanted: Wanted,
    /// Whether the group has all keys that its queries reach.
    whole: bool,
    group: &'a Group,
    step: &'a mut Step<'b, E::Real>,
    ahead: &'a mut Ahead,
}

impl<E: Element<Real: Elementary>> Kernel<E> for Block<'_, '_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(mut self, isa: I) -> Result<()> {
        self.write_powers(isa)?;
        self.write_slopes(isa)
    }
}

impl<E: Element<Real: Elementary>> Block<'_, '_, E> {
    /// Writes `P = exp(score − lse)` over the ground.
    #[inline(always)]
    fn write_powers<I: Storage<E>>(&mut self, isa: I) -> Result<()> {
        let Self { group, step, .. } = self;
        let (keys, columns) = (group.keys.clone(), group.columns.clone());
        let score = &self.pass.attention.score;
        let a = self.key.slice(0, step.keys(group));
        let b = self.packed.query.slice(1, columns.clone());
        let mut c = step.powers.view_mut(keys.clone(), columns.clone())?;
        let written = step.ground == Ground::Written;
        let start = if written && step.bends.is_none() { Start::Accumulate } else { Start::Zero };
        let chain = chain::<E>(a.columns(), &self.head.reach);
        multiply_in_chains::<E, _, _>(isa, a, b, c.reborrow(), start, chain, self.ahead);
        let mut scale = E::Real::from_f64(score.scale);
        if let Some(bends) = &mut step.bends {
            isa.vectorize::<E::Real, _>(Raise {
                scale: score.scale,
                cap: score.softcap,
                scores: c.reborrow(),
                ground: bends.view_mut(keys, columns.clone())?,
                written,
            });
            scale = E::Real::ONE;
        }
        Powers::<E> { scale, lse: &self.packed.lse[columns] }.write(isa, c);
        if step.segment.edge {
            let (queries, reach) = (self.place.queries.clone(), &self.head.reach);
            hide(isa, queries, reach, &step.segment, group, E::Real::ZERO, &mut step.powers);
        }
        Ok(())
    }

    /// Writes `dS = P ∘ (V·dOᵀ − delta)` where it is wanted, dropout acting on the product, and
    /// leaves what the consumer takes.
    #[inline(always)]
    fn write_slopes<I: Storage<E>>(&mut self, isa: I) -> Result<()> {
        let Self { group, step, packed, .. } = self;
        let (keys, columns) = (group.keys.clone(), group.columns.clone());
        let score = &self.pass.attention.score;
        if self.wanted != Wanted::Nothing {
            let a = self.value.slice(0, step.keys(group));
            let b = packed.upstream.slice(1, columns.clone());
            let c = step.slopes.view_mut(keys.clone(), columns.clone())?;
            let chain = chain::<E>(a.columns(), &self.head.reach);
            multiply_in_chains::<E, _, _>(isa, a, b, c, Start::Zero, chain, self.ahead);
        }
        let first_key = step.segment.keys.start + keys.start;
        let kept = packed.keep.as_ref().map(|keep| (keep, [first_key, columns.start]));
        let mut delta = [E::Real::ZERO; QUERIES];
        let delta = &mut delta[..columns.len()];
        delta.copy_from_slice(&packed.delta[columns.clone()]);
        let mut slopes = step.slopes.view_mut(keys.clone(), columns.clone())?;
        if self.wanted != Wanted::Nothing {
            if let Some((keep, [key, query])) = kept {
                for row in 0..slopes.rows() {
                    keep.apply_row(isa, key + row, query, slopes.row_mut(row));
                }
            }
            if self.whole {
                let powers = step.powers.view(keys.clone(), columns.clone())?;
                add_means::<E, I>(isa, powers, slopes.as_view(), delta);
            }
        }
        let of_products = self.wanted == Wanted::OfProducts;
        let bends = step.bends.as_ref().filter(|_| of_products && score.softcap.is_some());
        let passes = Slopes::<E> {
            wanted: self.wanted,
            scale: if of_products { E::Real::from_f64(score.scale) } else { E::Real::ONE },
            delta,
            bends: bends.map(|bends| bends.view(keys.clone(), columns.clone())).transpose()?,
            keep: kept,
        };
        let joined = deep::<E>(keys.clone());
        let joined = step.joined.view_mut(joined, columns.clone())?;
        let powers = step.powers.view_mut(keys, columns)?;
        passes.write(isa, powers, slopes, joined);
        Ok(())
    }
}
