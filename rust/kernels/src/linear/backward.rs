//! The gradients of a linear layer's operands.

use fusewire_simd::{Kernel, Lanes};

use super::activation::Activation;
use super::forward::Linear;
use crate::gemm::{Matmul, NoEpilogue, Start, copy_rows, matmul};
use crate::math::Elementary;
use crate::parallel::{Team, for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut, count};
use crate::{Error, Result};

/// Rows of the output that a thread turns into gradients at a time.
const ROWS: usize = 32;

/// Where the gradients go; `None` is not computed.
pub struct Gradients<'a, T> {
    /// `(rows, input_size)`.
    pub input: Option<ViewMut<'a, T, 2>>,
    /// `(output_size, input_size)`.
    pub weight: Option<ViewMut<'a, T, 2>>,
    /// `(output_size)`.
    pub bias: Option<ViewMut<'a, T, 1>>,
}

impl<T: Elementary> Linear<'_, T> {
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
        grad_output: View<'_, T, 2>,
        output: Option<View<'_, T, 2>>,
        gradients: Gradients<'_, T>,
        team: &dyn Team,
    ) -> Result<()> {
        let shape = self.output_shape();
        if grad_output.shape() != shape {
            return Err(Error::shape("grad_output", &shape, &grad_output.shape()));
        }
        let mut memory = Scratch::take(match self.activation {
            Activation::Identity => 0,
            _ => count::<T, 2>(shape)?,
        })?;
        let slope = if self.activation == Activation::Identity {
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
            sum_rows(slope, target, team)?;
        }
        Ok(())
    }

    /// Turns the gradient of the output into that of what went into the activation.
    fn differentiate_activation(
        &self,
        grad_output: View<'_, T, 2>,
        output: Option<View<'_, T, 2>>,
        slope: ViewMut<'_, T, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        let shape = self.output_shape();
        let activation = self.activation;
        let mut memory = Scratch::take(count::<T, 2>(shape)?)?;
        let mut saved = ViewMut::contiguous(&mut memory, shape)?;
        if activation.differentiates_output() {
            let output = output.ok_or_else(|| {
                Error::Value(format!("the gradient of {activation:?} needs the layer's output"))
            })?;
            if output.shape() != shape {
                return Err(Error::shape("output", &shape, &output.shape()));
            }
            T::dispatch(Copy { source: output, target: saved });
        } else {
            self.activated(Activation::Identity, saved.reborrow(), team)?;
        }
        let saved = View::contiguous(&memory, shape)?;
        let block = [ROWS, shape[1].max(1)];
        for_each_part(team, slope.blocks(block), |index, slope| {
            let rows = index * ROWS..index * ROWS + slope.rows();
            let (saved, grad_output) = (saved.slice(0, rows.clone()), grad_output.slice(0, rows));
            T::dispatch(Differentiate { activation, saved, grad_output, slope });
        });
        Ok(())
    }
}

struct Copy<'a, T> {
    source: View<'a, T, 2>,
    target: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Kernel<T> for Copy<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        copy_rows(isa, self.source, self.target);
    }
}

struct Differentiate<'a, T> {
    activation: Activation,
    saved: View<'a, T, 2>,
    grad_output: View<'a, T, 2>,
    slope: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Kernel<T> for Differentiate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        copy_rows(isa, self.grad_output, self.slope.reborrow());
        for row in 0..self.slope.rows() {
            let (saved, slope) = (self.saved.row(row), self.slope.row_mut(row));
            for (saved, slope) in saved.chunks(I::LANES).zip(slope.chunks_mut(I::LANES)) {
                let (saved, grad_output) = (isa.load_first(saved), isa.load_first(slope));
                isa.store_first(slope, self.activation.gradient(isa, saved, grad_output));
            }
        }
    }
}

fn multiply<T: Elementary>(
    a: View<'_, T, 2>,
    b: View<'_, T, 2>,
    c: ViewMut<'_, T, 2>,
    team: &dyn Team,
) -> Result<()> {
    matmul(Matmul { a, b, c, start: Start::Zero, epilogue: NoEpilogue }, team)
}

/// The sum over rows: the product with a row of ones, so that it has the product's order of sums.
fn sum_rows<T: Elementary>(
    rows: View<'_, T, 2>,
    mut target: ViewMut<'_, T, 1>,
    team: &dyn Team,
) -> Result<()> {
    let [count, columns] = rows.shape();
    if target.shape() != [columns] {
        return Err(Error::shape("the bias gradient", &[columns], &target.shape()));
    }
    let ones = vec![T::ONE; count];
    let mut sums = Scratch::take(columns)?;
    multiply(
        View::contiguous(&ones, [1, count])?,
        rows,
        ViewMut::contiguous(&mut sums, [1, columns])?,
        team,
    )?;
    (0..columns).for_each(|unit| target.set([unit], sums[unit]));
    Ok(())
}
