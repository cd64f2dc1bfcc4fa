//! The gradients of a linear layer's operands.

use fusewire_simd::Element;

use super::forward::Linear;
use crate::activation::{Activation, Needs, activate_backward};
use crate::gemm::{Matmul, NoEpilogue, Start, column_sums, matmul};
use crate::math::Elementary;
use crate::parallel::Team;
use crate::scratch::Scratch;
use crate::view::{View, ViewMut, count};
use crate::{Error, Result};

/// What of a forward pass was kept; only what the activation's derivative
/// [follows from](Activation::needs) is read.
#[derive(Clone, Copy)]
pub struct Saved<'a, E> {
    /// What [`Linear::forward`] gave, `(rows, output_size)`.
    pub output: Option<View<'a, E, 2>>,
    /// What went into the activation, from [`Linear::forward_with_sums`], `(rows, output_size)`.
    pub sums: Option<View<'a, E, 2>>,
}

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
    /// Sums that are needed and were not saved are computed again, which costs one product and saves
    /// memory as large as the output between the passes.
    ///
    /// # Errors
    /// If shapes do not fit together, an output that is needed is missing, or memory runs out.
    pub fn backward(
        &self,
        grad_output: View<'_, E, 2>,
        saved: Saved<'_, E>,
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
            self.differentiate_activation(grad_output, saved, slope.reborrow(), team)?;
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
        saved: Saved<'_, E>,
        slope: ViewMut<'_, E, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        let shape = self.output_shape();
        let activation = self.activation;
        let again = activation.needs() == Needs::Input && saved.sums.is_none();
        let mut memory = Scratch::take(if again { count::<E, 2>(shape)? } else { 0 })?;
        let saved = match activation.needs() {
            Needs::Nothing => grad_output,
            Needs::Output => saved.output.ok_or_else(|| {
                Error::Value(format!("the gradient of {activation:?} needs the layer's output"))
            })?,
            Needs::Input => {
                if again {
                    let sums = ViewMut::contiguous(&mut memory, shape)?;
                    self.activated(Activation::Identity, sums, team)?;
                }
                saved.sums.map_or_else(|| View::contiguous(&memory, shape), Ok)?
            }
        };
        if saved.shape() != shape {
            return Err(Error::shape("output", &shape, &saved.shape()));
        }
        activate_backward(activation, grad_output, saved, slope, team)
    }
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
