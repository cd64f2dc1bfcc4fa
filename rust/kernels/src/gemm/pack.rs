//! Copies that bring an operand into the layout that a block wants, as factors of its products.
#![allow(unsafe_code)]

use std::any::TypeId;

use fusewire_simd::{Element, Factor, Storage};

use crate::view::{View, ViewMut};

/// Rows are far apart, so the CPU's own prefetcher starts anew on each: ask for them this early.
const ROWS_AHEAD: usize = 8;
/// Numbers of the widest vector: sides of the tile that a transposition goes through.
const WIDEST: usize = 16;
/// Rows that are transposed number by number, for which a tile is not worth it.
const NARROW: usize = 2;
/// The most rows that one row of factors holds.
pub(crate) const DEEPEST: usize = 2;

/// The factors of `source`, `(rows, depth)`, where they can be read as they lie; otherwise `None`.
pub fn factors<E: Element>(source: View<'_, E, 2>) -> Option<View<'_, E::Factor, 2>> {
    let depth = E::Factor::DEPTH;
    let ([rows, columns], [row, column]) = (source.shape(), source.strides());
    let lies = E::as_factors(&[]).is_some()
        && (depth == 1
            || columns % depth == 0 && source.has_unit_columns() && row % depth as isize == 0);
    let strides = [row / depth as isize, if depth == 1 { column } else { 1 }];
    // SAFETY: `as_factors` says that `depth` neighbours are a factor, and every row is made of
    // those, as far apart as before.
    lies.then(|| unsafe {
        View::from_raw_parts(source.as_ptr().cast(), [rows, columns / depth], strides)
    })
}

/// The numbers of `c` as sums, where it is stored as what sums are; otherwise `None`.
pub(super) fn sums_in_place<E: Element>(
    mut c: ViewMut<'_, E, 2>,
) -> Option<ViewMut<'_, E::Real, 2>> {
    let (shape, strides) = (c.shape(), c.strides());
    // SAFETY: the two are one type, and the view is handed on.
    (TypeId::of::<E>() == TypeId::of::<E::Real>())
        .then(|| unsafe { ViewMut::from_raw_parts(c.as_mut_ptr().cast(), shape, strides) })
}

/// Copies `source`, `(depth, columns)`, into `target`, whose rows are contiguous: rows of factors,
/// each of `DEPTH` rows of `source`, the last filled up with zeros. Of plain numbers it is a copy.
///
/// A source whose columns are contiguous is transposed in registers on the way.
///
/// # Panics
/// If the shapes do not fit together, or rows of `target` are not contiguous.
#[inline(always)]
pub fn copy_rows<E: Element, I: Storage<E>>(
    isa: I,
    source: View<'_, E, 2>,
    mut target: ViewMut<'_, E::Factor, 2>,
) {
    let [depth, columns] = source.shape();
    assert_eq!([depth.div_ceil(E::Factor::DEPTH), columns], target.shape());
    if source.has_unit_columns() {
        join_rows(isa, source, target);
    } else if source.strides()[0] == 1 {
        transpose_tiles(isa, source.transpose(), target);
    } else {
        for row in 0..target.rows() {
            let to = target.row_mut(row);
            for (column, to) in to.iter_mut().enumerate() {
                *to = factor(source.transpose(), column, row);
            }
        }
    }
}

/// Copies `source`, `(rows, depth)`, best with contiguous rows or columns, into `target`, `(rows, ⌈depth /
/// DEPTH⌉)`, whose rows are contiguous: factors of neighbours, the last filled up with zeros.
///
/// # Panics
/// If the shapes do not fit together, or rows of `target` are not contiguous.
#[inline(always)]
pub fn copy_columns<E: Element, I: Storage<E>>(
    isa: I,
    source: View<'_, E, 2>,
    mut target: ViewMut<'_, E::Factor, 2>,
) {
    let [rows, depth] = source.shape();
    assert_eq!([rows, depth.div_ceil(E::Factor::DEPTH)], target.shape());
    if source.strides()[0] == 1 && !source.has_unit_columns() {
        return turn_tiles(isa, source.transpose(), target);
    }
    for row in 0..rows {
        let to = target.row_mut(row);
        if !source.has_unit_columns() {
            for (place, to) in to.iter_mut().enumerate() {
                *to = factor(source, row, place);
            }
            continue;
        }
        let from = source.row(row);
        let later = source.row((row + ROWS_AHEAD).min(rows - 1));
        for (place, to) in to.chunks_mut(I::LANES).enumerate() {
            let start = place * I::LANES * E::Factor::DEPTH;
            isa.prefetch(later[start..].as_ptr().cast());
            let whole = (depth - start).min(to.len() * E::Factor::DEPTH) / E::Factor::DEPTH;
            match E::as_factors(&from[start..]) {
                Some(from) => isa.store_factors(&mut to[..whole], isa.load_factors(&from[..whole])),
                None => isa.store_factors(&mut to[..whole], isa.read_first(&from[start..])),
            }
            if whole < to.len() {
                to[whole] = E::factor(&from[start + whole * E::Factor::DEPTH..]);
            }
        }
    }
}

/// Writes the transpose of the rows of factors that `source`, `(depth, rows)`, makes; rows of both are
/// contiguous.
#[inline(always)]
fn turn_tiles<E: Element, I: Storage<E>>(
    isa: I,
    source: View<'_, E, 2>,
    mut target: ViewMut<'_, E::Factor, 2>,
) {
    let [depth, rows] = source.shape();
    let places = target.columns();
    // What is left in them falls into places that are not read.
    let mut tile = [E::Factor::default(); WIDEST * WIDEST];
    let mut turned = [E::Factor::default(); WIDEST * WIDEST];
    for place in (0..places).step_by(I::LANES) {
        let numbers = place * E::Factor::DEPTH..depth.min((place + I::LANES) * E::Factor::DEPTH);
        let width = I::LANES.min(places - place);
        for row in (0..rows).step_by(I::LANES) {
            let height = I::LANES.min(rows - row);
            let source = source.slice(0, numbers.clone()).slice(1, row..row + height);
            let joined = &mut tile[..I::LANES * I::LANES];
            let Ok(joined) = ViewMut::contiguous(joined, [I::LANES; 2]) else {
                unreachable!("a tile has LANES rows of LANES")
            };
            join_rows(isa, source, joined.slice(0, 0..width).slice(1, 0..height));
            let (from, to) = (tile.as_ptr().cast(), turned.as_mut_ptr().cast());
            // SAFETY: both tiles hold LANES rows of LANES, and factors are as large as numbers.
            unsafe { isa.transpose_tile(from, I::LANES, None, to, I::LANES) };
            for offset in 0..height {
                let to = &mut target.row_mut(row + offset)[place..place + width];
                isa.store_factors(to, isa.load_factors(&turned[offset * I::LANES..][..I::LANES]));
            }
        }
    }
}

/// The factor at `place` of a row, whatever the strides.
#[inline(always)]
fn factor<E: Element>(rows: View<'_, E, 2>, row: usize, place: usize) -> E::Factor {
    let start = place * E::Factor::DEPTH;
    let count = (rows.columns() - start).min(E::Factor::DEPTH);
    let mut numbers = [E::default(); DEEPEST];
    for (offset, number) in numbers.iter_mut().enumerate().take(count) {
        *number = rows.get([row, start + offset]);
    }
    E::factor(&numbers[..count])
}

#[inline(always)]
fn join_rows<E: Element, I: Storage<E>>(
    isa: I,
    source: View<'_, E, 2>,
    mut target: ViewMut<'_, E::Factor, 2>,
) {
    let [depth, columns] = source.shape();
    let row_or_none = |row: usize| if row < depth { source.row(row) } else { &[] };
    let whole = columns - columns % I::LANES;
    for place in 0..target.rows() {
        let to = target.row_mut(place);
        let first = place * E::Factor::DEPTH;
        let rows = [row_or_none(first), row_or_none(first + 1)];
        let later = source.row((first + ROWS_AHEAD).min(depth - 1));
        let complete = first + E::Factor::DEPTH <= depth;
        let vectors = if complete { whole } else { 0 };
        for start in (0..vectors).step_by(I::LANES) {
            isa.prefetch(later[start..].as_ptr().cast());
            let mut parts = [isa.zero(); DEEPEST];
            for part in 0..E::Factor::DEPTH {
                parts[part] = isa.read(&rows[part][start..]);
            }
            let joined = isa.join(&parts[..E::Factor::DEPTH]);
            isa.store_factors(&mut to[start..start + I::LANES], joined);
        }
        for start in (vectors..columns).step_by(I::LANES) {
            let mut parts = [isa.zero(); DEEPEST];
            for (part, row) in parts.iter_mut().zip(rows).take(E::Factor::DEPTH) {
                *part = isa.read_first(row.get(start..).unwrap_or_default());
            }
            isa.store_factors(&mut to[start..], isa.join(&parts[..E::Factor::DEPTH]));
        }
    }
}

/// Writes the transpose of `source`, `(columns, depth)`, into `target`; rows of both are contiguous.
#[inline(always)]
fn transpose_tiles<E: Element, I: Storage<E>>(
    isa: I,
    source: View<'_, E, 2>,
    mut target: ViewMut<'_, E::Factor, 2>,
) {
    let [depth, columns] = target.shape();
    let whole = source.columns() / E::Factor::DEPTH;
    let direct = factors(source.slice(1, 0..whole * E::Factor::DEPTH));
    let target_stride = target.strides()[0];
    // What is left in them falls into places that are not read.
    let mut tile = [E::Factor::default(); WIDEST * WIDEST];
    let mut turned = [E::Factor::default(); WIDEST * WIDEST];
    for column in (0..columns).step_by(I::LANES) {
        let width = I::LANES.min(columns - column);
        if width <= NARROW {
            for place in 0..depth {
                let to = &mut target.row_mut(place)[column..column + width];
                for (row, to) in to.iter_mut().enumerate() {
                    *to = factor(source, column + row, place);
                }
            }
            continue;
        }
        for place in (0..depth).step_by(I::LANES) {
            let height = I::LANES.min(depth - place);
            let inside = width == I::LANES && place + I::LANES <= whole;
            if let (true, Some(direct), Ok(to_stride)) =
                (inside, direct, usize::try_from(target_stride))
                && let Ok(from_stride) = usize::try_from(direct.strides()[0])
            {
                let from = direct.row(column)[place..].as_ptr().cast();
                let to = target.row_mut(place)[column..].as_mut_ptr().cast();
                // SAFETY: LANES rows and columns from here on lie inside both views, and factors
                // are as large as numbers.
                unsafe { isa.transpose_tile(from, from_stride, None, to, to_stride) };
                continue;
            }
            for row in 0..width {
                let numbers = &source.row(column + row)[place * E::Factor::DEPTH..];
                let numbers = &numbers[..numbers.len().min(I::LANES * E::Factor::DEPTH)];
                let to = &mut tile[row * I::LANES..][..I::LANES];
                match E::as_factors(numbers) {
                    Some(factors) => isa.store_factors(to, isa.load_factors(factors)),
                    None => isa.store_factors(to, isa.read_first(numbers)),
                }
                let rest = numbers.len() % E::Factor::DEPTH;
                if rest > 0 {
                    to[height - 1] = E::factor(&numbers[numbers.len() - rest..]);
                }
            }
            let (from, to) = (tile.as_ptr().cast(), turned.as_mut_ptr().cast());
            // SAFETY: both tiles hold LANES rows of LANES.
            unsafe { isa.transpose_tile(from, I::LANES, None, to, I::LANES) };
            for row in 0..height {
                let to = &mut target.row_mut(place + row)[column..column + width];
                isa.store_factors(to, isa.load_factors(&turned[row * I::LANES..][..I::LANES]));
            }
        }
    }
}
