//! What is done to tiles between products: probabilities from scores, gradients of scores from those
//! of probabilities, and factors from both.
// Counted loops become registers; iterators over parts of arrays may not.
#![allow(clippy::needless_range_loop, clippy::manual_memcpy)]

use std::f64::consts::LOG2_E;

use fusewire_simd::{Abreast, Element, Factor, Lanes, Real, Storage};

use crate::attention::dropout::Keep;
use crate::gemm::DEEPEST;
use crate::math::{Elementary, exp, exp2_short};
use crate::view::{View, ViewMut};

/// What a consumer wants beside probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    /// The gradients of the scores.
    OfScores,
    /// The gradients of the products of queries and keys, which lie before scale and softcap.
    OfProducts,
}

/// Calls a method for strips of four vectors of columns, and for the rest by one.
macro_rules! strips {
    ($lanes:expr, $columns:expr, |$column:ident, $vectors:ident| $body:expr) => {
        let mut $column = 0;
        while $column < $columns {
            if $column + 4 * $lanes <= $columns {
                const $vectors: usize = 4;
                $body;
                $column += 4 * $lanes;
            } else {
                const $vectors: usize = 1;
                $body;
                $column += $lanes;
            }
        }
    };
}

/// `exp(scale · product − lse)`, the probability.
pub(super) struct Powers<'a, E: Element> {
    pub(super) scale: E::Real,
    pub(super) lse: &'a [E::Real],
}

impl<E: Element<Real: Elementary>> Powers<'_, E> {
    /// Writes the probabilities over the products.
    #[inline(always)]
    pub(super) fn write<I: Storage<E>>(&self, isa: I, mut tile: ViewMut<'_, E::Real, 2>) {
        let columns = tile.columns();
        strips!(I::LANES, columns, |column, VECTORS| {
            self.strip::<I, VECTORS>(isa, column, &mut tile);
        });
    }

    #[inline(always)]
    fn strip<I: Storage<E>, const VECTORS: usize>(
        &self,
        isa: I,
        column: usize,
        tile: &mut ViewMut<'_, E::Real, 2>,
    ) {
        let isa = Abreast::<I, VECTORS>(isa);
        let scale = isa.splat(self.scale);
        let log2_e = E::Real::from_f64(LOG2_E);
        let (octaves, per_octave) = (isa.splat(self.scale * log2_e), isa.splat(-log2_e));
        let lse = isa.load(&self.lse[column..]);
        let lowered = isa.mul(lse, per_octave);
        for row in 0..tile.rows() {
            let row = &mut tile.row_mut(row)[column..];
            let product = isa.load(row);
            let power = if E::IS_REAL {
                // Rounded as the logarithm was, so that a key that is alone has exactly 1.
                exp(isa, isa.sub(isa.mul(product, scale), lse))
            } else {
                // At most 1, also where a mask's numbers are so large that the logarithm, times
                // log2(e), is rounded by more than scores differ, or is infinite.
                let power = isa.mul_add(product, octaves, lowered);
                exp2_short(isa, isa.min(isa.zero(), power))
            };
            isa.store(row, power);
        }
    }
}

/// Adds the mean of `dP` over the keys of a tile, weighed by `P`, to the sums of its columns.
///
/// A mean, not a sum: where scores are large the rounding of their exponentials leaves a sum of `P` that
/// is not 1.
#[inline(always)]
pub(super) fn add_means<E: Element, I: Storage<E>>(
    isa: I,
    powers: View<'_, E::Real, 2>,
    gradients: View<'_, E::Real, 2>,
    sums: &mut [E::Real],
) {
    for (vector, sums) in sums.chunks_exact_mut(I::LANES).enumerate() {
        let columns = vector * I::LANES..(vector + 1) * I::LANES;
        let (mut products, mut weight) = (isa.zero(), isa.zero());
        for row in 0..powers.rows() {
            let power = isa.load(&powers.row(row)[columns.clone()]);
            let gradient = isa.load(&gradients.row(row)[columns.clone()]);
            products = isa.mul_add(power, gradient, products);
            weight = isa.add(weight, power);
        }
        // Queries that saw no key have none to weigh.
        let seen = isa.less(isa.zero(), weight);
        let mean = isa.div(products, isa.select(seen, weight, isa.splat(E::Real::ONE)));
        isa.store(sums, isa.add(isa.load(sums), mean));
    }
}

/// `scale · P ∘ (dP − delta)`, the gradient of the product or, with a scale of 1, of the score; dropout
/// has acted on `dP`.
pub(super) struct Slopes<'a, E: Element> {
    pub(super) wanted: Wanted,
    pub(super) scale: E::Real,
    pub(super) delta: &'a [E::Real],
    /// What gradients are multiplied by, too.
    pub(super) bends: Option<View<'a, E::Real, 2>>,
    /// What dropout decided, and the first key and query.
    pub(super) keep: Option<(&'a Keep, [usize; 2])>,
}

impl<E: Element<Real: Elementary>> Slopes<'_, E> {
    /// Writes the gradients over `dP`. Where those of products are wanted, or none, both tiles are
    /// left as factors of neighbouring queries, and those of products go as factors of neighbouring
    /// keys to `joined`.
    #[inline(always)]
    pub(super) fn write<I: Storage<E>>(
        &self,
        isa: I,
        mut powers: ViewMut<'_, E::Real, 2>,
        mut slopes: ViewMut<'_, E::Real, 2>,
        mut joined: ViewMut<'_, E::Real, 2>,
    ) {
        let columns = powers.columns();
        strips!(I::LANES, columns, |column, VECTORS| {
            for first in (0..powers.rows()).step_by(E::Factor::DEPTH) {
                let mut parts = [[isa.zero(); DEEPEST]; VECTORS];
                for part in 0..E::Factor::DEPTH {
                    if first + part < powers.rows() {
                        let row = self.row::<I, VECTORS>(
                            isa,
                            [first + part, column],
                            powers.row_mut(first + part),
                            slopes.row_mut(first + part),
                        );
                        for vector in 0..VECTORS {
                            parts[vector][part] = row[vector];
                        }
                    }
                }
                if E::Factor::DEPTH > 1 && self.wanted == Wanted::OfProducts {
                    let mut factors = [isa.zero(); VECTORS];
                    for vector in 0..VECTORS {
                        factors[vector] = isa.join(&parts[vector][..E::Factor::DEPTH]);
                    }
                    let target = &mut joined.row_mut(first / E::Factor::DEPTH)[column..];
                    Abreast::<I, VECTORS>(isa).store(target, factors);
                }
            }
        });
    }

    /// Some columns of one row; returns their gradients.
    #[inline(always)]
    fn row<I: Storage<E>, const VECTORS: usize>(
        &self,
        isa: I,
        [row, column]: [usize; 2],
        powers: &mut [E::Real],
        slopes: &mut [E::Real],
    ) -> [I::Vector; VECTORS] {
        let wide = Abreast::<I, VECTORS>(isa);
        let columns = column..column + VECTORS * I::LANES;
        let mut found = wide.load(&powers[columns.clone()]);
        let mut gradients = wide.zero();
        if self.wanted != Wanted::Nothing {
            let delta = wide.load(&self.delta[columns.clone()]);
            let fall = wide.sub(wide.load(&slopes[columns.clone()]), delta);
            gradients = wide.mul(wide.mul(found, wide.splat(self.scale)), fall);
            if let Some(bends) = self.bends {
                gradients = wide.mul(gradients, wide.load(&bends.row(row)[columns.clone()]));
            }
        }
        if let Some((keep, [key, query])) = self.keep {
            keep.apply_row(isa, key + row, query + column, &mut powers[columns.clone()]);
            found = wide.load(&powers[columns.clone()]);
        }
        if E::Factor::DEPTH == 1 || self.wanted == Wanted::OfScores {
            if self.wanted != Wanted::Nothing {
                wide.store(&mut slopes[columns], gradients);
            }
            return gradients;
        }
        for (numbers, to) in [(found, powers), (gradients, slopes)] {
            for first in (0..VECTORS).step_by(E::Factor::DEPTH) {
                let mut parts = [isa.zero(); DEEPEST];
                for part in 0..E::Factor::DEPTH.min(VECTORS) {
                    parts[part] = numbers[first + part];
                }
                let place = (column + first * I::LANES) / E::Factor::DEPTH;
                isa.store(&mut to[place..], isa.join_neighbours(&parts[..E::Factor::DEPTH]));
            }
        }
        gradients
    }
}
