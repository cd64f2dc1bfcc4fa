//! The gradients of a linear layer's operands.

use fusewire_simd::{Element, Kernel, Storage};

use super::activation::{Activation, Needs};
use super::forward::Linear;
use crate::gemm::{Matmul, NoEpilogue, Start, column_sums, matmul};
use crate::math::Elementary;
use crate::parallel::{Team, for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut, count};
use crate::{Error, Result};

/// Rows of the output that a thread turns into gradients at a time.
const ROWS: usize = 32;

/// Where the gradients go; `None` is not computed.
pub struct Gradients<'a, E> {
    /// `(rows, input_size)`.
    pub input: Option<ViewMut<'a, E, 2>>,
    /// `(output_size, input_size)`.
    pub weight: Option<ViewMut<'a, E, 2>>,
    /// `(output_size)`.
    pub bias: Option<ViewMut<'a, E, 1>>,
}

impl<E: Element<Real: Elementary>> Linear<'_, E> {
    /// Computes gradients from the gradient of the output.
    ///
    /// `output` is what [`Linear::forward`] gave, needed where the activation's derivative follows
    /// from it; otherwise what went into the activation is computed again, which costs one product
    /// and saves memory as large as the output between the passes.
    ///
    /// # Errors
    /// If shapes do not fit together, `output` is missing, or memory runs out.
    pub fn backward(
        &self,
        grad_output: View<'_, E, 2>,
        output: Option<View<'_, E, 2>>,
        gradients: Gradients<'_, E>,
        team: &dyn Team,
    ) -> Result<()> {
        let shape = self.output_shape();
        if grad_output.shape() != shape {
            return Err(Error::shape("grad_output", &shape, &grad_output.shape()));
        }
        // As it came, or what went into the activation got of it, or a copy with contiguous rows.
        let as_it_came = self.activation == Activation::Identity && grad_output.has_unit_columns();
        let mut memory = Scratch::take(if as_it_came { 0 } else { count::<E, 2>(shape)? })?;
        let slope = if as_it_came {
            grad_output
        } else {
            let mut slope = ViewMut::contiguous(&mut memory, shape)?;
            self.differentiate_activation(grad_output, output, slope.reborrow(), team)?;
            View::contiguous(&memory, shape)?
        };
        if let Some(target) = gradients.input {
            multiply(slope, self.weight, target, team)?;
        }
        if let Some(target) = gradients.weight {
            multiply(slope.transpose(), self.input, target, team)?;
        }
        if let Some(target) = gradients.bias {
            column_sums(slope, target, team)?;
        }
        Ok(())
    }

    /// Turns the gradient of the output into that of what went into the activation.
    fn differentiate_activation(
        &self,
        grad_output: View<'_, E, 2>,
        output: Option<View<'_, E, 2>>,
        slope: ViewMut<'_, E, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        let shape = self.output_shape();
        let activation = self.activation;
        let mut memory = Scratch::take(match activation.needs() {
            Needs::Input => count::<E, 2>(shape)?,
            Needs::Nothing | Needs::Output => 0,
        })?;
        let saved = match activation.needs() {
            Needs::Nothing => grad_output,
            Needs::Output => output.ok_or_else(|| {
                Error::Value(format!("the gradient of {activation:?} needs the layer's output"))
            })?,
            Needs::Input => {
                let mut saved = ViewMut::contiguous(&mut memory, shape)?;
                self.activated(Activation::Identity, saved.reborrow(), team)?;
                View::contiguous(&memory, shape)?
            }
        };
        if saved.shape() != shape {
            return Err(Error::shape("output", &shape, &saved.shape()));
        }
        let block = [ROWS, shape[1].max(1)];
        for_each_part(team, slope.blocks(block), |index, slope| {
            let rows = index * ROWS..index * ROWS + slope.rows();
            let (saved, grad_output) = (saved.slice(0, rows.clone()), grad_output.slice(0, rows));
            E::dispatch(Differentiate { activation, saved, grad_output, slope });
        });
        Ok(())
    }
}

struct Differentiate<'a, E> {
    activation: Activation,
    saved: View<'a, E, 2>,
    grad_output: View<'a, E, 2>,
    slope: ViewMut<'a, E, 2>,
}

impl<E: Element<Real: Elementary>> Kernel<E> for Differentiate<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(mut self, isa: I) {
        for row in 0..self.slope.rows() {
            for column in (0..self.slope.columns()).step_by(I::LANES) {
                let saved = vector(isa, self.saved, row, column);
                let grad_output = vector(isa, self.grad_output, row, column);
                let slope = self.activation.gradient(isa, saved, grad_output);
                isa.write_first(&mut self.slope.row_mut(row)[column..], slope);
            }
        }
    }
}

/// The numbers of `row` from `column` on, whatever the strides.
#[inline(always)]
fn vector<E: Element, I: Storage<E>>(
    isa: I,
    rows: View<'_, E, 2>,
    row: usize,
    column: usize,
) -> I::Vector {
    if rows.has_unit_columns() {
        return isa.read_first(&rows.row(row)[column..]);
    }
    let mut numbers = [E::default(); 16];
    let columns = column..rows.columns().min(column + I::LANES);
    for (number, column) in numbers.iter_mut().zip(columns) {
        *number = rows.get([row, column]);
    }
    isa.read(&numbers)
}

fn multiply<E: Element>(
    a: View<'_, E, 2>,
    b: View<'_, E, 2>,
    c: ViewMut<'_, E, 2>,
    team: &dyn Team,
) -> Result<()> {
    let (start, epilogue) = (Start::Zero, NoEpilogue);
    matmul(Matmul { a, b, c, start, epilogue, chain: None }, team)
}
