//! The layer's operands, checked, and its output.

use fusewire_simd::Lanes;

use super::activation::Activation;
use crate::gemm::{ColumnEpilogue, Matmul, Start, matmul};
use crate::math::Elementary;
use crate::parallel::Team;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// The operands of a linear layer, with shapes that fit together.
#[derive(Clone, Copy)]
pub struct Linear<'a, T> {
    pub(super) input: View<'a, T, 2>,
    pub(super) weight: View<'a, T, 2>,
    pub(super) bias: Option<View<'a, T, 1>>,
    pub(super) activation: Activation,
}

impl<'a, T: Elementary> Linear<'a, T> {
    /// A layer of `input (rows, input_size)`, `weight (output_size, input_size)` and
    /// `bias (output_size)`.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(
        input: View<'a, T, 2>,
        weight: View<'a, T, 2>,
        bias: Option<View<'a, T, 1>>,
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
    pub fn forward(&self, output: ViewMut<'_, T, 2>, team: &dyn Team) -> Result<()> {
        self.activated(self.activation, output, team)
    }

    /// Computes the output as if the layer ended with `activation`.
    pub(super) fn activated(
        &self,
        activation: Activation,
        output: ViewMut<'_, T, 2>,
        team: &dyn Team,
    ) -> Result<()> {
        // A bias is short beside the product; contiguous, it is loaded as vectors.
        let bias: Vec<T> = self
            .bias
            .map(|bias| (0..bias.shape()[0]).map(|unit| bias.get([unit])).collect())
            .unwrap_or_default();
        let product = Matmul {
            a: self.input,
            b: self.weight.transpose(),
            c: output,
            start: Start::Zero,
            epilogue: AddBiasAndActivate { bias, activation },
        };
        matmul(product, team)
    }
}

struct AddBiasAndActivate<T> {
    /// Empty for none.
    bias: Vec<T>,
    activation: Activation,
}

impl<T: Elementary> ColumnEpilogue<T> for AddBiasAndActivate<T> {
    #[inline(always)]
    fn apply<I: Lanes<T>>(
        &self,
        isa: I,
        _row: usize,
        column: usize,
        product: I::Vector,
    ) -> I::Vector {
        let bias = isa.load_first(self.bias.get(column..).unwrap_or_default());
        self.activation.apply(isa, isa.add(product, bias))
    }
}
