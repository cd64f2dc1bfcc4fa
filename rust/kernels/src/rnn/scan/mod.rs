//! Recurrences without a product of the state, as scans over time (Feng et al. 2024, "Were RNNs all we
//! needed?"); docs/kernels/recurrent.md derives both directions.
//!
//! `h' = r∘h + a`, where `r` and `a` follow from the input alone. So a sequence can be cut in time: a
//! chunk is summed up by what it makes of any state, and runs once the state before it is known.

mod cell;
pub mod reference;
mod walk;

use std::marker::PhantomData;

use fusewire_simd::Lanes;

pub use self::cell::{Candidate, Linear, MinGru, MinLstm, Minimal, Positive};
use self::cell::{GateGradients, Gates};
use self::walk::{Place, Recurrence, Walk};
use super::Steps;
use super::weights::expect;
use crate::math::Elementary;
use crate::parallel::{Team, flushing_denormals};
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// One layer in one direction. Rows are packed as [`Steps`] tells.
#[derive(Clone, Copy)]
pub struct Scan<'a, T> {
    /// How rows are packed, and in what order they come.
    pub steps: &'a Steps,
    /// The gates' sums, that is the input's product with its bias, `(total, gates · hidden_size)`.
    pub gates: View<'a, T, 2>,
    /// The initial state, `(batch, hidden_size)`.
    pub hidden: View<'a, T, 2>,
}

/// What the backward pass is given beside the operands.
#[derive(Clone, Copy)]
pub struct ScanOutcome<'a, T> {
    /// What the forward pass returned, `(total, hidden_size)`.
    pub output: View<'a, T, 2>,
    /// The gradient of the output; `None` is 0.
    pub output_gradient: Option<View<'a, T, 2>>,
    /// The gradient of the final state; `None` is 0.
    pub final_gradient: Option<View<'a, T, 2>>,
}

impl<T: Elementary> Scan<'_, T> {
    /// Computes the state after each step, `(total, hidden_size)`, and each sequence's last one,
    /// `(batch, hidden_size)`.
    ///
    /// # Errors
    /// If shapes do not fit together, rows are not contiguous, or memory is short.
    pub fn forward<C: Minimal>(
        self,
        output: ViewMut<'_, T, 2>,
        final_hidden: ViewMut<'_, T, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        let hidden_size = self.check::<C>()?;
        expect("output", output.shape(), [self.gates.rows(), hidden_size])?;
        expect("the final state", final_hidden.shape(), self.hidden.shape())?;
        contiguous(&[Some(self.gates), Some(self.hidden), Some(output.as_view())])?;
        flushing_denormals(team, |team| {
            Walk {
                recurrence: Forward::<T, C> { gates: self.gates, hidden_size, cell: PhantomData },
                steps: self.steps,
                backwards: false,
                start: Some(self.hidden),
                results: output,
                end: final_hidden,
            }
            .run(team)
        })
    }

    /// Computes the gradients of the gates' sums and of the initial state, in their shapes.
    ///
    /// # Errors
    /// If shapes do not fit together, rows are not contiguous, or memory is short.
    pub fn backward<C: Minimal>(
        self,
        outcome: ScanOutcome<'_, T>,
        gates_gradient: ViewMut<'_, T, 2>,
        hidden_gradient: ViewMut<'_, T, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        let hidden_size = self.check::<C>()?;
        let ScanOutcome { output, output_gradient, final_gradient } = outcome;
        let shape = [self.gates.rows(), hidden_size];
        expect("output", output.shape(), shape)?;
        if let Some(gradient) = output_gradient {
            expect("the gradient of the output", gradient.shape(), shape)?;
        }
        if let Some(gradient) = final_gradient {
            expect("the gradient of the final state", gradient.shape(), self.hidden.shape())?;
        }
        expect("the gates' gradient", gates_gradient.shape(), self.gates.shape())?;
        expect("the state's gradient", hidden_gradient.shape(), self.hidden.shape())?;
        contiguous(&[Some(self.gates), Some(self.hidden), Some(output), output_gradient])?;
        contiguous(&[final_gradient, Some(gates_gradient.as_view())])?;
        flushing_denormals(team, |team| {
            Walk {
                recurrence: Backward::<T, C> {
                    gates: self.gates,
                    hidden: self.hidden,
                    output,
                    output_gradient,
                    hidden_size,
                    cell: PhantomData,
                },
                steps: self.steps,
                backwards: true,
                start: final_gradient,
                results: gates_gradient,
                end: hidden_gradient,
            }
            .run(team)
        })
    }

    /// Checks the operands' shapes, and returns the hidden size.
    fn check<C: Minimal>(&self) -> Result<usize> {
        let hidden_size = self.hidden.columns();
        if hidden_size == 0 {
            return Err(Error::Value("hidden_size must be at least 1".into()));
        }
        let columns = C::GATES
            .checked_mul(hidden_size)
            .ok_or_else(|| Error::Memory(format!("hidden_size {hidden_size} is too large")))?;
        expect("the state", self.hidden.shape(), [self.steps.batch(), hidden_size])?;
        expect("the gates' sums", self.gates.shape(), [self.steps.total(), columns])?;
        Ok(hidden_size)
    }
}

fn contiguous<T>(operands: &[Option<View<'_, T, 2>>]) -> Result<()> {
    if operands.iter().flatten().all(View::has_unit_columns) {
        return Ok(());
    }
    Err(Error::Value("rows of gates, states, outputs and gradients must be contiguous".into()))
}

struct Forward<'a, T, C> {
    gates: View<'a, T, 2>,
    hidden_size: usize,
    cell: PhantomData<C>,
}

impl<T: Elementary, C: Minimal> Recurrence<T> for Forward<'_, T, C> {
    #[inline(always)]
    fn coefficients<I: Lanes<T>>(
        &self,
        isa: I,
        place: Place,
        unit: usize,
    ) -> (I::Vector, I::Vector) {
        let row = self.gates.row(place.row);
        C::coefficients(isa, Gates { row, hidden_size: self.hidden_size, unit })
    }

    #[inline(always)]
    fn step<I: Lanes<T>>(
        &self,
        isa: I,
        place: Place,
        unit: usize,
        state: I::Vector,
        target: &mut [T],
    ) -> I::Vector {
        let (retained, added) = self.coefficients(isa, place, unit);
        let next = isa.mul_add(retained, state, added);
        isa.store_first(&mut target[unit..], next);
        next
    }
}

/// The state is the gradient that later steps send: `dh = r∘(dh' + dy)`.
struct Backward<'a, T, C> {
    gates: View<'a, T, 2>,
    hidden: View<'a, T, 2>,
    output: View<'a, T, 2>,
    output_gradient: Option<View<'a, T, 2>>,
    hidden_size: usize,
    cell: PhantomData<C>,
}

impl<T: Elementary, C: Minimal> Backward<'_, T, C> {
    #[inline(always)]
    fn own<I: Lanes<T>>(&self, isa: I, place: Place, unit: usize) -> I::Vector {
        match self.output_gradient {
            Some(gradient) => isa.load_first(&gradient.row(place.row)[unit..]),
            None => isa.zero(),
        }
    }
}

impl<T: Elementary, C: Minimal> Recurrence<T> for Backward<'_, T, C> {
    #[inline(always)]
    fn coefficients<I: Lanes<T>>(
        &self,
        isa: I,
        place: Place,
        unit: usize,
    ) -> (I::Vector, I::Vector) {
        let row = self.gates.row(place.row);
        let gates = Gates { row, hidden_size: self.hidden_size, unit };
        let (retained, _) = C::coefficients(isa, gates);
        (retained, isa.mul(retained, self.own(isa, place, unit)))
    }

    #[inline(always)]
    fn step<I: Lanes<T>>(
        &self,
        isa: I,
        place: Place,
        unit: usize,
        state: I::Vector,
        target: &mut [T],
    ) -> I::Vector {
        let hidden_size = self.hidden_size;
        let gates = Gates { row: self.gates.row(place.row), hidden_size, unit };
        let gradient = isa.add(state, self.own(isa, place, unit));
        let previous = match place.previous {
            Some(row) => self.output.row(row),
            None => self.hidden.row(place.sequence),
        };
        let retained = isa.mul(gradient, isa.load_first(&previous[unit..]));
        let target = GateGradients { row: target, hidden_size, unit };
        C::backward(isa, gates, retained, gradient, target);
        let (retained, _) = C::coefficients(isa, gates);
        isa.mul(retained, gradient)
    }
}

#[cfg(test)]
mod tests;
