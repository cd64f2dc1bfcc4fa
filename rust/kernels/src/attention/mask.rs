//! Masks, as tiles that a product accumulates on; tiles that hide everything or nothing are not made.

use fusewire_simd::{Element, Lanes, Real, Storage};

use super::reach::Segment;
use super::tile::{Ground, KEYS, PAIR, Place, Tile};
use crate::Result;
use crate::gemm::{Scales, copy_rows, copy_transposed, singles};
use crate::view::View;

/// What is added to scores, `(sequences, heads, query_len, key_len)`; strides may be 0.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a, E> {
    /// Nothing.
    Absent,
    /// 0 where the byte is not 0, −∞ elsewhere.
    Attend(View<'a, u8, 4>),
    /// The number.
    Bias(View<'a, E, 4>),
}

/// The part of a mask that a block of queries and a segment of keys meet in.
#[inline(always)]
fn part<'a, M>(view: View<'a, M, 4>, place: &Place, segment: &Segment) -> View<'a, M, 2> {
    let head = view.inner([place.sequence, place.head]);
    head.slice(0, place.queries.clone()).slice(1, segment.keys.clone())
}

impl<'a, E: Element> Mask<'a, E> {
    /// The same as [`Element::Single`].
    pub(super) fn single(self) -> Mask<'a, E::Single> {
        match self {
            Self::Absent => Mask::Absent,
            Self::Attend(view) => Mask::Attend(view),
            Self::Bias(view) => Mask::Bias(singles(view)),
        }
    }

    /// The shape, if there is a mask.
    pub(super) fn shape(&self) -> Option<[usize; 4]> {
        match self {
            Self::Absent => None,
            Self::Attend(view) => Some(view.shape()),
            Self::Bias(view) => Some(view.shape()),
        }
    }

    /// Numbers that [`Mask::write`] needs behind a tile of `rows · width`.
    pub(super) fn staging(&self, rows: usize, width: usize) -> usize {
        if matches!(self, Self::Attend(_)) { rows * width } else { 0 }
    }

    /// The segment without the keys at its ends that no query of the block attends to, `None` where
    /// it attends to none; not `masked` where it attends to all that are left.
    #[inline(always)]
    pub(super) fn narrow(&self, place: &Place, segment: Segment) -> Option<Segment> {
        let view = match self {
            Self::Absent => return Some(Segment { masked: false, ..segment }),
            Self::Attend(view) => part(*view, place, &segment),
            Self::Bias(_) => return Some(segment),
        };
        let [queries, keys] = view.shape();
        // For each key, whether some query attends to it, and whether all do.
        let (mut some, mut all) = ([0_u8; KEYS], [1_u8; KEYS]);
        for query in 0..if view.strides()[0] == 0 { 1 } else { queries } {
            if view.has_unit_columns() {
                let flags = some.iter_mut().zip(&mut all);
                for ((some, all), &byte) in flags.zip(view.row(query)) {
                    *some |= u8::from(byte != 0);
                    *all &= u8::from(byte != 0);
                }
            } else {
                for key in 0..keys {
                    some[key] |= u8::from(view.get([query, key]) != 0);
                    all[key] &= u8::from(view.get([query, key]) != 0);
                }
            }
        }
        let first = some[..keys].iter().position(|&flag| flag != 0)?;
        let end = keys - some[..keys].iter().rev().take_while(|&&flag| flag == 0).count();
        // Whole pairs, as segments are made of.
        let (first, end) = (first / PAIR * PAIR, end.next_multiple_of(PAIR).min(keys));
        let start = segment.keys.start;
        let masked = all[first..end].contains(&0);
        Some(Segment { keys: start + first..start + end, masked, ..segment })
    }

    /// Writes what scores begin as.
    #[inline(always)]
    pub(super) fn write<I: Storage<E>>(
        &self,
        isa: I,
        place: &Place,
        segment: &Segment,
        tile: &mut Tile<'_, E::Real>,
        staging: &mut [E::Real],
    ) -> Result<Ground> {
        match self {
            Self::Absent => Ok(Ground::Clear),
            Self::Attend(view) => spread(isa, part(*view, place, segment), tile, staging),
            Self::Bias(view) => raise(isa, part(*view, place, segment), tile),
        }
    }
}

/// Writes 0 or −∞ for the bytes of a mask, `(queries, keys)`, to a tile, `(keys, queries)`.
#[inline(always)]
fn spread<T: Real, I: Lanes<T>>(
    isa: I,
    mask: View<'_, u8, 2>,
    tile: &mut Tile<'_, T>,
    staging: &mut [T],
) -> Result<Ground> {
    let [queries, keys] = mask.shape();
    let number = |byte: u8| if byte == 0 { T::NEG_INFINITY } else { T::ZERO };
    if mask.strides()[0] == 0 {
        for key in 0..keys {
            tile.row_mut(key).fill(number(mask.get([0, key])));
        }
        return Ok(Ground::Written);
    }
    let staging = &mut staging[..queries * keys];
    for (query, row) in staging.chunks_exact_mut(keys).enumerate() {
        if mask.has_unit_columns() {
            for (to, &byte) in row.iter_mut().zip(mask.row(query)) {
                *to = number(byte);
            }
        } else {
            for (key, to) in row.iter_mut().enumerate() {
                *to = number(mask.get([query, key]));
            }
        }
    }
    let staged = View::contiguous(staging, [queries, keys])?.transpose();
    copy_rows(isa, staged, tile.view_mut(0..keys, 0..queries)?);
    clear_behind(tile, queries);
    Ok(Ground::Written)
}

/// Writes the numbers of a mask, `(queries, keys)`, to a tile, `(keys, queries)`.
#[inline(always)]
fn raise<E: Element, I: Storage<E>>(
    isa: I,
    mask: View<'_, E, 2>,
    tile: &mut Tile<'_, E::Real>,
) -> Result<Ground> {
    let [queries, keys] = mask.shape();
    if mask.strides()[0] == 0 {
        for key in 0..keys {
            tile.row_mut(key).fill(mask.get([0, key]).to_real());
        }
    } else {
        copy_transposed::<E, E::Real, I>(
            isa,
            mask,
            Scales::Absent,
            tile.view_mut(0..keys, 0..queries)?,
        );
        clear_behind(tile, queries);
    }
    let hidden = E::Real::NEG_INFINITY;
    let mut highest = isa.splat(hidden);
    for part in tile.rows(0..keys).chunks_exact(I::LANES) {
        highest = isa.max(highest, isa.load(part));
    }
    let all_hidden = || tile.rows(0..keys).iter().all(|&number| number == hidden);
    let visible = isa.any(isa.less(isa.splat(hidden), highest));
    Ok(if visible || !all_hidden() { Ground::Written } else { Ground::Hidden })
}

/// Lanes without a query attend to nothing.
#[inline(always)]
fn clear_behind<T: Real>(tile: &mut Tile<'_, T>, queries: usize) {
    if queries < tile.width() {
        (0..tile.height()).for_each(|row| tile.row_mut(row)[queries..].fill(T::NEG_INFINITY));
    }
}
