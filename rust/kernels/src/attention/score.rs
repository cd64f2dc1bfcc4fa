//! What turns products of queries and keys into scores.
//!
//! In order: scale, softcap, what is added (mask, ALiBi), and −∞ where a query does not reach a key.
//! What is added is the ground that the product accumulates on, unless a softcap comes between.

use std::ops::Range;

use fusewire_simd::{Element, Kernel, Lanes, Real, Storage};

use super::mask::Mask;
use super::reach::{Band, Reach, Segment};
use super::tile::{Ground, Group, Place, Tile};
use crate::Result;
use crate::math::{Elementary, tanh};
use crate::view::{View, ViewMut};

/// What turns products of queries and keys into scores.
#[derive(Clone, Copy, Debug)]
pub struct Score<'a, E: Element> {
    /// The factor of the products.
    pub scale: f64,
    /// Scaled products `x` become `cap · tanh(x / cap)`.
    pub softcap: Option<f64>,
    /// How far queries see.
    pub band: Band,
    /// ALiBi: `slope · |distance from the diagonal|` is taken off, `(sequences, heads)`.
    pub slopes: Option<View<'a, E::Real, 2>>,
    /// What else is added.
    pub mask: Mask<'a, E>,
}

impl<'a, E: Element> Score<'a, E> {
    /// The same of [`Element::Single`].
    pub(super) fn single(self) -> Score<'a, E::Single> {
        let Self { scale, softcap, band, slopes, mask } = self;
        Score { scale, softcap, band, slopes, mask: mask.single() }
    }

    /// Scaled products of every query and every key, and nothing else.
    pub fn plain(scale: f64) -> Self {
        Self { scale, softcap: None, band: Band::FULL, slopes: None, mask: Mask::Absent }
    }

    /// Whether scores are products times the scale and nothing else, or −∞: softmax then takes the
    /// products as they are, and scales differences of them.
    #[inline(always)]
    pub(super) fn is_scaled_only(&self) -> bool {
        let added = self.slopes.is_some() || matches!(self.mask, Mask::Bias(_));
        self.scale > 0.0 && self.softcap.is_none() && !added
    }
}

impl<E: Element<Real: Elementary>> Score<'_, E> {
    /// Writes what the scores of `segment` begin as, where that is not 0; reach is left to `hide`.
    #[inline(always)]
    pub(super) fn ground<I: Storage<E>>(
        &self,
        isa: I,
        place: &Place,
        reach: &Reach,
        segment: &Segment,
        tile: &mut Tile<'_, E::Real>,
        staging: &mut [E::Real],
    ) -> Result<Ground> {
        isa.vectorize(Grounding { score: self, place, reach, segment, tile, staging })
    }
}

/// Writes the ground of a tile; one function, because several passes do.
struct Grounding<'a, 'b, E: Element> {
    score: &'a Score<'a, E>,
    place: &'a Place,
    reach: &'a Reach,
    segment: &'a Segment,
    tile: &'a mut Tile<'b, E::Real>,
    staging: &'a mut [E::Real],
}

impl<E: Element<Real: Elementary>> Kernel<E> for Grounding<'_, '_, E> {
    type Output = Result<Ground>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<Ground> {
        let Self { score, place, reach, segment, tile, staging } = self;
        let mut ground = Ground::Clear;
        if segment.masked {
            ground = score.mask.write(isa, place, segment, tile, staging)?;
        }
        if ground == Ground::Hidden {
            return Ok(ground);
        }
        if let Some(slopes) = score.slopes {
            let slope = slopes.get([place.sequence, place.head]);
            let written = ground == Ground::Written;
            tilt(isa, slope, place.queries.start, reach, segment, tile, written);
            ground = Ground::Written;
        }
        Ok(ground)
    }
}

/// The distances of queries from keys along the band, by vectors of queries.
#[derive(Clone, Copy)]
pub(super) struct Distances<V> {
    /// The keys on the diagonals of the queries, counted from the first key.
    diagonals: V,
}

impl<V: Copy> Distances<V> {
    /// Those of the queries from `query` on, with keys counted from `first_key`.
    #[inline(always)]
    pub(super) fn new<T: Real, I: Lanes<T, Vector = V>>(
        isa: I,
        reach: &Reach,
        query: usize,
        first_key: usize,
    ) -> Self {
        let mut diagonals = [T::ZERO; 16];
        for (lane, diagonal) in diagonals.iter_mut().enumerate().take(I::LANES) {
            // Counted from the segment's first key, so that every number is exact.
            *diagonal = T::from_f64((reach.diagonal(query + lane) - first_key as isize) as f64);
        }
        Self { diagonals: isa.load(&diagonals) }
    }

    /// Those from the key that is `key` behind the first.
    #[inline(always)]
    pub(super) fn from<T: Real, I: Lanes<T, Vector = V>>(&self, isa: I, key: usize) -> V {
        let signed = isa.sub(self.diagonals, isa.splat(T::from_f64(key as f64)));
        isa.max(signed, isa.sub(isa.zero(), signed))
    }
}

/// Writes `−slope · |distance|`, on what is there if something is `written`.
#[inline(always)]
fn tilt<T: Real, I: Lanes<T>>(
    isa: I,
    slope: T,
    first_query: usize,
    reach: &Reach,
    segment: &Segment,
    tile: &mut Tile<'_, T>,
    written: bool,
) {
    let slope = isa.splat(slope);
    for column in (0..tile.width()).step_by(I::LANES) {
        let distances = Distances::new(isa, reach, first_query + column, segment.keys.start);
        for key in 0..segment.keys.len() {
            let place = &mut tile.row_mut(key)[column..];
            let ground = if written { isa.load(place) } else { isa.zero() };
            isa.store(place, isa.neg_mul_add(distances.from(isa, key), slope, ground));
        }
    }
}

/// Writes `hidden` wherever a query does not reach a key of `group`, inside the group's columns.
#[inline(always)]
pub(super) fn hide<T: Real, I: Lanes<T>>(
    isa: I,
    queries: Range<usize>,
    reach: &Reach,
    segment: &Segment,
    group: &Group,
    hidden: T,
    tile: &mut Tile<'_, T>,
) {
    let keys = segment.keys.start + group.keys.start..segment.keys.start + group.keys.end;
    // Counted from the group's first key, so that every number is exact.
    let position = |key: usize| T::from_f64((key.clamp(keys.start, keys.end) - keys.start) as f64);
    for column in group.columns.clone().step_by(I::LANES) {
        let query = |lane: usize| (queries.start + column + lane).min(queries.end - 1);
        let (first, last) = (reach.keys(query(0)), reach.keys(query(I::LANES - 1)));
        if last.start <= keys.start && keys.end <= first.end {
            continue;
        }
        let mut bounds = [[T::ZERO; 16]; 2];
        let [starts, ends] = &mut bounds;
        for (lane, (start, end)) in starts.iter_mut().zip(ends).enumerate().take(I::LANES) {
            let reached = reach.keys(query(lane));
            (*start, *end) = (position(reached.start), position(reached.end));
        }
        let (start, end) = (isa.load(&bounds[0]), isa.load(&bounds[1]));
        for (number, key) in group.keys.clone().enumerate() {
            let number = isa.splat(T::from_f64(number as f64));
            let place = &mut tile.row_mut(key)[column..];
            let shown = isa.select(isa.less(number, end), isa.load(place), isa.splat(hidden));
            isa.store(place, isa.select(isa.less(number, start), isa.splat(hidden), shown));
        }
    }
}

/// Turns products into scores: scales them, bends them to `cap · tanh(product / cap)`, and adds the
/// `ground` where it is `written`. What bends leaves its derivative, `1 − tanh²`, in the ground's
/// place. Rows are whole vectors.
pub(super) struct Raise<'a, T: Real> {
    pub(super) scale: f64,
    pub(super) cap: Option<f64>,
    pub(super) scores: ViewMut<'a, T, 2>,
    pub(super) ground: ViewMut<'a, T, 2>,
    pub(super) written: bool,
}

impl<T: Elementary> Kernel<T> for Raise<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        let Self { scale, cap, mut scores, mut ground, written } = self;
        let (scale, one) = (isa.splat(T::from_f64(scale)), isa.splat(T::ONE));
        let cap = cap.map(|cap| [cap, 1.0 / cap].map(T::from_f64));
        for row in 0..scores.rows() {
            let parts = scores.row_mut(row).chunks_exact_mut(I::LANES);
            for (score, ground) in parts.zip(ground.row_mut(row).chunks_exact_mut(I::LANES)) {
                let base = if written { isa.load(ground) } else { isa.zero() };
                let product = isa.mul(isa.load(score), scale);
                if let Some([cap, per_cap]) = cap {
                    let bent = tanh(isa, isa.mul(product, isa.splat(per_cap)));
                    isa.store(score, isa.mul_add(bent, isa.splat(cap), base));
                    isa.store(ground, isa.neg_mul_add(bent, bent, one));
                } else {
                    isa.store(score, isa.add(product, base));
                }
            }
        }
    }
}
