//! What a linear layer may end with.

use std::str::FromStr;

use fusewire_simd::Lanes;

use crate::math::{Elementary, relu, sigmoid, silu, silu_derivative, tanh};
use crate::{Error, Result};

/// A function applied to each output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `x · sigmoid(x)`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "identity" => Ok(Self::Identity),
            "relu" => Ok(Self::Relu),
            "sigmoid" => Ok(Self::Sigmoid),
            "silu" => Ok(Self::Silu),
            "tanh" => Ok(Self::Tanh),
            _ => Err(Error::Value(format!(
                "activation must be None, \"relu\", \"sigmoid\", \"silu\" or \"tanh\", but is {name:?}"
            ))),
        }
    }
}

impl Activation {
    /// Whether the derivative follows from the output; otherwise it needs what went in.
    pub fn differentiates_output(self) -> bool {
        matches!(self, Self::Relu | Self::Sigmoid | Self::Tanh)
    }

    /// The activation of `x`.
    #[inline(always)]
    pub fn apply<T: Elementary, I: Lanes<T>>(self, isa: I, x: I::Vector) -> I::Vector {
        match self {
            Self::Identity => x,
            Self::Relu => relu(isa, x),
            Self::Sigmoid => sigmoid(isa, x),
            Self::Silu => silu(isa, x),
            Self::Tanh => tanh(isa, x),
        }
    }

    /// The gradient of what went in, given the output's gradient and `saved`: the output where
    /// [`Self::differentiates_output`], else what went in.
    #[inline(always)]
    pub fn gradient<T: Elementary, I: Lanes<T>>(
        self,
        isa: I,
        saved: I::Vector,
        grad_output: I::Vector,
    ) -> I::Vector {
        let one = isa.splat(T::ONE);
        match self {
            Self::Identity => grad_output,
            // Selected, not multiplied: an infinite gradient of a closed gate is 0.
            Self::Relu => isa.select(isa.less(isa.zero(), saved), grad_output, isa.zero()),
            Self::Sigmoid => isa.mul(grad_output, isa.mul(saved, isa.sub(one, saved))),
            Self::Silu => isa.mul(grad_output, silu_derivative(isa, saved)),
            Self::Tanh => isa.mul(grad_output, isa.neg_mul_add(saved, saved, one)),
        }
    }
}
