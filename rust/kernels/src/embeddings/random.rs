//! Random numbers, and words drawn by their frequency.

use crate::{Error, Result};

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 32 random bits.
    #[inline]
    pub(super) fn bits(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    /// A number below `count`.
    #[inline]
    pub(super) fn below(&mut self, count: u32) -> u32 {
        scaled(self.bits(), count)
    }
}

/// 32 random bits as a number below `count`.
#[inline]
fn scaled(bits: u32, count: u32) -> u32 {
    ((u64::from(bits) * u64::from(count)) >> 32) as u32
}

/// A distribution over words that is drawn from in constant time (Walker's aliases, 1974).
pub(super) struct Noise {
    /// A place stands for its own word while 32 random bits are below the first, else for the second.
    places: Vec<(u32, u32)>,
}

impl Noise {
    /// Words with these weights.
    pub(super) fn new(weights: impl Iterator<Item = f64>) -> Result<Self> {
        let weights: Vec<f64> = weights.collect();
        let total: f64 = weights.iter().sum();
        if !(total.is_finite() && total > 0.0 && weights.iter().all(|&weight| weight >= 0.0)) {
            return Err(Error::Value(
                "noise must not be negative, and not 0 for every word".into(),
            ));
        }
        let scale = weights.len() as f64 / total;
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
        let mut places: Vec<(u32, u32)> =
            (0..weights.len()).map(|w| (u32::MAX, w as u32)).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&word| shares[word] < 1.0);
        while let (Some(low), Some(&high)) = (poor.pop(), rich.last()) {
            places[low] = ((shares[low] * f64::from(u32::MAX)) as u32, high as u32);
            shares[high] -= 1.0 - shares[low];
            if shares[high] < 1.0 {
                rich.pop();
                poor.push(high);
            }
        }
        Ok(Self { places })
    }

    #[inline]
    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        let bits = random.next();
        let place = scaled((bits >> 32) as u32, self.places.len() as u32);
        let (threshold, alias) = self.places[place as usize];
        if (bits as u32) < threshold { place } else { alias }
    }
}
