//! The operands of attention as both doors hand them over, and how they lie in memory.

use fusewire_kernels::attention::{
    Alignment, Attention, Band, Dropout, Mask, Score, Sequences, offsets,
};
use fusewire_kernels::view::{View, ViewMut};

use crate::array::{Array, Dtype, Element, Stored};
use crate::gate::{Failure, Result};

/// Query, key, value, mask, ALiBi's slopes, sinks, the lengths or offsets of queries and of keys, and
/// the seed of dropout.
pub(super) type Given<A> =
    (A, A, A, Option<A>, Option<A>, Option<A>, Option<A>, Option<A>, Option<A>);

/// Scale, softcap (0 for none), probability of dropout, left and right bound of the window (below 0
/// for none), whether the diagonal ends at the bottom right, and whether sequences are packed.
pub(super) type Options = (f64, f64, f64, i64, i64, bool, bool);

/// The operands, still untyped.
pub(super) struct Operands<A> {
    pub(super) query: A,
    key: A,
    value: A,
    attn_mask: Option<A>,
    alibi_slopes: Option<A>,
    sinks: Option<A>,
    query_lengths: Option<A>,
    key_lengths: Option<A>,
    seed: Option<A>,
    options: Options,
}

/// How sequences lie in the arrays.
pub(super) enum Layout {
    /// `(batch, heads, length, dim)`.
    Padded,
    /// `(length, heads, dim)`, and where sequences of queries and of keys begin.
    Packed([Vec<usize>; 2]),
}

impl Layout {
    /// The layout of the operands.
    pub(super) fn of<A: Array>(operands: &Operands<A>) -> Result<Self> {
        let (.., packed) = operands.options;
        if !packed {
            return Ok(Self::Padded);
        }
        let checked = |numbers: &Option<A>, operand: &A, [name, of]: [&str; 2]| {
            let Some(numbers) = numbers else {
                return Err(Failure::Value(format!("{name} must be given")));
            };
            let total = operand.layout(of)?.shape[0];
            Ok(offsets(name, numbers.view(name)?, total)?)
        };
        Ok(Self::Packed([
            checked(&operands.query_lengths, &operands.query, ["query_offsets", "query"])?,
            checked(&operands.key_lengths, &operands.key, ["key_offsets", "key"])?,
        ]))
    }

    /// An operand as `(batch, heads, length, dim)`.
    pub(super) fn view<'a, T: Element, A: Array>(
        &self,
        array: &'a A,
        name: &str,
    ) -> Result<View<'a, T, 4>> {
        match self {
            Self::Padded => array.view(name),
            Self::Packed(_) => Ok(array.view::<T, 3>(name)?.permute([1, 0, 2]).alone()),
        }
    }

    /// A result as `(batch, heads, length, dim)`.
    pub(super) fn view_mut<'a, T: Stored, A: Array>(
        &self,
        array: &'a mut A,
        name: &str,
    ) -> Result<ViewMut<'a, T, 4>> {
        match self {
            Self::Padded => array.view_mut(name),
            Self::Packed(_) => Ok(array.view_mut::<T, 3>(name)?.permute([1, 0, 2]).alone()),
        }
    }

    /// Logarithms as `(batch, heads, length)`.
    pub(super) fn lse<'a, T: Element, A: Array>(
        &self,
        array: &'a A,
        name: &str,
    ) -> Result<View<'a, T, 3>> {
        match self {
            Self::Padded => array.view(name),
            Self::Packed(_) => Ok(array.view::<T, 2>(name)?.alone()),
        }
    }

    /// New logarithms as `(batch, heads, length)`.
    pub(super) fn lse_mut<'a, T: Stored, A: Array>(
        &self,
        array: &'a mut A,
    ) -> Result<ViewMut<'a, T, 3>> {
        match self {
            Self::Padded => array.view_mut("lse"),
            Self::Packed(_) => Ok(array.view_mut::<T, 2>("lse")?.alone()),
        }
    }

    /// A new array for numbers shaped `(batch, heads, length, dim)`.
    pub(super) fn empty<T: Stored, A: Array>(&self, shape: [usize; 4]) -> Result<A> {
        match (self, shape) {
            (Self::Padded, shape) => A::empty::<T>(&shape),
            (Self::Packed(_), [_, heads, length, dim]) => A::empty::<T>(&[length, heads, dim]),
        }
    }

    /// A new array for logarithms shaped `(batch, heads, length)`.
    pub(super) fn empty_lse<T: Stored, A: Array>(&self, shape: [usize; 3]) -> Result<A> {
        match self {
            Self::Padded => A::empty::<T>(&shape),
            Self::Packed(_) => A::empty::<T>(&shape[1..]),
        }
    }
}

impl<A: Array> Operands<A> {
    pub(super) fn new(given: Given<A>, options: Options) -> Self {
        let (query, key, value, attn_mask, alibi_slopes, sinks, query_lengths, key_lengths, seed) =
            given;
        Self {
            query,
            key,
            value,
            attn_mask,
            alibi_slopes,
            sinks,
            query_lengths,
            key_lengths,
            seed,
            options,
        }
    }

    /// The operands of the kernel; what is broadcastable is broadcast.
    pub(super) fn attention<'a, T: Stored<Real: Stored>>(
        &'a self,
        layout: &'a Layout,
    ) -> Result<Attention<'a, T>> {
        let (scale, softcap, _, left, right, bottom_right, _) = self.options;
        let mut attention = Attention {
            query: layout.view(&self.query, "query")?,
            key: layout.view(&self.key, "key")?,
            value: layout.view(&self.value, "value")?,
            sequences: match layout {
                Layout::Padded => Sequences::Padded {
                    query_lengths: optional(self.query_lengths.as_ref(), "query_lengths")?,
                    key_lengths: optional(self.key_lengths.as_ref(), "key_lengths")?,
                },
                Layout::Packed([query_offsets, key_offsets]) => {
                    Sequences::Packed { query_offsets, key_offsets }
                }
            },
            score: Score {
                scale,
                softcap: (softcap != 0.0).then_some(softcap),
                band: band(left, right, bottom_right),
                slopes: None,
                mask: Mask::Absent,
            },
            sinks: None,
            dropout: self.dropout()?,
        };
        let shape @ [sequences, heads, ..] = attention.score_shape();
        let per_head = |numbers: &'a Option<A>, name| {
            let numbers = optional::<T::Real, A, 2>(numbers.as_ref(), name)?;
            numbers.map(|view| broadcast(view, [sequences, heads], name)).transpose()
        };
        attention.score.slopes = per_head(&self.alibi_slopes, "alibi_slopes")?;
        attention.sinks = per_head(&self.sinks, "sinks")?;
        attention.score.mask = self.mask(shape)?;
        Ok(attention)
    }

    fn dropout(&self) -> Result<Option<Dropout>> {
        let (_, _, probability, ..) = self.options;
        if probability == 0.0 {
            return Ok(None);
        }
        let Some(seed) = &self.seed else {
            return Err(Failure::Value("seed must be given for dropout".into()));
        };
        let seed: View<'_, i64, 0> = seed.view("seed")?;
        Ok(Some(Dropout { probability, seed: seed.get([]).cast_unsigned() }))
    }

    fn mask<T: Stored>(&self, shape: [usize; 4]) -> Result<Mask<'_, T>> {
        let (Some(mask), name) = (&self.attn_mask, "attn_mask") else { return Ok(Mask::Absent) };
        match mask.layout(name)?.dtype {
            Dtype::Bool => Ok(Mask::Attend(broadcast(mask.view(name)?, shape, name)?)),
            Dtype::Float(float) if float == T::FLOAT => {
                Ok(Mask::Bias(broadcast(mask.view(name)?, shape, name)?))
            }
            other => Err(Failure::Type(format!(
                "attn_mask must be bool or {}, but is {}",
                Dtype::Float(T::FLOAT).name(),
                other.name()
            ))),
        }
    }

    /// The shape of the mask's gradient: that of the mask, or with one row for all queries of a head
    /// where the mask has one row for all queries, because heads are summed side by side.
    pub(super) fn mask_gradient_shape(&self, scores: [usize; 4]) -> Result<[usize; 4]> {
        let Some(mask) = &self.attn_mask else {
            return Err(Failure::Value("attn_mask must be given".into()));
        };
        let shape = mask.layout("attn_mask")?.shape;
        Ok(match shape[2] {
            1 => [scores[0], scores[1], 1, shape[3]],
            _ => [shape[0], shape[1], shape[2], shape[3]],
        })
    }
}

/// How far queries see; bounds below 0 are none.
pub(super) fn band(left: i64, right: i64, bottom_right: bool) -> Band {
    Band {
        left: usize::try_from(left).ok(),
        right: usize::try_from(right).ok(),
        alignment: if bottom_right { Alignment::BottomRight } else { Alignment::TopLeft },
    }
}

pub(super) fn optional<'a, T: Element, A: Array, const N: usize>(
    array: Option<&'a A>,
    name: &str,
) -> Result<Option<View<'a, T, N>>> {
    array.map(|array| array.view(name)).transpose()
}

pub(super) fn broadcast<'a, T, const N: usize>(
    view: View<'a, T, N>,
    shape: [usize; N],
    name: &str,
) -> Result<View<'a, T, N>> {
    let got = view.shape();
    view.broadcast(shape).map_err(|_| {
        Failure::Value(format!("{name} must be broadcastable to {shape:?}, but has shape {got:?}"))
    })
}
