//! What is added to scores, as tiles that a product accumulates on.

use std::ops::Range;

use fusewire_simd::{Lanes, Real};

use super::score::{Reach, Segment};
use super::tile::{Group, Tile};
use crate::Result;
use crate::gemm::copy_rows;
use crate::view::View;

/// What is added to scaled products, `(batch, heads, query_len, key_len)`; strides may be 0.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a, T: Real> {
    /// Nothing.
    Absent,
    /// 0 where the byte is not 0, −∞ elsewhere.
    Attend(View<'a, u8, 4>),
    /// The number.
    Bias(View<'a, T, 4>),
}

/// What a tile of scores begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    /// No query of the block attends to any of the keys: there is nothing to do.
    Hidden,
    /// 0 everywhere; the tile was not written.
    Clear,
    /// What was written to the tile.
    Written,
}

/// Where a tile of scores lies.
pub(super) struct Place {
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) queries: Range<usize>,
}

impl Place {
    /// The block's rows of queries, or of what has their shape.
    #[inline(always)]
    pub(super) fn of_queries<'a, T>(&self, of_heads: &View<'a, T, 4>) -> View<'a, T, 2> {
        of_heads.inner([self.batch, self.head]).slice(0, self.queries.clone())
    }

    /// The batch row and the head of keys and values that a group of so many heads shares.
    pub(super) fn kv_head(&self, group: usize) -> [usize; 2] {
        [self.batch, self.head / group]
    }
}

impl<T: Real> Mask<'_, T> {
    /// The shape, if there is a mask.
    pub(super) fn shape(&self) -> Option<[usize; 4]> {
        match self {
            Self::Absent => None,
            Self::Attend(view) => Some(view.shape()),
            Self::Bias(view) => Some(view.shape()),
        }
    }

    /// Numbers that [`Mask::ground`] needs behind a tile of `rows · width`.
    pub(super) fn staging(&self, rows: usize, width: usize) -> usize {
        if matches!(self, Self::Absent) { 0 } else { rows * width }
    }

    /// Writes what the scores of `segment` begin as, where that is not 0; reach is left to [`hide`].
    #[inline(always)]
    pub(super) fn ground<I: Lanes<T>>(
        &self,
        isa: I,
        place: &Place,
        segment: &Segment,
        tile: &mut Tile<'_, T>,
        staging: &mut [T],
    ) -> Result<Ground> {
        let Place { batch, head, queries } = place;
        match self {
            Self::Absent => Ok(Ground::Clear),
            Self::Attend(view) => {
                let view = view.inner([*batch, *head]);
                let view = view.slice(0, queries.clone()).slice(1, segment.keys.clone());
                let number = |byte: u8| if byte == 0 { T::NEG_INFINITY } else { T::ZERO };
                spread(isa, view, number, tile, staging)
            }
            Self::Bias(view) => {
                let view = view.inner([*batch, *head]);
                let view = view.slice(0, queries.clone()).slice(1, segment.keys.clone());
                spread(isa, view, |bias: T| bias, tile, staging)
            }
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

/// Writes `number` of a mask, `(queries, keys)`, to a tile, `(keys, queries)`.
#[inline(always)]
fn spread<T: Real, M: Copy, I: Lanes<T>>(
    isa: I,
    mask: View<'_, M, 2>,
    number: impl Fn(M) -> T,
    tile: &mut Tile<'_, T>,
    staging: &mut [T],
) -> Result<Ground> {
    let [queries, keys] = mask.shape();
    let (mut visible, mut written) = (false, false);
    let mut look = |number: T| {
        visible |= number != T::NEG_INFINITY;
        written |= number != T::ZERO;
        number
    };
    if mask.strides()[0] == 0 {
        for key in 0..keys {
            tile.row_mut(key).fill(look(number(mask.get([0, key]))));
        }
    } else {
        let staging = &mut staging[..queries * keys];
        for (query, row) in staging.chunks_exact_mut(keys).enumerate() {
            if mask.has_unit_columns() {
                for (to, &from) in row.iter_mut().zip(mask.row(query)) {
                    *to = look(number(from));
                }
            } else {
                for (key, to) in row.iter_mut().enumerate() {
                    *to = look(number(mask.get([query, key])));
                }
            }
        }
        let staged = View::contiguous(staging, [queries, keys])?.transpose();
        copy_rows(isa, staged, tile.view_mut(0..keys, 0..queries)?);
        // Lanes without a query see nothing that could overflow.
        for key in 0..keys {
            tile.row_mut(key)[queries..].fill(T::ZERO);
        }
    }
    Ok(match (visible, written) {
        (false, _) => Ground::Hidden,
        (true, false) => Ground::Clear,
        (true, true) => Ground::Written,
    })
}
