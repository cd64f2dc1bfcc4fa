//! Numbers of 16 bits: every one of them, every rounding, and the products of pairs.

use crate::{Bf16, Element, F16, Kernel, Pair, Storage, available};

/// All bits of a type with 16, as numbers.
fn every<H>(from_bits: fn(u16) -> H) -> Vec<H> {
    (0..=u16::MAX).map(from_bits).collect()
}

/// Numbers at which rounding can go wrong: each half, the middle to the next, and just beside it.
fn around<H: Element<Real = f32>>(halves: &[H]) -> Vec<f32> {
    let finite: Vec<f32> = halves.iter().map(|h| h.to_real()).filter(|x| x.is_finite()).collect();
    let mut numbers = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
    for pair in finite.windows(2) {
        let middle = (f64::midpoint(f64::from(pair[0]), f64::from(pair[1]))) as f32;
        let bits = middle.to_bits();
        numbers.extend([pair[0], middle, f32::from_bits(bits ^ 1), f32::from_bits(bits ^ 2)]);
    }
    numbers
}

/// The nearest of `sorted` halves and their bits by search, ties to the even one.
fn nearest(sorted: &[(f32, u16)], x: f32) -> u16 {
    let place = sorted.partition_point(|&(half, _)| half <= x);
    let (below, above) = (sorted[place.saturating_sub(1)], sorted[place.min(sorted.len() - 1)]);
    let distance = |half: (f32, u16)| (f64::from(half.0) - f64::from(x)).abs();
    match distance(below).total_cmp(&distance(above)) {
        std::cmp::Ordering::Less => below.1,
        std::cmp::Ordering::Greater => above.1,
        std::cmp::Ordering::Equal if below.1.is_multiple_of(2) => below.1,
        std::cmp::Ordering::Equal => above.1,
    }
}

macro_rules! conversions {
    ($test:ident, $half:ident, infinity: $infinity:literal, overflow: $overflow:expr) => {
        #[test]
        fn $test() {
            let halves = every($half);
            for half in &halves {
                let back = $half::from_f32(half.to_f32());
                let same = back.0 == half.0 || half.to_f32().is_nan() && back.to_f32().is_nan();
                assert!(same, "{:#x} became {:#x}", half.0, back.0);
            }
            let mut sorted: Vec<(f32, u16)> =
                (0..$infinity).map(|bits| ($half(bits).to_f32(), bits)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            for x in around(&halves).into_iter().filter(|x| x.is_finite()) {
                let overflows = f64::from(x.abs()) >= $overflow;
                let expected = if overflows { $infinity } else { nearest(&sorted, x.abs()) };
                assert_eq!($half::from_f32(x.abs()).0, expected, "{x:e}");
                assert_eq!($half::from_f32(-x.abs()).0, expected | 0x8000, "−{x:e}");
            }
            assert!($half::from_f32(f32::from_bits(0x7f80_0001)).to_f32().is_nan());
        }
    };
}

conversions!(bf16_rounds_to_the_nearest, Bf16, infinity: 0x7f80, overflow: 3.396e38);
conversions!(f16_rounds_to_the_nearest, F16, infinity: 0x7c00, overflow: 65520.0);

/// Writes numbers through vectors and reads them back, in parts of any length.
struct ThroughMemory<'a, H> {
    numbers: &'a [f32],
    halves: &'a mut [H],
    back: &'a mut [f32],
    part: usize,
}

impl<H: Element<Real = f32>> Kernel<H> for ThroughMemory<'_, H> {
    type Output = ();
    #[inline(always)]
    fn run<I: Storage<H>>(self, isa: I) {
        let length = self.part.min(I::LANES);
        let parts = self.numbers.chunks(length).zip(self.halves.chunks_mut(length));
        for ((numbers, halves), back) in parts.zip(self.back.chunks_mut(length)) {
            if numbers.len() == I::LANES {
                isa.write(halves, isa.load(numbers));
                isa.store(back, isa.read(halves));
            } else {
                isa.write_first(halves, isa.load_first(numbers));
                isa.store_first(back, isa.read_first(halves));
            }
        }
    }
}

fn vectors_convert_as_scalars<H: Element<Real = f32>>(halves: &[H]) {
    let numbers = around(halves);
    for isa in available() {
        for part in [16, 8, 5] {
            let mut stored = vec![H::default(); numbers.len()];
            let mut back = vec![f32::NAN; numbers.len()];
            let (halves, back_numbers) = (&mut stored[..], &mut back[..]);
            let kernel = ThroughMemory { numbers: &numbers, halves, back: back_numbers, part };
            H::dispatch_on(isa, kernel).expect("available");
            for ((&x, stored), back) in numbers.iter().zip(&stored).zip(&back) {
                let expected = H::from_real(x).to_real();
                let same = |got: f32| {
                    got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan()
                };
                assert!(same(stored.to_real()) && same(*back), "{isa} {x:e}: {stored}");
            }
        }
    }
}

#[test]
fn vectors_convert_as_scalars_do() {
    vectors_convert_as_scalars(&every(Bf16));
    vectors_convert_as_scalars(&every(F16));
}

/// Sums products of two rows of numbers, by way of factors.
struct Dot<'a> {
    rows: [[&'a [f32]; 2]; 2],
    pairs: &'a mut [Pair],
    sums: &'a mut [f32],
}

impl Kernel<Bf16> for Dot<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Storage<Bf16>>(self, isa: I) {
        let ([a, b], lanes) = (self.rows, I::LANES);
        for start in (0..self.sums.len()).step_by(lanes) {
            let part = start..start + lanes;
            let load = |row: &[f32]| isa.load(&row[part.clone()]);
            let a = isa.join(&[load(a[0]), load(a[1])]);
            let b = isa.join(&[load(b[0]), load(b[1])]);
            isa.store(&mut self.sums[part.clone()], isa.multiply_add(a, b, isa.splat(0.25)));
            isa.store_factors(&mut self.pairs[part], a);
        }
    }
}

#[test]
fn pairs_are_joined_and_multiplied() {
    let numbers: Vec<f32> =
        (0..256_u32).map(|i| f32::from(i as u8) * 0.731 - 90.0 + 1e-3).collect();
    let rows: Vec<&[f32]> = numbers.chunks(64).collect();
    for isa in available() {
        let (mut pairs, mut sums) = ([Pair::default(); 64], [f32::NAN; 64]);
        let rows = [[rows[0], rows[1]], [rows[2], rows[3]]];
        Bf16::dispatch_on(isa, Dot { rows, pairs: &mut pairs, sums: &mut sums })
            .expect("available");
        for lane in 0..64 {
            let rounded = rows.map(|row| row.map(|row| Bf16::from_f32(row[lane])));
            assert_eq!(pairs[lane].0, rounded[0], "{isa}");
            let [a, b] = rounded.map(|row| row.map(|half| f64::from(half.to_f32())));
            let expected = 0.25 + a[0] * b[0] + a[1] * b[1];
            let bound = 1.2e-7 * (0.25 + (a[0] * b[0]).abs() + (a[1] * b[1]).abs());
            let error = (f64::from(sums[lane]) - expected).abs();
            assert!(error <= bound, "{isa} lane {lane}: {}, not {expected}", sums[lane]);
        }
    }
}
