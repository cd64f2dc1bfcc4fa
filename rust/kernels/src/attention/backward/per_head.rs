//! The gradients of numbers that each head has one of: ALiBi's slopes and sinks.

use fusewire_simd::{Element, Kernel, Real, Storage};

use super::Pass;
use super::block::{Consumer, KeyFactors, Piece, QueryBlock};
use super::delta::Deltas;
use super::elementwise::Wanted;
use crate::Result;
use crate::attention::ahead::Ahead;
use crate::attention::reach::Reach;
use crate::attention::score::Distances;
use crate::attention::tile::{Place, QUERIES};
use crate::error::expect_shape;
use crate::math::Elementary;
use crate::parallel::{Team, try_for_each_part};
use crate::view::ViewMut;

/// Computes the gradient of ALiBi's slopes, `(sequences, heads)`.
///
/// # Errors
/// If the shapes do not fit together.
pub fn slopes_backward<E: Element<Real: Elementary>>(
    pass: &Pass<'_, E>,
    gradient: ViewMut<'_, E::Real, 2>,
    team: &dyn Team,
) -> Result<()> {
    pass.check()?;
    let shape = pass.attention.score_shape();
    expect_shape("the gradient of alibi_slopes", &shape[..2], &gradient.shape())?;
    if E::multiplies_factors() {
        return pass.by_tiles(team, |pass| {
            let of = |pass, place| SlopeOf { pass, place };
            E::dispatch_multiplying(EachHead { pass, gradient, team, of })
        });
    }
    slopes_backward(&pass.single(&pass.attention.single()), gradient, team)
}

/// Computes the gradient of the sinks, `(sequences, heads)`.
///
/// # Errors
/// If the shapes do not fit together.
pub fn sinks_backward<E: Element<Real: Elementary>>(
    pass: &Pass<'_, E>,
    gradient: ViewMut<'_, E::Real, 2>,
    team: &dyn Team,
) -> Result<()> {
    pass.check()?;
    let shape = pass.attention.score_shape();
    expect_shape("the gradient of sinks", &shape[..2], &gradient.shape())?;
    if E::multiplies_factors() {
        return pass.by_tiles(team, |pass| {
            let of = |pass, place| SinkOf { pass, place };
            E::dispatch_multiplying(EachHead { pass, gradient, team, of })
        });
    }
    sinks_backward(&pass.single(&pass.attention.single()), gradient, team)
}

/// One number for each head of each sequence, which a kernel computes from its place.
struct EachHead<'a, E: Element, K> {
    pass: &'a Pass<'a, E>,
    gradient: ViewMut<'a, E::Real, 2>,
    team: &'a dyn Team,
    of: fn(&'a Pass<'a, E>, Place) -> K,
}

impl<E: Element<Real: Elementary>, K: Kernel<E, Output = Result<f64>>> Kernel<E>
    for EachHead<'_, E, K>
{
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { pass, gradient, team, of } = self;
        let heads = gradient.shape()[1];
        try_for_each_part(team, gradient.blocks([1, 1]), |index, mut gradient| {
            let (sequence, head) = (index / heads, index % heads);
            let sum = isa.vectorize(of(pass, Place { sequence, head, queries: 0..0 }))?;
            gradient.set([0, 0], E::Real::from_f64(sum));
            Ok(())
        })
    }
}

/// The gradient of a head's slope: `−Σ dS · |distance|`.
struct SlopeOf<'a, E: Element> {
    pass: &'a Pass<'a, E>,
    place: Place,
}

impl<E: Element<Real: Elementary>> Kernel<E> for SlopeOf<'_, E> {
    type Output = Result<f64>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<f64> {
        let Self { pass, place } = self;
        let seen = pass.attention.head(&place);
        let factors = KeyFactors::of(isa, &seen)?;
        let mut total = 0.0;
        for first in (0..seen.reach.queries).step_by(QUERIES) {
            let mut sum = DistanceSum { reach: seen.reach, first, total: 0.0 };
            let queries = first..seen.reach.queries.min(first + QUERIES);
            let place = Place { queries, ..place };
            isa.vectorize(QueryBlock::of_all_keys(pass, seen, &factors, place, &mut sum))?;
            total -= sum.total;
        }
        Ok(total)
    }
}

/// `Σ dS · |distance|` of a block whose first query is `first`.
struct DistanceSum {
    reach: Reach,
    first: usize,
    total: f64,
}

impl<E: Element<Real: Elementary>> Consumer<E> for DistanceSum {
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
        for column in (0..queries.len()).step_by(I::LANES) {
            let query = self.first + queries.start + column;
            let distances = Distances::new(isa, &self.reach, query, keys.start);
            let mut sum = isa.zero();
            for key in 0..keys.len() {
                let row = &slopes.row(key)[column..queries.len()];
                let slope = isa.load_first(&row[..row.len().min(I::LANES)]);
                sum = isa.mul_add(slope, distances.from(isa, key), sum);
            }
            self.total += isa.sum_lanes(sum).to_f64();
        }
        Ok(())
    }
}

/// The gradient of a head's sink: `−Σ e^(sink − lse) · δ`, as of a key whose `dP` is 0.
struct SinkOf<'a, E: Element> {
    pass: &'a Pass<'a, E>,
    place: Place,
}

impl<E: Element<Real: Elementary>> Kernel<E> for SinkOf<'_, E> {
    type Output = Result<f64>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<f64> {
        let Self { pass, place } = self;
        let Some(sink) = pass.attention.head(&place).sink.map(E::Real::to_f64) else {
            return Ok(0.0);
        };
        let lse = pass.saved.lse;
        let lse = pass.attention.sequences.of_lse(lse, [place.sequence, place.head]);
        let [query_len] = lse.shape();
        let mut total = 0.0;
        for first in (0..query_len).step_by(QUERIES) {
            let queries = first..query_len.min(first + QUERIES);
            let mut delta = [E::Real::ZERO; QUERIES];
            let place = Place { queries: queries.clone(), ..place };
            pass.begin_deltas(&place, &mut delta);
            isa.vectorize(Deltas { pass, place: &place, delta: &mut delta })?;
            for (query, delta) in queries.zip(delta) {
                let lse = lse.get([query]).to_f64();
                // A sink of −∞ has no share, even where there is no key.
                let share = if sink == f64::NEG_INFINITY { 0.0 } else { (sink - lse).exp() };
                total -= share * delta.to_f64();
            }
        }
        Ok(total)
    }
}
