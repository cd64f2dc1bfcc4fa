//! The product of some rows with a matrix whose columns lie one behind the other, turned: `Cᵀ = Bᵀ ·
//! Aᵀ` reads that matrix as it lies and packs the few rows instead, and its result is turned back.

use std::ops::RangeInclusive;

use fusewire_simd::{Element, Kernel, Storage};

use super::around::Start;
use super::cache_blocks::{Matmul, Product};
use super::epilogue::{ColumnEpilogue, Finish, NoEpilogue};
use super::rounded::as_sums;
use super::transpose::{Scales, copy_transposed};
use crate::Result;
use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Rows that repay it where columns of B are contiguous: of more, packing B is little beside the product.
const ROWS: RangeInclusive<usize> = 16..=128;
/// The same where its rows are: those are copied faster,
const ROWS_BESIDE_ROWS: RangeInclusive<usize> = 32..=96;
/// unless B has so many numbers that the second-level cache does not hold them.
const LARGE: usize = 1 << 19;
/// Rows are a multiple of this: they become columns, and fill the vectors of every instruction set.
const WHOLE_VECTORS: usize = 16;
/// The least depth that repays it: of less, turning the result back is much beside the product.
const DEPTH: usize = 256;
/// Columns that a thread turns back at a time, and fewer than repay it.
const COLUMNS: usize = 128;

/// Whether the product, not added to anything, is faster turned.
pub(super) fn pays<E: Element>(a: View<'_, E, 2>, b: View<'_, E, 2>) -> bool {
    let ([rows, depth], columns) = (a.shape(), b.columns());
    let repay = if b.transpose().has_unit_columns() || depth * columns >= LARGE {
        ROWS
    } else {
        ROWS_BESIDE_ROWS
    };
    let lie = a.has_unit_columns() && (b.has_unit_columns() || b.transpose().has_unit_columns());
    let fill = repay.contains(&rows) && rows.is_multiple_of(WHOLE_VECTORS);
    E::IS_REAL && lie && fill && depth >= DEPTH && columns > COLUMNS
}

/// The product, for operands that [`pays`] names.
pub(super) fn turned<E: Element, F: ColumnEpilogue<E::Real>>(
    product: Matmul<'_, E, F>,
    team: &dyn Team,
) -> Result<()> {
    let Matmul { a, b, c, epilogue, chain, .. } = product;
    let [rows, columns] = c.shape();
    let mut memory = Scratch::<E>::take(rows * columns)?;
    let target = ViewMut::contiguous(&mut memory, [columns, rows])?;
    let (left, right) = (b.transpose(), a.transpose());
    let (start, nothing) = (Start::Zero, NoEpilogue);
    let product = Matmul { a: left, b: right, c: target, start, epilogue: nothing, chain };
    E::dispatch(Product { product, team })?;
    let turned = View::contiguous(&memory, [columns, rows])?;
    E::dispatch(TurnBack { turned, c, epilogue, team })
}

/// Brings `turned`, the transpose of C, to C, with what is fused behind it.
struct TurnBack<'a, E: Element, F> {
    turned: View<'a, E, 2>,
    c: ViewMut<'a, E, 2>,
    epilogue: F,
    team: &'a dyn Team,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for TurnBack<'_, E, F> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { turned, c, ref epilogue, team } = self;
        try_for_each_part(team, c.blocks([0, COLUMNS]), |index, c| {
            isa.vectorize(Columns { turned, c, epilogue, first: index * COLUMNS })
        })
    }
}

/// Some columns of the product.
struct Columns<'a, E: Element, F> {
    turned: View<'a, E, 2>,
    c: ViewMut<'a, E, 2>,
    epilogue: &'a F,
    first: usize,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for Columns<'_, E, F> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { turned, c, epilogue, first } = self;
        let [rows, width] = c.shape();
        let source = turned.slice(0, first..first + width);
        let mut memory = Scratch::<E>::take(rows * width)?;
        copy_transposed::<E, E, I>(
            isa,
            source,
            Scales::Absent,
            ViewMut::contiguous(&mut memory, [rows, width])?,
        );
        if let Some(mut sums) = as_sums(ViewMut::contiguous(&mut memory, [1, rows * width])?) {
            isa.vectorize(Finish { epilogue, column: first, sums: sums.row_mut(0), c });
        }
        Ok(())
    }
}
