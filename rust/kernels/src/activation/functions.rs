//! Each activation as a type, with its derivative.

use fusewire_simd::Lanes;

use super::elementwise::Pointwise;
use crate::math::{
    Elementary, gelu, gelu_derivative, gelu_tanh, gelu_tanh_derivative, relu, sigmoid, silu,
    silu_derivative, tanh,
};

/// Types named like the activations: of a number `x`, and of what the derivative follows from, `saved`,
/// and the gradient of the output, `outer`.
macro_rules! functions {
    ($($name:ident: |$isa:ident, $x:ident| $value:expr, |$saved:ident, $outer:ident| $slope:expr;)*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl<T: Elementary> Pointwise<T, 1> for $name {
            #[inline(always)]
            fn of<I: Lanes<T>>(self, $isa: I, [$x]: [I::Vector; 1]) -> I::Vector {
                let _ = $isa;
                $value
            }
        }

        impl<T: Elementary> Pointwise<T, 2> for $name {
            #[inline(always)]
            fn of<I: Lanes<T>>(self, $isa: I, [$saved, $outer]: [I::Vector; 2]) -> I::Vector {
                let _ = ($isa, $saved);
                $slope
            }
        }
    )*};
}

functions! {
    Identity: |isa, x| x, |saved, outer| outer;
    Gelu: |isa, x| gelu(isa, x), |saved, outer| isa.mul(outer, gelu_derivative(isa, saved));
    GeluTanh: |isa, x| gelu_tanh(isa, x),
        |saved, outer| isa.mul(outer, gelu_tanh_derivative(isa, saved));
    // Selected, not multiplied: an infinite gradient of a closed gate is 0.
    Relu: |isa, x| relu(isa, x),
        |saved, outer| isa.select(isa.less(isa.zero(), saved), outer, isa.zero());
    Sigmoid: |isa, x| sigmoid(isa, x),
        |saved, outer| isa.mul(outer, isa.mul(saved, isa.sub(isa.splat(T::ONE), saved)));
    Silu: |isa, x| silu(isa, x), |saved, outer| isa.mul(outer, silu_derivative(isa, saved));
    Tanh: |isa, x| tanh(isa, x),
        |saved, outer| isa.mul(outer, isa.neg_mul_add(saved, saved, isa.splat(T::ONE)));
}
