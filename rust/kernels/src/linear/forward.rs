//! The layer's operands, checked, and its output.

use fusewire_simd::{Element, Storage};

use crate::activation::{Activation, activate};
use crate::gemm::{ColumnEpilogue, Matmul, NoEpilogue, Start, matmul};
use crate::math::Elementary;
use crate::parallel::Team;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// The operands of a linear layer, with shapes that fit together.
#[derive(Clone, Copy)]
pub struct Linear<'a, E> {
    pub(super) input: View<'a, E, 2>,
    pub(super) weight: View<'a, E, 2>,
    pub(super) bias: Option<View<'a, E, 1>>,
    pub(super) activation: Activation,
}

impl<'a, E: Element<Real: Elementary>> Linear<'a, E> {
    /// A layer of `input (rows, input_size)`, `weight (output_size, input_size)` and
    /// `bias (output_size)`.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(
        input: View<'a, E, 2>,
        weight: View<'a, E, 2>,
        bias: Option<View<'a, E, 1>>,
        activation: Activation,
    ) -> Result<Self> {
        let [output_size, input_size] = weight.shape();
        if input.columns() != input_size {
            return Err(Error::Value(format!(
                "input must have {input_size} features, as many as weight has columns, but has {}",
                input.columns()
            )));
        }
        if let Some(bias) = bias.filter(|bias| bias.shape() != [output_size]) {
            return Err(Error::shape("bias", &[output_size], &bias.shape()));
        }
        Ok(Self { input, weight, bias, activation })
    }

    /// `(rows, output_size)`.
    pub fn output_shape(&self) -> [usize; 2] {
        [self.input.rows(), self.weight.rows()]
    }

    /// Computes the output.
    ///
    /// # Errors
    /// If `output` has another shape or rows that are not contiguous, or memory runs out.
    pub fn forward(&self, output: ViewMut<'_, E, 2>, team: &dyn Team) -> Result<()> {
        self.activated(self.activation, output, team)
    }

    /// Computes the output and the sums that went into the activation, which [`Linear::backward`] takes.
    ///
    /// # Errors
    /// As [`Linear::forward`], of `sums` too.
    pub fn forward_with_sums(
        &self,
        mut sums: ViewMut<'_, E, 2>,
        output: ViewMut<'_, E, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        self.activated(Activation::Identity, sums.reborrow(), team)?;
        activate(self.activation, sums.as_view(), output, team)
    }

    /// Computes the output as if the layer ended with `activation`.
    pub(super) fn activated(
        &self,
        activation: Activation,
        output: ViewMut<'_, E, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        let (a, b, start) = (self.input, self.weight.transpose(), Start::Zero);
        if self.bias.is_none() && activation == Activation::Identity {
            // Nothing is fused behind it, so sums may go where they belong at once.
            let (c, epilogue) = (output, NoEpilogue);
            return matmul(Matmul { a, b, c, start, epilogue, chain: None }, team);
        }
        // A bias is short beside the product; widened and contiguous, it is loaded as vectors.
        let mut bias = Vec::new();
        if let Some(view) = self.bias {
            bias.extend((0..view.shape()[0]).map(|unit| view.get([unit]).to_real()));
        }
        let epilogue = AddBiasAndActivate { bias, activation };
        matmul(Matmul { a, b, c: output, start, epilogue, chain: None }, team)
    }
}

struct AddBiasAndActivate<T> {
    /// Empty for none.
    bias: Vec<T>,
    activation: Activation,
}

impl<T: Elementary> ColumnEpilogue<T> for AddBiasAndActivate<T> {
    #[inline(always)]
    fn apply<I: Storage<T>>(&self, isa: I, column: usize, width: usize, sums: &mut [T])
    where
        T: Element<Real = T>,
    {
        if let Some(bias) = self.bias.get(column..column + width) {
            for row in sums.chunks_exact_mut(width) {
                for (sums, bias) in row.chunks_mut(I::LANES).zip(bias.chunks(I::LANES)) {
                    isa.store_first(sums, isa.add(isa.load_first(sums), isa.load_first(bias)));
                }
            }
        }
        if self.activation != Activation::Identity {
            self.activation.apply(isa, sums);
        }
    }
}
