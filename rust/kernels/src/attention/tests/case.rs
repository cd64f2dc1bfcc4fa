//! The operands of one call, and what it gives: from the kernels and from the definition.

use fusewire_simd::{Element, Real};

use crate::attention::{
    Attention, Band, Dropout, Gradients, Mask, Pass, Saved, Score, Sequences, Upstream, backward,
    forward, mask_backward, reference, sinks_backward, slopes_backward,
};
use crate::math::Elementary;
use crate::parallel::Team;
use crate::view::{View, ViewMut};

/// Sizes and options of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Batch rows, or packed sequences.
    pub(super) batch: usize,
    pub(super) kv_heads: usize,
    pub(super) group: usize,
    pub(super) query_len: usize,
    pub(super) key_len: usize,
    pub(super) head_dim: usize,
    pub(super) value_dim: usize,
    pub(super) band: Band,
    pub(super) mask: MaskKind,
    pub(super) lengths: Lengths,
    pub(super) layout: Layout,
    pub(super) softcap: Option<f64>,
    pub(super) slopes: bool,
    pub(super) sinks: bool,
    pub(super) dropout: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MaskKind {
    Absent,
    Attend,
    Bias,
    /// Bytes that are the same for all queries and heads.
    Padding,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Lengths {
    /// All of each batch row.
    Full,
    /// The first of each batch row.
    Given,
    /// Sequences behind one another, the lengths of `Case` in all.
    Packed,
}

/// How `(batch, heads, length, dim)` lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout {
    Contiguous,
    /// `(batch, length, heads, dim)`, with a gap behind each row.
    Interleaved,
    /// `(batch, heads, dim, length)`.
    Transposed,
}

pub(super) const PLAIN: Case = Case {
    batch: 1,
    kv_heads: 1,
    group: 1,
    query_len: 5,
    key_len: 7,
    head_dim: 8,
    value_dim: 8,
    band: Band::FULL,
    mask: MaskKind::Absent,
    lengths: Lengths::Full,
    layout: Layout::Contiguous,
    softcap: None,
    slopes: false,
    sinks: false,
    dropout: None,
};

pub(super) const CAUSAL: Band = Band { right: Some(0), ..Band::FULL };

/// Numbers in [−1, 1] without a pattern.
fn numbers<E: Element>(count: usize, seed: u64) -> Vec<E> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| E::from_real(E::Real::from_f64(next()))).collect()
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
pub(super) struct Operands<E: Element> {
    case: Case,
    /// Query, key, value, gradient of the output, and the bias.
    pub(super) numbers: [Vec<E>; 5],
    /// The gradient of the logarithms, sinks and slopes.
    wide: [Vec<E::Real>; 3],
    bytes: Vec<u8>,
    lengths: [Vec<i64>; 2],
    offsets: [Vec<usize>; 2],
}

pub(super) const NAMES: [&str; 8] =
    ["output", "lse", "query", "key", "value", "mask", "slopes", "sinks"];

/// Outputs, logarithms and gradients, in the order of [`NAMES`].
pub(super) type Everything<N> = [Vec<N>; 8];

impl<E: Element<Real: Elementary>> Operands<E> {
    pub(super) fn new(case: Case, seed: u64) -> Self {
        let Case { batch, kv_heads, group, query_len, key_len, head_dim, value_dim, .. } = case;
        let heads = kv_heads * group;
        let count = |heads, length, dim| batch * heads * length * (dim + GAP);
        let mask = numbers::<f64>(batch * heads * query_len.max(1) * key_len, seed + 9);
        let length = |most: usize, row: usize| most * (row + 1) / (batch + 1);
        let offsets = |most: usize| {
            let ends = (1..batch).map(|row| length(most, row));
            if batch == 0 { vec![0] } else { [0].into_iter().chain(ends).chain([most]).collect() }
        };
        Self {
            case,
            numbers: [
                numbers(count(heads, query_len, head_dim), seed),
                numbers(count(kv_heads, key_len, head_dim), seed + 1),
                numbers(count(kv_heads, key_len, value_dim), seed + 2),
                numbers(count(heads, query_len, value_dim), seed + 3),
                numbers(batch * heads * query_len * key_len.max(1), seed + 4),
            ],
            wide: [
                numbers(batch * heads * query_len, seed + 4),
                numbers(batch * heads, seed + 5),
                // Small, or the rounding of scores as large as distances would be all that is seen.
                numbers(batch * heads, seed + 6)
                    .iter()
                    .map(|&x: &E::Real| x * E::Real::from_f64(0.05))
                    .collect(),
            ],
            bytes: mask.iter().map(|&x| u8::from(x > -0.4) * 2).collect(),
            lengths: [
                (0..batch).map(|row| length(query_len, row) as i64).collect(),
                (0..batch).rev().map(|row| length(key_len, row) as i64).collect(),
            ],
            offsets: [offsets(query_len), offsets(key_len)],
        }
    }

    fn sequences(&self) -> Sequences<'_> {
        let lengths = |lengths| Some(View::contiguous(lengths, [self.case.batch]).expect("fits"));
        match self.case.lengths {
            Lengths::Full => Sequences::FULL,
            Lengths::Given => Sequences::Padded {
                query_lengths: lengths(&self.lengths[0]),
                key_lengths: lengths(&self.lengths[1]),
            },
            Lengths::Packed => {
                Sequences::Packed { query_offsets: &self.offsets[0], key_offsets: &self.offsets[1] }
            }
        }
    }

    pub(super) fn attention(&self) -> Attention<'_, E> {
        let Case { kv_heads, group, query_len, key_len, head_dim, value_dim, .. } = self.case;
        let (heads, layout) = (kv_heads * group, self.case.layout);
        let batch = if matches!(self.case.lengths, Lengths::Packed) { 1 } else { self.case.batch };
        let [query, key, value, _, bias] = &self.numbers;
        let [_, sinks, slopes] = &self.wide;
        let [sinks, slopes] = [sinks, slopes]
            .map(|numbers| View::contiguous(numbers, [self.case.batch, heads]).expect("fits"));
        let attention = Attention {
            query: laid_out(query, [batch, heads, query_len, head_dim], layout),
            key: laid_out(key, [batch, kv_heads, key_len, head_dim], layout),
            value: laid_out(value, [batch, kv_heads, key_len, value_dim], layout),
            sequences: self.sequences(),
            score: Score {
                scale: 1.7 / (head_dim.max(1) as f64).sqrt(),
                softcap: self.case.softcap,
                band: self.case.band,
                slopes: self.case.slopes.then_some(slopes),
                mask: Mask::Absent,
            },
            sinks: self.case.sinks.then_some(sinks),
            dropout: self.case.dropout.map(|probability| Dropout { probability, seed: 7 }),
        };
        let shape = attention.score_shape();
        let mask = match self.case.mask {
            MaskKind::Absent => Mask::Absent,
            MaskKind::Attend => Mask::Attend(laid_out(&self.bytes, shape, layout_of_mask(layout))),
            MaskKind::Bias => Mask::Bias(laid_out(bias, shape, layout_of_mask(layout))),
            MaskKind::Padding => Mask::Attend(padding(&self.bytes, shape)),
        };
        Attention { score: Score { mask, ..attention.score }, ..attention }
    }

    fn upstream(&self) -> Upstream<'_, E> {
        let attention = self.attention();
        let shape = attention.lse_shape();
        let lse = &self.wide[0][..shape.iter().product()];
        Upstream {
            output: laid_out(&self.numbers[3], attention.output_shape(), self.case.layout),
            lse: Some(View::contiguous(lse, shape).expect("the data suffices")),
        }
    }

    /// All passes, into contiguous outputs that begin as NaN; the gradients of what is added
    /// to scores are computed on the selected instruction set.
    pub(super) fn compute(&self, team: &dyn Team) -> Everything<f64> {
        let attention = self.attention();
        let empty = |shape: &[usize]| vec![E::Real::NAN; shape.iter().product()];
        let narrow = |shape: &[usize]| vec![E::from_real(E::Real::NAN); shape.iter().product()];
        let mut output = narrow(&attention.output_shape());
        let mut lse = empty(&attention.lse_shape());
        let output_view = ViewMut::contiguous(&mut output, attention.output_shape());
        let lse_view = ViewMut::contiguous(&mut lse, attention.lse_shape());
        forward(&attention, output_view.expect("fits"), lse_view.expect("fits"), team)
            .expect("shapes fit");
        let operands = [attention.query, attention.key, attention.value];
        let mut gradients = operands.map(|operand| narrow(&operand.shape()));
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
        let pass = Pass { attention: &attention, saved, upstream: self.upstream() };
        backward(&pass, views, team).expect("shapes fit");

        let scores = attention.score_shape();
        let shape =
            if matches!(self.case.mask, MaskKind::Padding) { [1, 1, 1, scores[3]] } else { scores };
        let mut mask = empty(&shape);
        let view = ViewMut::contiguous(&mut mask, shape).expect("fits");
        mask_backward(&pass, view, team).expect("shapes fit");
        let per_head = [scores[0], scores[1]];
        let (mut slopes, mut sinks) = (empty(&per_head), empty(&per_head));
        let view = ViewMut::contiguous(&mut slopes, per_head).expect("fits");
        slopes_backward(&pass, view, team).expect("shapes fit");
        let view = ViewMut::contiguous(&mut sinks, per_head).expect("fits");
        sinks_backward(&pass, view, team).expect("shapes fit");
        let [query, key, value] = gradients;
        let wide = |numbers: Vec<E::Real>| numbers.iter().map(|x| x.to_f64()).collect();
        let [output, query, key, value] = [output, query, key, value]
            .map(|numbers| numbers.iter().map(|x| x.to_real().to_f64()).collect());
        [output, wide(lse), query, key, value, wide(mask), wide(slopes), wide(sinks)]
    }

    pub(super) fn expected(&self) -> Everything<f64> {
        let attention = self.attention();
        let Upstream { output, lse } = self.upstream();
        let results = reference::forward(&attention);
        let gradients = reference::backward(&attention, output, lse);
        let reference::Gradients { query, key, value, mut mask, slopes, sinks } = gradients;
        if matches!(self.case.mask, MaskKind::Padding) {
            let key_len = attention.score_shape()[3];
            let summed = |key| mask.iter().skip(key).step_by(key_len).sum();
            mask = (0..key_len).map(summed).collect();
        }
        [results.output, results.lse, query, key, value, mask, slopes, sinks]
    }
}

/// A gap behind a mask's rows would need more numbers than the tests give it.
fn layout_of_mask(layout: Layout) -> Layout {
    if matches!(layout, Layout::Interleaved) { Layout::Contiguous } else { layout }
}

/// One row of bytes for each sequence, repeated.
fn padding(bytes: &[u8], [batch, heads, query_len, key_len]: [usize; 4]) -> View<'_, u8, 4> {
    View::contiguous(&bytes[..batch * key_len], [batch, 1, 1, key_len])
        .expect("the data suffices")
        .broadcast([batch, heads, query_len, key_len])
        .expect("dimensions of 1 grow")
}
