//! Activations, by themselves and behind linear layers.

mod elementwise;
mod functions;

use std::str::FromStr;

use fusewire_simd::{Element, Storage};

use self::elementwise::{Compute, Function, InPlace};
use crate::math::Elementary;
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

/// Runs a block that is compiled for each activation by itself, with `$function` its type's value:
/// a loop that asked for each vector what to compute would keep nothing in registers.
macro_rules! for_function {
    ($activation:expr, $function:ident => $block:expr) => {
        match $activation {
            Activation::Identity => for_function!(@ functions::Identity, $function, $block),
            Activation::Gelu => for_function!(@ functions::Gelu, $function, $block),
            Activation::GeluTanh => for_function!(@ functions::GeluTanh, $function, $block),
            Activation::Relu => for_function!(@ functions::Relu, $function, $block),
            Activation::Sigmoid => for_function!(@ functions::Sigmoid, $function, $block),
            Activation::Silu => for_function!(@ functions::Silu, $function, $block),
            Activation::Tanh => for_function!(@ functions::Tanh, $function, $block),
        }
    };
    (@ $value:expr, $function:ident, $block:expr) => {{
        let $function = $value;
        $block
    }};
}

impl Activation {
    /// Applies the activation to numbers in their place.
    #[inline(always)]
    pub(crate) fn apply<T: Elementary, I: Storage<T>>(self, isa: I, numbers: &mut [T]) {
        for_function!(self, function => isa.vectorize(InPlace { function, numbers }));
    }
}

impl<E: Element<Real: Elementary>> Function<E, 1> for Activation {
    #[inline(always)]
    fn compute<I: Storage<E>>(self, isa: I, sources: [&[E]; 1], target: &mut [E]) {
        for_function!(self, function => isa.vectorize(Compute { function, sources, target }));
    }
}

/// The gradient of what goes into an activation, from what its derivative
/// [follows from](Activation::needs) and the gradient of the output.
#[derive(Clone, Copy)]
struct Derivative(Activation);

impl<E: Element<Real: Elementary>> Function<E, 2> for Derivative {
    #[inline(always)]
    fn compute<I: Storage<E>>(self, isa: I, sources: [&[E]; 2], target: &mut [E]) {
        for_function!(self.0, function => isa.vectorize(Compute { function, sources, target }));
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
