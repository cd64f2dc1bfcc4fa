//! Operands as the factors of products: as they lie, or as copies that several products share.

use fusewire_simd::{Element, Factor, Kernel, Storage};

use super::decode::MOST_QUERIES;
use super::reach::Reach;
use crate::Result;
use crate::gemm::{copy_columns, copy_rows, factors};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// The factors of an operand's rows.
pub(super) enum Operand<'a, E: Element> {
    /// As they lie.
    Lying(View<'a, E::Factor, 2>),
    /// In a copy.
    Copied(Copied<E>),
}

/// Rows of factors, from each to the next `stride` of them.
pub(super) struct Copied<E: Element> {
    factors: Scratch<E::Factor>,
    shape: [usize; 2],
    stride: usize,
    /// Whether what is wanted are its columns.
    turned: bool,
}

/// Factors behind the rows of a left operand that is copied along its depth: its rows must not be
/// multiples of 4 KB apart, because many of them are read at once.
const APART: usize = 16;

impl<'a, E: Element> Operand<'a, E> {
    /// Factors of neighbours in a row, `(rows, ⌈columns / DEPTH⌉)`.
    #[inline(always)]
    pub(super) fn along_columns<I: Storage<E>>(isa: I, source: View<'a, E, 2>) -> Result<Self> {
        factors(source)
            .map_or_else(|| Self::copy(isa, source, true), |lying| Ok(Self::Lying(lying)))
    }

    /// Factors of neighbours in a column, `(⌈rows / DEPTH⌉, columns)`.
    #[inline(always)]
    fn along_rows<I: Storage<E>>(isa: I, source: View<'a, E, 2>) -> Result<Self> {
        match factors(source) {
            Some(lying) if E::Factor::DEPTH == 1 => Ok(Self::Lying(lying)),
            _ => Self::copy(isa, source, false),
        }
    }

    /// The same, `(columns, ⌈rows / DEPTH⌉)`, as a left operand wants it: where factors hold several
    /// numbers, those of a column side by side.
    #[inline(always)]
    pub(super) fn across<I: Storage<E>>(isa: I, source: View<'a, E, 2>) -> Result<Self> {
        if E::Factor::DEPTH > 1 {
            return Self::copy(isa, source.transpose(), true);
        }
        Ok(match Self::along_rows(isa, source)? {
            Self::Lying(view) => Self::Lying(view.transpose()),
            Self::Copied(copied) => Self::Copied(Copied { turned: true, ..copied }),
        })
    }

    /// The same with contiguous rows, which are not so spaced that they would all fall into the same
    /// few sets of the first-level cache.
    #[inline(always)]
    pub(super) fn in_lines<I: Storage<E>>(isa: I, source: View<'a, E, 2>) -> Result<Self> {
        let bytes = source.strides()[0].unsigned_abs() * size_of::<E>();
        let spread = !bytes.is_multiple_of(4096) || bytes == 0;
        if source.has_unit_columns() && spread {
            Self::along_rows(isa, source)
        } else {
            Self::copy(isa, source, false)
        }
    }

    #[inline(always)]
    fn copy<I: Storage<E>>(isa: I, source: View<'a, E, 2>, along_columns: bool) -> Result<Self> {
        let mut shape = source.shape();
        let depth = &mut shape[usize::from(along_columns)];
        *depth = depth.div_ceil(E::Factor::DEPTH);
        let [rows, columns] = shape;
        let stride = if along_columns { columns.next_multiple_of(APART) + APART } else { columns };
        let mut factors = Scratch::take(rows * stride)?;
        let target = ViewMut::contiguous(&mut factors, [rows, stride])?.slice(1, 0..columns);
        isa.vectorize(Copy { source, target, along_columns });
        Ok(Self::Copied(Copied { factors, shape, stride, turned: false }))
    }

    /// The factors.
    #[inline(always)]
    pub(super) fn view(&self) -> Result<View<'_, E::Factor, 2>> {
        match self {
            Self::Lying(view) => Ok(*view),
            Self::Copied(Copied { factors, shape: [rows, columns], stride, turned }) => {
                let view = View::contiguous(factors, [*rows, *stride])?.slice(1, 0..*columns);
                Ok(if *turned { view.transpose() } else { view })
            }
        }
    }
}

/// A copy as a function of its own, because several kernels make some.
struct Copy<'a, E: Element> {
    source: View<'a, E, 2>,
    target: ViewMut<'a, E::Factor, 2>,
    along_columns: bool,
}

impl<E: Element> Kernel<E> for Copy<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        if self.along_columns {
            copy_columns(isa, self.source, self.target);
        } else {
            copy_rows(isa, self.source, self.target);
        }
    }
}

/// A block of queries, or what is shaped like it, as columns that fill vectors: factors `(⌈depth /
/// DEPTH⌉, width)`, zeros behind the last row of `source`.
#[inline(always)]
pub(super) fn pack_columns<E: Element, I: Storage<E>>(
    isa: I,
    source: View<'_, E, 2>,
    width: usize,
) -> Result<Operand<'static, E>> {
    let [rows, depth] = source.shape();
    let shape = [depth.div_ceil(E::Factor::DEPTH), width];
    let mut factors = Scratch::take(shape[0] * shape[1])?;
    let mut target = ViewMut::contiguous(&mut factors, shape)?;
    for row in 0..if rows < width { shape[0] } else { 0 } {
        target.row_mut(row)[rows..].fill(E::Factor::default());
    }
    let (source, target) = (source.transpose(), target.slice(1, 0..rows));
    isa.vectorize(Copy { source, target, along_columns: false });
    Ok(Operand::Copied(Copied { factors, shape, stride: width, turned: false }))
}

/// Keys up to which the rounding of a number is much of the error of what it is summed to.
const FEW_KEYS: usize = 256;

/// Terms of the sums that scores are, of `depth`, that are added one after the other: rounding of a long
/// chain would be much of the error, the more so the fewer keys there are for errors to average over.
/// Sums of what was rounded to 16 bits are precise enough as they are.
#[inline(always)]
pub(super) fn chain<E: Element>(depth: usize, reach: &Reach) -> usize {
    match reach.keys {
        _ if !E::IS_REAL => depth,
        _ if reach.queries <= MOST_QUERIES => 8,
        0..=32 => 8,
        33..=FEW_KEYS if depth <= 32 => 8,
        33..=FEW_KEYS => 16,
        _ => 32,
    }
}

/// The same for the sums that gradients are.
#[inline(always)]
pub(super) fn gradient_chain<E: Element>(reach: &Reach) -> usize {
    let few = reach.keys <= FEW_KEYS || reach.queries <= MOST_QUERIES;
    if E::IS_REAL && few { 16 } else { usize::MAX }
}

/// The factors that hold numbers of a depth.
#[inline(always)]
pub(super) fn deep<E: Element>(numbers: std::ops::Range<usize>) -> std::ops::Range<usize> {
    numbers.start / E::Factor::DEPTH..numbers.end.div_ceil(E::Factor::DEPTH)
}
