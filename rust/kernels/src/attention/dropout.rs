//! Dropout of probabilities, decided by a hash of where they are: the same in every pass, on every
//! instruction set, with any number of threads.

use fusewire_simd::{Kernel, Lanes, Real, Storage};

use super::tile::{Place, QUERIES};

/// Which probabilities are dropped; those that are kept are divided by `1 − probability`.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// How often a probability is dropped, from 0 to 1.
    pub probability: f64,
    /// Decides which.
    pub seed: u64,
}

/// The fractional part of the golden ratio in 64 bits, odd: multiples of it are well spread.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The decisions for a block of queries.
///
/// A query of a head has two random words, `start` and `twist`; the hash of its key `j` is a
/// finalizer of 32 bits on `start + j · GOLDEN`, with `twist` in its middle so that no row of
/// decisions is another one shifted. Two multiplications for each decision, all of them in lanes.
pub(super) struct Keep {
    starts: [u32; QUERIES],
    twists: [u32; QUERIES],
    threshold: u32,
    scale: f64,
}

impl Dropout {
    /// The two words of a query.
    fn words(&self, [sequence, head, query]: [usize; 3]) -> (u32, u32) {
        let absorb = |state: u64, number: usize| {
            mix(state.wrapping_add(GOLDEN.wrapping_mul(number as u64 + 1)))
        };
        let word = absorb(absorb(absorb(mix(self.seed), sequence), head), query);
        (word as u32, (word >> 32) as u32)
    }

    /// Hashes below it are dropped. It saturates: at a probability of 1, what no threshold can drop
    /// is multiplied by a factor of 0.
    fn threshold(&self) -> u32 {
        (self.probability * 2.0_f64.powi(32)).round() as u32
    }

    /// What is kept is multiplied by this.
    fn scale(&self) -> f64 {
        let kept = 1.0 - self.probability;
        if kept > 0.0 { 1.0 / kept } else { 0.0 }
    }

    /// What one probability is multiplied by, 0 or `1 / (1 − probability)`.
    pub fn factor(&self, place: [usize; 3], key: usize) -> f64 {
        let (start, twist) = self.words(place);
        if hash(start, twist, step(key)) < self.threshold() { 0.0 } else { self.scale() }
    }

    /// The decisions for the queries of `place`.
    pub(super) fn keep(&self, place: &Place) -> Keep {
        let (mut starts, mut twists) = ([0; QUERIES], [0; QUERIES]);
        let words = starts.iter_mut().zip(&mut twists);
        for (query, (start, twist)) in place.queries.clone().zip(words) {
            (*start, *twist) = self.words([place.sequence, place.head, query]);
        }
        Keep { starts, twists, threshold: self.threshold(), scale: self.scale() }
    }
}

/// What the number of a key adds to the first word.
#[inline(always)]
fn step(key: usize) -> u32 {
    (key as u32).wrapping_mul(GOLDEN as u32)
}

/// 32 well-mixed bits; constants and shifts are those of Wellons' `lowbias32`.
#[inline(always)]
fn hash(start: u32, twist: u32, step: u32) -> u32 {
    let word = start.wrapping_add(step);
    let word = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
    let word = (word ^ (word >> 15)).wrapping_add(twist).wrapping_mul(0x846c_a68b);
    word ^ (word >> 16)
}

impl Keep {
    /// Drops or scales the numbers of one key, given the query of the block at the first.
    #[inline(always)]
    pub(super) fn apply_row<T: Real, I: Lanes<T>>(
        &self,
        isa: I,
        key: usize,
        first_query: usize,
        numbers: &mut [T],
    ) {
        isa.vectorize(Dropping { keep: self, key, first_query, numbers });
    }
}

/// One row; a function of its own, so that loops that seldom drop anything stay short.
struct Dropping<'a, T> {
    keep: &'a Keep,
    key: usize,
    first_query: usize,
    numbers: &'a mut [T],
}

impl<T: Real> Kernel<T> for Dropping<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<T>>(self, _: I) {
        let Self { keep: Keep { starts, twists, threshold, scale }, key, .. } = self;
        let (step, scale) = (step(key), T::from_f64(*scale));
        let queries = self.first_query..QUERIES.min(self.first_query + self.numbers.len());
        let words = starts[queries.clone()].iter().zip(&twists[queries]);
        for (number, (&start, &twist)) in self.numbers.iter_mut().zip(words) {
            let dropped = hash(start, twist, step) < *threshold;
            *number = if dropped { T::ZERO } else { *number * scale };
        }
    }
}
