//! The product of a few rows with a matrix whose columns lie one behind the other, as a layer's
//! weights do: nothing is packed, and each weight is read from memory once.

use fusewire_simd::{Element, Factor, Kernel, Storage};

use super::around::Start;
use super::dots::multiply_rows;
use super::epilogue::{ColumnEpilogue, Finish};
use super::pack::{copy_columns, factors};
use crate::Result;
use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Rows up to which packing costs more than the horizontal sums that it avoids.
pub(super) const MOST: usize = 24;
/// Columns that a thread works off at a time.
const COLUMNS: usize = 64;

/// `C = A · Bᵀ` with `epilogue` applied; rows of all three are contiguous.
pub(super) struct FewRows<'a, E: Element, F> {
    pub(super) a: View<'a, E, 2>,
    pub(super) b: View<'a, E, 2>,
    pub(super) c: ViewMut<'a, E, 2>,
    pub(super) epilogue: F,
    pub(super) team: &'a dyn Team,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for FewRows<'_, E, F> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { a, b, c, ref epilogue, team } = self;
        let shape = [a.rows(), a.columns().div_ceil(E::Factor::DEPTH)];
        let lying = factors(a);
        let mut memory = Scratch::take(if lying.is_some() { 0 } else { shape[0] * shape[1] })?;
        let a = match lying {
            Some(lying) => lying,
            None => {
                copy_columns(isa, a, ViewMut::contiguous(&mut memory, shape)?);
                View::contiguous(&memory, shape)?
            }
        };
        try_for_each_part(team, c.blocks([0, COLUMNS]), |index, c| {
            isa.vectorize(Columns { a, b, c, epilogue, first: index * COLUMNS })
        })
    }
}

/// Some columns of the product.
struct Columns<'a, E: Element, F> {
    a: View<'a, E::Factor, 2>,
    b: View<'a, E, 2>,
    c: ViewMut<'a, E, 2>,
    epilogue: &'a F,
    first: usize,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for Columns<'_, E, F> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { a, b, c, epilogue, first } = self;
        let [rows, columns] = c.shape();
        let mut memory = Scratch::take(rows * columns)?;
        let sums = ViewMut::contiguous(&mut memory, [rows, 1, columns])?;
        let b = b.slice(0, first..first + columns);
        multiply_rows::<E, I>(isa, a, b, sums, Start::Zero);
        isa.vectorize(Finish { epilogue, column: first, sums: &mut memory, c });
        Ok(())
    }
}
