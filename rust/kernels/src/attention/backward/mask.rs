//! The gradient of a mask: a pass of its own for who wants it, which computes the gradients of scores
//! again, and sums them over what the mask was broadcast along, in one order whatever the team.

use std::ops::Range;

use fusewire_simd::{Element, Kernel, Lanes, Real, Storage};

use super::Pass;
use super::block::{Consumer, KeyFactors, Piece, QueryBlock};
use super::elementwise::Wanted;
use crate::attention::ahead::Ahead;
use crate::attention::tile::{KEYS, Place, QUERIES};
use crate::gemm::{Scales, copy_transposed};
use crate::math::Elementary;
use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::ViewMut;
use crate::{Error, Result};

/// Computes the gradient of a mask from which the one of the call was broadcast.
///
/// `gradient` is `(sequences or 1, heads or 1, query_len or 1, key_len or 1)`, and gets the sum over
/// what a dimension of 1 was repeated for.
///
/// # Errors
/// If the shapes do not fit together, or rows of the gradient are not contiguous.
pub fn mask_backward<E: Element<Real: Elementary>>(
    pass: &Pass<'_, E>,
    gradient: ViewMut<'_, E::Real, 4>,
    team: &dyn Team,
) -> Result<()> {
    pass.check()?;
    let (scores, shape) = (pass.attention.score_shape(), gradient.shape());
    let fits = scores.iter().zip(shape).all(|(&full, size)| size == full || size == 1);
    if !fits || !gradient.has_unit_columns() {
        return Err(Error::shape("the gradient of attn_mask", &scores, &shape));
    }
    if E::multiplies_factors() {
        return pass
            .by_tiles(team, |pass| E::dispatch_multiplying(MaskPass { pass, gradient, team }));
    }
    mask_backward(&pass.single(&pass.attention.single()), gradient, team)
}

struct MaskPass<'a, E: Element> {
    pass: &'a Pass<'a, E>,
    gradient: ViewMut<'a, E::Real, 4>,
    team: &'a dyn Team,
}

impl<E: Element<Real: Elementary>> Kernel<E> for MaskPass<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { pass, gradient, team } = self;
        let [sequences, heads, query_len, _] = pass.attention.score_shape();
        let shape = gradient.shape();
        let blocks = shape[2].div_ceil(QUERIES);
        // What a position of the gradient was repeated for.
        let shared = |size: usize, full: usize, place: usize| {
            if size == full { place..place + 1 } else { 0..full }
        };
        let parts = gradient.blocks([1, 1, QUERIES, 0]);
        try_for_each_part(team, parts, |index, gradient| {
            let [sequence, head, block] =
                [index / blocks / shape[1], index / blocks % shape[1], index % blocks];
            let first = block * QUERIES;
            let queries = if shape[2] == query_len { first..first + QUERIES } else { 0..query_len };
            isa.vectorize(MaskPart {
                pass,
                sequences: shared(shape[0], sequences, sequence),
                heads: shared(shape[1], heads, head),
                queries,
                gradient: gradient.inner([0, 0]),
            })
        })
    }
}

/// A part of a mask's gradient, and what it was repeated for.
struct MaskPart<'a, E: Element> {
    pass: &'a Pass<'a, E>,
    sequences: Range<usize>,
    heads: Range<usize>,
    queries: Range<usize>,
    gradient: ViewMut<'a, E::Real, 2>,
}

impl<E: Element<Real: Elementary>> Kernel<E> for MaskPart<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { pass, sequences, heads, queries, mut gradient } = self;
        for row in 0..gradient.rows() {
            gradient.row_mut(row).fill(E::Real::ZERO);
        }
        let mut staging = Scratch::take(QUERIES * KEYS)?;
        let mut staging = ViewMut::contiguous(&mut staging, [QUERIES, KEYS])?;
        for sequence in sequences {
            for head in heads.clone() {
                let place = Place { sequence, head, queries: 0..0 };
                let seen = pass.attention.head(&place);
                let factors = KeyFactors::of(isa, &seen)?;
                for first in queries.clone().step_by(QUERIES) {
                    let end = queries.end.min(first + QUERIES).min(seen.reach.queries);
                    if first >= end {
                        break;
                    }
                    let mut sums =
                        MaskSums { gradient: gradient.reborrow(), staging: staging.reborrow() };
                    let place = Place { queries: first..end, ..place };
                    isa.vectorize(QueryBlock::of_all_keys(pass, seen, &factors, place, &mut sums))?;
                }
            }
        }
        Ok(())
    }
}

/// Adds gradients of scores to that of the mask.
struct MaskSums<'a, T: Real> {
    gradient: ViewMut<'a, T, 2>,
    /// [`KEYS`] numbers for each of [`QUERIES`].
    staging: ViewMut<'a, T, 2>,
}

impl<E: Element<Real: Elementary>> Consumer<E> for MaskSums<'_, E::Real> {
    #[inline(always)]
    fn wanted(&self) -> Wanted {
        Wanted::OfScores
    }

    #[inline(always)]
    fn take<I: Storage<E>>(
        &mut self,
        isa: I,
        piece: Piece<'_, E::Real>,
        _: &mut Ahead,
    ) -> Result<()> {
        let Piece { keys, queries, slopes, .. } = piece;
        let slopes = slopes.slice(1, 0..queries.len());
        let mut rows = self.staging.reborrow().slice(0, 0..queries.len()).slice(1, 0..keys.len());
        copy_transposed::<E::Real, E::Real, I>(isa, slopes, Scales::Absent, rows.reborrow());
        let [one_row, one_column] = self.gradient.shape().map(|size| size == 1);
        let mut sums = [E::Real::ZERO; KEYS];
        let sums = &mut sums[..keys.len()];
        for query in 0..queries.len() {
            // Rows among themselves first: the rounding of a long running sum would be the error.
            add(isa, rows.row_mut(query), sums);
            if one_row && query + 1 < queries.len() {
                continue;
            }
            let target = self.gradient.row_mut(if one_row { 0 } else { queries.start + query });
            if one_column {
                let mut sum = isa.zero();
                for part in sums.chunks(I::LANES) {
                    sum = isa.add(sum, isa.load_first(part));
                }
                target[0] += isa.sum_lanes(sum);
            } else {
                add(isa, sums, &mut target[keys.clone()]);
            }
            sums.fill(E::Real::ZERO);
        }
        Ok(())
    }
}

/// `sums += numbers`.
#[inline(always)]
fn add<T: Real, I: Lanes<T>>(isa: I, numbers: &[T], sums: &mut [T]) {
    for (number, sum) in numbers.chunks(I::LANES).zip(sums.chunks_mut(I::LANES)) {
        let total = isa.add(isa.load_first(number), isa.load_first(sum));
        isa.store_first(sum, total);
    }
}
