//! What a linear layer may end with.

use std::str::FromStr;

use fusewire_simd::Lanes;

use crate::math::{
    Elementary, gelu, gelu_derivative, gelu_tanh, gelu_tanh_derivative, relu, sigmoid, silu,
    silu_derivative, tanh,
};
use crate::{Error, Result};

/// A function applied to each output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `x · Φ(x)`, with the normal distribution's Φ.
    Gelu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, near [`Self::Gelu`].
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `x · sigmoid(x)`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// What the derivative of an activation follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it is 1.
    Nothing,
    /// What came out.
    Output,
    /// What went in.
    Input,
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "identity" => Ok(Self::Identity),
            "gelu" => Ok(Self::Gelu),
            "gelu_tanh" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            "sigmoid" => Ok(Self::Sigmoid),
            "silu" => Ok(Self::Silu),
            "tanh" => Ok(Self::Tanh),
            _ => Err(Error::Value(format!(
                "activation must be None, \"gelu\", \"gelu_tanh\", \"relu\", \"sigmoid\", \"silu\" or \
                 \"tanh\", but is {name:?}"
            ))),
        }
    }
}

impl Activation {
    /// What the derivative follows from.
    pub fn needs(self) -> Needs {
        match self {
            Self::Identity => Needs::Nothing,
            Self::Relu | Self::Sigmoid | Self::Tanh => Needs::Output,
            Self::Gelu | Self::GeluTanh | Self::Silu => Needs::Input,
        }
    }

    /// The activation of `x`.
    #[inline(always)]
    pub fn apply<T: Elementary, I: Lanes<T>>(self, isa: I, x: I::Vector) -> I::Vector {
        match self {
            Self::Identity => x,
            Self::Gelu => gelu(isa, x),
            Self::GeluTanh => gelu_tanh(isa, x),
            Self::Relu => relu(isa, x),
            Self::Sigmoid => sigmoid(isa, x),
            Self::Silu => silu(isa, x),
            Self::Tanh => tanh(isa, x),
        }
    }

    /// The gradient of what went in, given the output's gradient and `saved`, what the
    /// activation [needs](Self::needs).
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
            Self::Gelu => isa.mul(grad_output, gelu_derivative(isa, saved)),
            Self::GeluTanh => isa.mul(grad_output, gelu_tanh_derivative(isa, saved)),
            // Selected, not multiplied: an infinite gradient of a closed gate is 0.
            Self::Relu => isa.select(isa.less(isa.zero(), saved), grad_output, isa.zero()),
            Self::Sigmoid => isa.mul(grad_output, isa.mul(saved, isa.sub(one, saved))),
            Self::Silu => isa.mul(grad_output, silu_derivative(isa, saved)),
            Self::Tanh => isa.mul(grad_output, isa.neg_mul_add(saved, saved, one)),
        }
    }
}
