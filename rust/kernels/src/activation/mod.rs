//! Activations, by themselves and behind linear layers.

mod elementwise;

use std::str::FromStr;

use fusewire_simd::{Element, Lanes};

pub(crate) use self::elementwise::{Compute, Pointwise};
use crate::math::{
    Elementary, gelu, gelu_derivative, gelu_tanh, gelu_tanh_derivative, relu, sigmoid, silu,
    silu_derivative, tanh,
};
use crate::parallel::Team;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// A function applied to each number.
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
}

impl<T: Elementary> Pointwise<T, 1> for Activation {
    #[inline(always)]
    fn of<I: Lanes<T>>(self, isa: I, [x]: [I::Vector; 1]) -> I::Vector {
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
}

/// The gradient of what goes into an activation, from what its derivative
/// [follows from](Activation::needs) and the gradient of the output.
#[derive(Clone, Copy)]
struct Derivative(Activation);

impl<T: Elementary> Pointwise<T, 2> for Derivative {
    #[inline(always)]
    fn of<I: Lanes<T>>(self, isa: I, [saved, grad_output]: [I::Vector; 2]) -> I::Vector {
        let one = isa.splat(T::ONE);
        match self.0 {
            Activation::Identity => grad_output,
            Activation::Gelu => isa.mul(grad_output, gelu_derivative(isa, saved)),
            Activation::GeluTanh => isa.mul(grad_output, gelu_tanh_derivative(isa, saved)),
            // Selected, not multiplied: an infinite gradient of a closed gate is 0.
            Activation::Relu => isa.select(isa.less(isa.zero(), saved), grad_output, isa.zero()),
            Activation::Sigmoid => isa.mul(grad_output, isa.mul(saved, isa.sub(one, saved))),
            Activation::Silu => isa.mul(grad_output, silu_derivative(isa, saved)),
            Activation::Tanh => isa.mul(grad_output, isa.neg_mul_add(saved, saved, one)),
        }
    }
}

/// Writes the activation of `input` to `output`.
///
/// # Errors
/// If their shapes differ.
pub fn activate<E: Element<Real: Elementary>>(
    activation: Activation,
    input: View<'_, E, 2>,
    output: ViewMut<'_, E, 2>,
    team: &dyn Team,
) -> Result<()> {
    if output.shape() != input.shape() {
        return Err(Error::shape("output", &input.shape(), &output.shape()));
    }
    elementwise::map(activation, [input], output, team);
    Ok(())
}

/// Writes to `grad_input` the gradient of what went into an activation, given `grad_output`, that of
/// what came out, and `saved`, what the derivative [follows from](Activation::needs).
///
/// # Errors
/// If their shapes differ.
pub fn activate_backward<E: Element<Real: Elementary>>(
    activation: Activation,
    grad_output: View<'_, E, 2>,
    saved: View<'_, E, 2>,
    grad_input: ViewMut<'_, E, 2>,
    team: &dyn Team,
) -> Result<()> {
    let shape = grad_output.shape();
    for (name, got) in [("saved", saved.shape()), ("grad_input", grad_input.shape())] {
        if got != shape {
            return Err(Error::shape(name, &shape, &got));
        }
    }
    elementwise::map(Derivative(activation), [saved, grad_output], grad_input, team);
    Ok(())
}

#[cfg(test)]
mod tests;
