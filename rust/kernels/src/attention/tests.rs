//! All passes against their definitions: every instruction set, edge sizes, strides, bands, lengths,
//! packed sequences, masks and what else changes scores; outputs begin as NaN.

mod case;

use fusewire_simd::{Bf16, Element, F16, Real, on_each_isa};
use proptest::prelude::*;

use self::case::{CAUSAL, Case, Layout, Lengths, MaskKind, NAMES, Operands, PLAIN};
use super::{Alignment, Attention, Band, Dropout, Mask, Score, Sequences, offsets};
use crate::math::Elementary;
use crate::parallel::{Pool, Serial};
use crate::view::View;

/// How far results may lie from the truth, in units of the largest of them: numbers of `E` are
/// rounded when they are stored, and so are probabilities and gradients that become factors.
fn precision<E: Element>() -> f64 {
    let one = E::Real::ONE;
    let steps = (0..60).map(|n| E::Real::from_f64(0.5_f64.powi(n)));
    // Half of what lies between 1 and the next number.
    let last = steps.take_while(|&step| E::from_real(one + step).to_real() > one).last();
    let half = last.map_or(1.0, Real::to_f64) / 2.0;
    if E::IS_REAL { 80.0 * half } else { 3.0 * half }
}

fn check<E: Element<Real: Elementary>>(case: Case) {
    let operands = Operands::<E>::new(case, 1);
    let expected = operands.expected();
    let scores = operands.attention().score_shape().iter().product::<usize>();
    on_each_isa(|isa| {
        let got = operands.compute(&Serial);
        for (name, (got, expected)) in NAMES.iter().zip(got.iter().zip(&expected)) {
            let largest =
                expected.iter().filter(|x| x.is_finite()).fold(1.0_f64, |a, b| a.max(b.abs()));
            assert_eq!(got.len(), expected.len());
            let terms = match *name {
                // As large as distances.
                "slopes" => case.key_len.max(case.query_len) as f64,
                // What cancels in a sum leaves its rounding behind, which grows like the root.
                "mask" => (scores as f64 / expected.len().max(1) as f64).sqrt(),
                _ => 1.0,
            };
            // What dropout keeps is multiplied, and δ adds up a rounding for each column of the output.
            let kept = case.dropout.map_or(1.0, |p| 1.0 / (1.0 - p));
            let columns = if matches!(*name, "output" | "lse") { 1 } else { case.value_dim.max(1) };
            let roundings = if E::IS_REAL { 1.0 } else { kept * (columns as f64).sqrt() };
            for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                let bound = precision::<E>() * largest * terms * roundings;
                let close = got == expected || (got - expected).abs() <= bound;
                assert!(close, "{isa} {name}[{i}]: {got}, not {expected}; {case:?}");
            }
        }
        let shared = operands.compute(&Pool::new(3));
        for (name, (alone, shared)) in NAMES.iter().zip(got.iter().zip(&shared)) {
            let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
            let differs = alone.iter().zip(shared).position(|pair| !same(pair));
            assert_eq!(differs, None, "{isa} {name}: threads change results; {case:?}");
        }
    });
}

#[test]
fn lengths_around_a_tile() {
    for band in [Band::FULL, CAUSAL] {
        for query_len in [0, 1, 15, 16, 17, 63, 64, 65] {
            for key_len in [0, 1, 16, 64, 127, 128, 129] {
                check::<f32>(Case { query_len, key_len, band, ..PLAIN });
            }
        }
    }
    check::<f64>(Case { query_len: 65, key_len: 129, band: CAUSAL, ..PLAIN });
}

#[test]
fn narrow_numbers() {
    let case = Case { batch: 2, query_len: 70, key_len: 151, head_dim: 40, value_dim: 24, ..PLAIN };
    for band in [Band::FULL, CAUSAL, Band { left: Some(9), ..CAUSAL }] {
        for layout in [Layout::Contiguous, Layout::Interleaved, Layout::Transposed] {
            for mask in [MaskKind::Absent, MaskKind::Attend, MaskKind::Bias, MaskKind::Padding] {
                check::<Bf16>(Case { band, layout, mask, ..case });
            }
            check::<F16>(Case { band, layout, mask: MaskKind::Bias, ..case });
            check::<Bf16>(Case { band, layout, head_dim: 7, value_dim: 33, ..case });
        }
        for lengths in [Lengths::Given, Lengths::Packed] {
            let case = Case { band, lengths, kv_heads: 2, group: 2, ..case };
            check::<Bf16>(Case { softcap: Some(2.0), slopes: true, sinks: true, ..case });
            check::<F16>(Case { dropout: Some(0.2), mask: MaskKind::Attend, ..case });
            check::<Bf16>(Case { dropout: Some(0.2), ..case });
        }
    }
    // Several tasks add to the gradient of the same queries.
    for band in [Band::FULL, CAUSAL] {
        check::<Bf16>(Case { query_len: 130, key_len: 1100, band, ..PLAIN });
        check::<F16>(Case { query_len: 1030, key_len: 700, band, ..PLAIN });
    }
}

#[test]
fn dimensions_around_a_vector() {
    for dim in [1, 4, 7, 15, 16, 17, 48, 64, 65, 80] {
        let band = if dim % 2 == 0 { CAUSAL } else { Band::FULL };
        let case = Case { query_len: 33, key_len: 40, head_dim: dim, band, ..PLAIN };
        check::<f32>(Case { value_dim: 96 - dim, ..case });
        check::<f64>(Case { value_dim: dim, ..case });
    }
}

#[test]
fn layouts_heads_and_masks() {
    let case = Case { batch: 2, kv_heads: 2, query_len: 70, key_len: 150, ..PLAIN };
    for layout in [Layout::Contiguous, Layout::Interleaved, Layout::Transposed] {
        for mask in [MaskKind::Absent, MaskKind::Attend, MaskKind::Bias, MaskKind::Padding] {
            for (group, band) in [(1, Band::FULL), (3, CAUSAL)] {
                check::<f32>(Case { group, band, mask, layout, ..case });
            }
        }
    }
    check::<f64>(Case { mask: MaskKind::Bias, ..case });
}

#[test]
fn bands_and_lengths() {
    let case = Case { batch: 3, query_len: 100, key_len: 140, ..PLAIN };
    for alignment in [Alignment::TopLeft, Alignment::BottomRight] {
        for (left, right) in
            [(None, Some(0)), (Some(5), Some(3)), (Some(0), Some(0)), (Some(40), None)]
        {
            for lengths in [Lengths::Full, Lengths::Given, Lengths::Packed] {
                let band = Band { left, right, alignment };
                check::<f32>(Case { band, lengths, ..case });
                // Fewer keys than queries: at the bottom right, the first queries see nothing.
                check::<f32>(Case { band, lengths, query_len: 140, key_len: 30, ..case });
            }
        }
    }
}

#[test]
fn dimensions_of_nothing() {
    let case = Case { query_len: 20, key_len: 30, ..PLAIN };
    // Gradients of the logarithms reach queries and keys even where values have no columns.
    check::<f32>(Case { value_dim: 0, ..case });
    check::<f32>(Case { head_dim: 0, ..case });
    check::<f32>(Case { batch: 0, ..case });
    check::<f32>(Case { kv_heads: 0, ..case });
    check::<f32>(Case { batch: 0, query_len: 0, key_len: 0, lengths: Lengths::Packed, ..case });
}

#[test]
fn what_changes_scores() {
    let case = Case { batch: 2, kv_heads: 2, query_len: 70, key_len: 150, ..PLAIN };
    for band in [Band::FULL, CAUSAL] {
        for mask in [MaskKind::Absent, MaskKind::Attend, MaskKind::Bias] {
            check::<f32>(Case { softcap: Some(0.7), band, mask, ..case });
            check::<f32>(Case { slopes: true, band, mask, ..case });
            check::<f32>(Case { sinks: true, band, mask, ..case });
            check::<f32>(Case { dropout: Some(0.3), band, mask, ..case });
        }
    }
    let all = Case { softcap: Some(2.0), slopes: true, sinks: true, dropout: Some(0.2), ..case };
    check::<f32>(Case { band: CAUSAL, mask: MaskKind::Padding, ..all });
    check::<f64>(Case { band: CAUSAL, mask: MaskKind::Bias, lengths: Lengths::Packed, ..all });
    check::<f32>(Case { dropout: Some(1.0), ..case });
}

#[test]
fn few_queries_of_many_keys() {
    let case = Case { batch: 2, kv_heads: 2, group: 3, query_len: 3, key_len: 150, ..PLAIN };
    for mask in [MaskKind::Absent, MaskKind::Attend, MaskKind::Bias, MaskKind::Padding] {
        for band in [Band::FULL, CAUSAL] {
            let case = Case { mask, band, ..case };
            check::<f32>(case);
            check::<f64>(Case { softcap: Some(0.7), sinks: true, slopes: true, ..case });
        }
    }
}

#[test]
fn large_scores_do_not_overflow_and_nan_is_seen() {
    for (extreme, check) in [
        (1e18_f32, (|x| x.is_finite()) as fn(f32) -> bool),
        (f32::NAN, f32::is_nan),
        (f32::INFINITY, f32::is_nan),
    ] {
        let mut operands = Operands::<f32>::new(PLAIN, 1);
        operands.numbers[0][0] = extreme;
        on_each_isa(|isa| {
            let [output, ..] = operands.compute(&Serial);
            assert!(check(output[0] as f32), "{isa}: {} from {extreme}", output[0]);
            assert!(output[PLAIN.value_dim..].iter().all(|x| x.is_finite()));
        });
    }
}

#[test]
fn what_does_not_fit_is_told_in_the_callers_words() {
    let case = Case { batch: 2, lengths: Lengths::Given, ..PLAIN };
    let operands = Operands::<f32>::new(case, 1);
    let refuse = |attention: Attention<'_, f32>, words: &[&str]| {
        let error = attention.check().expect_err("it does not fit").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let good = operands.attention();
    refuse(
        Attention { key: good.key.slice(3, 0..4), ..good },
        &["key", "[2, 1, 7, 8]", "[2, 1, 7, 4]"],
    );
    refuse(Attention { value: good.value.slice(2, 0..3), ..good }, &["value", "[2, 1, 3, 8]"]);
    refuse(
        Attention { key: good.key.slice(1, 0..0), value: good.value.slice(1, 0..0), ..good },
        &["multiple"],
    );
    let long = [3, 8];
    let key_lengths = Some(View::contiguous(&long, [2]).expect("fits"));
    refuse(
        Attention { sequences: Sequences::Padded { query_lengths: None, key_lengths }, ..good },
        &["key_lengths[1]", "7", "8"],
    );
    let mask = Mask::Bias(good.query);
    refuse(
        Attention { score: Score { mask, ..good.score }, ..good },
        &["attn_mask", "[2, 1, 5, 7]"],
    );
    let sinks = Some(View::contiguous(&[0.0; 2], [1, 2]).expect("fits"));
    refuse(Attention { sinks, ..good }, &["sinks", "[2, 1]", "[1, 2]"]);
    let dropout = Some(Dropout { probability: f64::NAN, seed: 0 });
    refuse(Attention { dropout, ..good }, &["dropout_p", "NaN"]);
}

#[test]
fn offsets_rise_from_0_to_the_end() {
    let check = |numbers: &[i64]| {
        let view = View::contiguous(numbers, [numbers.len()]).expect("fits");
        offsets("key_offsets", view, 9).map_err(|error| error.to_string())
    };
    assert_eq!(check(&[0, 4, 4, 9]), Ok(vec![0, 4, 4, 9]));
    for (numbers, words) in [
        (&[] as &[i64], "empty"),
        (&[0, 4], "[0, 4]"),
        (&[1, 9], "[1, 9]"),
        (&[0, 5, 4, 9], "key_offsets[2] is 4"),
        (&[0, 10], "key_offsets[1] is 10"),
        (&[-1, 9], "key_offsets[0] is -1"),
    ] {
        let message = check(numbers).expect_err("they do not rise from 0 to 9");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn dropout_decides_by_chance() {
    let dropout = Dropout { probability: 0.25, seed: 3 };
    let kept = |place, key| f64::from(u8::from(dropout.factor(place, key) > 0.0)) - 0.75;
    // The share that is kept, and how much neighbours in any direction have to do with each other.
    let (len, mut sums) = (200, [0.0; 5]);
    for query in 0..len {
        for key in 0..len {
            let here = kept([0, 0, query], key);
            sums[0] += here;
            sums[1] += here * kept([0, 0, query], key + 1);
            sums[2] += here * kept([0, 0, query + 1], key);
            sums[3] += here * kept([0, 1, query], key);
            sums[4] += here * kept([1, 0, query], key);
        }
    }
    // In units of what chance gives: each term's deviation is √(pq) or pq.
    let deviation = 0.25 * 0.75;
    for (sum, term) in
        sums.iter().zip([f64::sqrt(deviation), deviation, deviation, deviation, deviation])
    {
        let score: f64 = sum / (term * len as f64);
        assert!(score.abs() < 4.0, "{sums:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn any_combination(
        sizes in (1_usize..4, 1_usize..3, 1_usize..3, 0_usize..90, 0_usize..200),
        dims in (0_usize..40, 0_usize..40),
        left in proptest::option::of(0_usize..100),
        right in proptest::option::of(0_usize..100),
        bottom in any::<bool>(),
        lengths in prop_oneof![
            Just(Lengths::Full), Just(Lengths::Given), Just(Lengths::Packed)
        ],
        mask in prop_oneof![
            Just(MaskKind::Absent), Just(MaskKind::Attend), Just(MaskKind::Bias), Just(MaskKind::Padding)
        ],
        layout in prop_oneof![
            Just(Layout::Contiguous), Just(Layout::Interleaved), Just(Layout::Transposed)
        ],
        softcap in proptest::option::of(0.5_f64..5.0),
        dropout in proptest::option::of(0.0_f64..0.9),
        (slopes, sinks) in any::<(bool, bool)>(),
        element in 0..3,
    ) {
        let (batch, kv_heads, group, query_len, key_len) = sizes;
        let (head_dim, value_dim) = dims;
        let alignment = if bottom { Alignment::BottomRight } else { Alignment::TopLeft };
        let band = Band { left, right, alignment };
        let case = Case {
            batch, kv_heads, group, query_len, key_len, head_dim, value_dim, band, mask, lengths,
            layout, softcap, slopes, sinks, dropout,
        };
        match element {
            0 => check::<f32>(case),
            1 => check::<Bf16>(case),
            _ => check::<F16>(case),
        }
    }
}
