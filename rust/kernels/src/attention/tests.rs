//! Both passes against their definitions: every instruction set, edge sizes, strides, bands,
//! lengths, masks; outputs begin as NaN.

use fusewire_simd::{IsaName, available};
use proptest::prelude::*;

use super::backward::Backward;
use super::forward::Forward;
use super::{Alignment, Attention, Band, Gradients, Mask, Saved, Score, Upstream, reference};
use crate::math::Elementary;
use crate::parallel::{Pool, Serial, Team};
use crate::view::{View, ViewMut};

/// Sizes and options of one call.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    kv_heads: usize,
    group: usize,
    query_len: usize,
    key_len: usize,
    head_dim: usize,
    value_dim: usize,
    band: Band,
    mask: MaskKind,
    lengths: bool,
    layout: Layout,
}

#[derive(Clone, Copy, Debug)]
enum MaskKind {
    Absent,
    Attend,
    Bias,
    /// Bytes that are the same for all queries and heads.
    Padding,
}

/// How `(batch, heads, length, dim)` lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Contiguous,
    /// `(batch, length, heads, dim)`, with a gap behind each row.
    Interleaved,
    /// `(batch, heads, dim, length)`.
    Transposed,
}

const PLAIN: Case = Case {
    batch: 1,
    kv_heads: 1,
    group: 1,
    query_len: 5,
    key_len: 7,
    head_dim: 8,
    value_dim: 8,
    band: Band::FULL,
    mask: MaskKind::Absent,
    lengths: false,
    layout: Layout::Contiguous,
};

const CAUSAL: Band = Band { right: Some(0), ..Band::FULL };

/// Numbers in [−1, 1] without a pattern.
fn numbers<T: Elementary>(count: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| T::from_f64(next())).collect()
}

const GAP: usize = 3;

/// A view of `(batch, heads, length, dim)` on data long enough for any layout.
fn laid_out<T>(
    data: &[T],
    [batch, heads, length, dim]: [usize; 4],
    layout: Layout,
) -> View<'_, T, 4> {
    let view = |shape: [usize; 4]| {
        View::contiguous(&data[..shape.iter().product()], shape).expect("the data suffices")
    };
    match layout {
        Layout::Contiguous => view([batch, heads, length, dim]),
        Layout::Interleaved => {
            view([batch, length, heads, dim + GAP]).slice(3, 1..dim + 1).permute([0, 2, 1, 3])
        }
        Layout::Transposed => view([batch, heads, dim, length]).permute([0, 1, 3, 2]),
    }
}

/// The operands of a case.
struct Operands<T> {
    case: Case,
    numbers: [Vec<T>; 5],
    bytes: Vec<u8>,
    lengths: [Vec<i64>; 2],
}

/// Outputs, logarithms and the gradients of query, key and value.
type Everything<N> = [Vec<N>; 5];

impl<T: Elementary> Operands<T> {
    fn new(case: Case, seed: u64) -> Self {
        let Case { batch, kv_heads, group, query_len, key_len, head_dim, value_dim, .. } = case;
        let heads = kv_heads * group;
        let count = |heads, length, dim| batch * heads * length * (dim + GAP);
        let mask = numbers::<f64>(batch * heads * query_len.max(1) * key_len, seed + 9);
        let length = |most: usize, row: usize| (most * (row + 1) / (batch + 1)) as i64;
        Self {
            case,
            numbers: [
                numbers(count(heads, query_len, head_dim), seed),
                numbers(count(kv_heads, key_len, head_dim), seed + 1),
                numbers(count(kv_heads, key_len, value_dim), seed + 2),
                numbers(count(heads, query_len, value_dim), seed + 3),
                numbers(batch * heads * query_len * key_len.max(1), seed + 4),
            ],
            bytes: mask.iter().map(|&x| u8::from(x > -0.4) * 2).collect(),
            lengths: [
                (0..batch).map(|row| length(query_len, row)).collect(),
                (0..batch).rev().map(|row| length(key_len, row)).collect(),
            ],
        }
    }

    fn attention(&self) -> Attention<'_, T> {
        let Case { batch, kv_heads, group, query_len, key_len, head_dim, value_dim, .. } =
            self.case;
        let (heads, layout) = (kv_heads * group, self.case.layout);
        let [query, key, value, _, bias] = &self.numbers;
        let scores = [batch, heads, query_len, key_len];
        let lengths = |row: usize| {
            let view = View::contiguous(&self.lengths[row], [batch]).expect("one for each row");
            self.case.lengths.then_some(view)
        };
        Attention {
            query: laid_out(query, [batch, heads, query_len, head_dim], layout),
            key: laid_out(key, [batch, kv_heads, key_len, head_dim], layout),
            value: laid_out(value, [batch, kv_heads, key_len, value_dim], layout),
            score: Score {
                scale: 1.7 / (head_dim.max(1) as f64).sqrt(),
                band: self.case.band,
                query_lengths: lengths(0),
                key_lengths: lengths(1),
                mask: match self.case.mask {
                    MaskKind::Absent => Mask::Absent,
                    MaskKind::Attend => {
                        Mask::Attend(laid_out(&self.bytes, scores, layout_of_mask(layout)))
                    }
                    MaskKind::Bias => Mask::Bias(laid_out(bias, scores, layout_of_mask(layout))),
                    MaskKind::Padding => Mask::Attend(padding(&self.bytes, scores)),
                },
            },
        }
    }

    fn upstream(&self) -> (View<'_, T, 4>, View<'_, T, 3>) {
        let [batch, heads, query_len, _] = self.attention().query.shape();
        let shape = [batch, heads, query_len, self.case.value_dim];
        let lse = View::contiguous(
            &self.numbers[4][..batch * heads * query_len],
            [batch, heads, query_len],
        );
        (laid_out(&self.numbers[3], shape, self.case.layout), lse.expect("the data suffices"))
    }

    /// Both passes on `isa`, into contiguous outputs that begin as NaN.
    fn compute(&self, isa: IsaName, team: &dyn Team) -> Everything<T> {
        let attention = self.attention();
        let (output_gradient, lse_gradient) = self.upstream();
        let empty = |shape: &[usize]| vec![T::NAN; shape.iter().product()];
        let mut output = empty(&attention.output_shape());
        let mut lse = empty(&attention.lse_shape());
        let output_view = ViewMut::contiguous(&mut output, attention.output_shape());
        let lse_view = ViewMut::contiguous(&mut lse, attention.lse_shape());
        let pass =
            Forward::new(&attention, output_view.expect("fits"), lse_view.expect("fits"), team);
        T::dispatch_on(isa, pass.expect("shapes fit")).expect("available").expect("has memory");
        let operands = [attention.query, attention.key, attention.value];
        let mut gradients = operands.map(|operand| empty(&operand.shape()));
        let [query, key, value] = &mut gradients;
        let saved = Saved {
            output: View::contiguous(&output, attention.output_shape()).expect("fits"),
            lse: View::contiguous(&lse, attention.lse_shape()).expect("fits"),
        };
        let views = Gradients {
            query: Some(ViewMut::contiguous(query, operands[0].shape()).expect("fits")),
            key: Some(ViewMut::contiguous(key, operands[1].shape()).expect("fits")),
            value: Some(ViewMut::contiguous(value, operands[2].shape()).expect("fits")),
        };
        let upstream = Upstream { output: output_gradient, lse: Some(lse_gradient) };
        let pass = Backward::new(&attention, saved, upstream, views, team).expect("shapes fit");
        T::dispatch_on(isa, pass).expect("available").expect("has memory");
        let [query, key, value] = gradients;
        [output, lse, query, key, value]
    }

    fn expected(&self) -> Everything<f64> {
        let attention = self.attention();
        let (output_gradient, lse_gradient) = self.upstream();
        let reference::Results { output, lse } = reference::forward(&attention);
        let reference::Gradients { query, key, value } =
            reference::backward(&attention, output_gradient, Some(lse_gradient));
        [output, lse, query, key, value]
    }
}

/// A gap behind a mask's rows would need more numbers than the tests give it.
fn layout_of_mask(layout: Layout) -> Layout {
    if matches!(layout, Layout::Interleaved) { Layout::Contiguous } else { layout }
}

/// One row of bytes for each batch row, repeated.
fn padding(bytes: &[u8], [batch, heads, query_len, key_len]: [usize; 4]) -> View<'_, u8, 4> {
    View::contiguous(&bytes[..batch * key_len], [batch, 1, 1, key_len])
        .expect("the data suffices")
        .broadcast([batch, heads, query_len, key_len])
        .expect("dimensions of 1 grow")
}

fn check<T: Elementary>(case: Case) {
    let operands = Operands::<T>::new(case, 1);
    let expected = operands.expected();
    let precision = if size_of::<T>() == 4 { 1.2e-7 } else { 2.3e-16 };
    for isa in available() {
        let got = operands.compute(isa, &Serial);
        for (name, (got, expected)) in
            ["output", "lse", "query", "key", "value"].iter().zip(got.iter().zip(&expected))
        {
            let largest =
                expected.iter().filter(|x| x.is_finite()).fold(1.0_f64, |a, b| a.max(b.abs()));
            assert_eq!(got.len(), expected.len());
            for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                let (got, bound) = (got.to_f64(), 40.0 * precision * largest);
                let close = got == expected || (got - expected).abs() <= bound;
                assert!(close, "{isa} {name}[{i}]: {got}, not {expected}; {case:?}");
            }
        }
        let shared = operands.compute(isa, &Pool::new(3));
        let bits = |all: &Everything<T>| {
            all.iter().flatten().map(|x| x.to_f64().to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&got), bits(&shared), "{isa}: threads change results; {case:?}");
    }
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
            for lengths in [false, true] {
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
        for isa in available() {
            let [output, ..] = operands.compute(isa, &Serial);
            assert!(check(output[0]), "{isa}: {} from {extreme}", output[0]);
            assert!(output[PLAIN.value_dim..].iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn what_does_not_fit_is_told_in_the_callers_words() {
    let operands = Operands::<f32>::new(Case { batch: 2, lengths: true, ..PLAIN }, 1);
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
        Attention { score: Score { key_lengths, ..good.score }, ..good },
        &["key_lengths[1]", "7", "8"],
    );
    let mask = Mask::Bias(good.query);
    refuse(
        Attention { score: Score { mask, ..good.score }, ..good },
        &["attn_mask", "[2, 1, 5, 7]"],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_combination(
        sizes in (1_usize..3, 1_usize..3, 1_usize..3, 0_usize..90, 0_usize..200),
        dims in (0_usize..40, 0_usize..40),
        left in proptest::option::of(0_usize..100),
        right in proptest::option::of(0_usize..100),
        bottom in any::<bool>(),
        lengths in any::<bool>(),
        mask in prop_oneof![
            Just(MaskKind::Absent), Just(MaskKind::Attend), Just(MaskKind::Bias), Just(MaskKind::Padding)
        ],
        layout in prop_oneof![
            Just(Layout::Contiguous), Just(Layout::Interleaved), Just(Layout::Transposed)
        ],
    ) {
        let (batch, kv_heads, group, query_len, key_len) = sizes;
        let (head_dim, value_dim) = dims;
        let alignment = if bottom { Alignment::BottomRight } else { Alignment::TopLeft };
        let band = Band { left, right, alignment };
        check::<f32>(Case {
            batch, kv_heads, group, query_len, key_len, head_dim, value_dim, band, mask, lengths, layout,
        });
    }
}
