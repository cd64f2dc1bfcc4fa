//! Where gradients are summed: in place, or for narrow numbers in a copy that is rounded once.

use fusewire_simd::{Element, Real, Storage};

use crate::Result;
use crate::gemm::as_sums;
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// A gradient while it is summed up; rows are contiguous.
pub(super) struct Sums<'a, E: Element> {
    gradient: ViewMut<'a, E, 2>,
    /// Where the sums are, if not in the gradient.
    place: Place<'a, E::Real>,
}

enum Place<'a, T: Real> {
    Gradient,
    /// Memory that outlives the task.
    Kept(ViewMut<'a, T, 2>),
    /// Memory of the task.
    Own(Scratch<T>),
}

impl<'a, E: Element> Sums<'a, E> {
    /// Sums of what becomes `gradient`, in `kept` where they outlive the task.
    pub(super) fn new(
        gradient: ViewMut<'a, E, 2>,
        kept: Option<ViewMut<'a, E::Real, 2>>,
    ) -> Result<Self> {
        let place = match kept {
            _ if E::IS_REAL => Place::Gradient,
            Some(kept) => Place::Kept(kept),
            None => Place::Own(Scratch::take(gradient.rows() * gradient.columns())?),
        };
        Ok(Self { gradient, place })
    }

    /// The sums.
    pub(super) fn view_mut(&mut self) -> Result<ViewMut<'_, E::Real, 2>> {
        let shape = self.gradient.shape();
        match &mut self.place {
            Place::Kept(kept) => Ok(kept.reborrow()),
            Place::Own(numbers) => ViewMut::contiguous(numbers, shape),
            Place::Gradient => match as_sums(self.gradient.reborrow()) {
                Some(sums) => Ok(sums),
                None => unreachable!("the gradient was found to be what sums are"),
            },
        }
    }

    /// Makes all sums 0.
    pub(super) fn clear(&mut self) -> Result<()> {
        let mut sums = self.view_mut()?;
        (0..sums.rows()).for_each(|row| sums.row_mut(row).fill(E::Real::ZERO));
        Ok(())
    }

    /// Rounds the sums to the gradient.
    #[inline(always)]
    pub(super) fn finish<I: Storage<E>>(&mut self, isa: I) -> Result<()> {
        let (rows, columns) = (self.gradient.rows(), self.gradient.columns());
        let from = match &mut self.place {
            Place::Gradient => return Ok(()),
            Place::Kept(kept) => kept.as_view(),
            Place::Own(numbers) => View::contiguous(numbers, [rows, columns])?,
        };
        for row in 0..rows {
            let (from, to) = (from.row(row), self.gradient.row_mut(row));
            for column in (0..columns).step_by(I::LANES) {
                isa.write_first(&mut to[column..], isa.load_first(&from[column..]));
            }
        }
        Ok(())
    }
}
