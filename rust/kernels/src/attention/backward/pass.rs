//! What every backward pass reads.

use fusewire_simd::Element;

use crate::Result;
use crate::attention::decode::Decode;
use crate::attention::forward::forward_by_tiles;
use crate::attention::params::Attention;
use crate::error::expect_shape;
use crate::gemm::singles;
use crate::math::Elementary;
use crate::parallel::Team;
use crate::scratch::Scratch;
use crate::view::{View, ViewMut, count};

/// What [`forward`](crate::attention::forward) computed.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, E: Element> {
    /// The output, `(batch, heads, query_len, value_dim)`.
    pub output: View<'a, E, 4>,
    /// The logarithms, `(batch, heads, query_len)`.
    pub lse: View<'a, E::Real, 3>,
}

/// The gradients of the results.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a, E: Element> {
    /// That of the output.
    pub output: View<'a, E, 4>,
    /// That of the logarithms, where they were used.
    pub lse: Option<View<'a, E::Real, 3>>,
}

/// What every backward pass reads.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a, E: Element> {
    /// The operands.
    pub attention: &'a Attention<'a, E>,
    /// The results.
    pub saved: Saved<'a, E>,
    /// The gradients of the results.
    pub upstream: Upstream<'a, E>,
}

impl<'a, E: Element> Pass<'a, E> {
    /// The same of [`Element::Single`], of which there is the `attention`.
    pub(super) fn single<'b>(&self, attention: &'b Attention<'a, E::Single>) -> Pass<'b, E::Single>
    where
        'a: 'b,
    {
        let Self { saved, upstream, .. } = *self;
        Pass {
            attention,
            saved: Saved { output: singles(saved.output), lse: saved.lse },
            upstream: Upstream { output: singles(upstream.output), lse: upstream.lse },
        }
    }

    /// # Errors
    /// If the shapes do not fit together.
    pub(super) fn check(&self) -> Result<()> {
        self.attention.check()?;
        let (output, lse) = (self.attention.output_shape(), self.attention.lse_shape());
        expect_shape("output", &output, &self.saved.output.shape())?;
        expect_shape("lse", &lse, &self.saved.lse.shape())?;
        expect_shape("the gradient of output", &output, &self.upstream.output.shape())?;
        self.upstream
            .lse
            .map_or(Ok(()), |gradient| expect_shape("the gradient of lse", &lse, &gradient.shape()))
    }
}

impl<E: Element<Real: Elementary>> Pass<'_, E> {
    /// Hands on a pass whose results were computed as the gradients' probabilities will be.
    ///
    /// A few queries are decoded, which sums scores in another order than tiles do. A probability of
    /// nearly 1 is one only beside the logarithm of the very same scores, and δ is what it should be
    /// only beside the output of the very same probabilities.
    pub(super) fn by_tiles(
        &self,
        team: &dyn Team,
        gradients: impl FnOnce(&Pass<'_, E>) -> Result<()>,
    ) -> Result<()> {
        let Self { attention, upstream, .. } = *self;
        if Decode::of(attention).is_none() {
            return gradients(self);
        }
        let shapes = (attention.output_shape(), attention.lse_shape());
        let mut output = Scratch::take(count::<E, 4>(shapes.0)?)?;
        let mut lse = Scratch::take(count::<E::Real, 3>(shapes.1)?)?;
        let results =
            (ViewMut::contiguous(&mut output, shapes.0)?, ViewMut::contiguous(&mut lse, shapes.1)?);
        forward_by_tiles(attention, results.0, results.1, team)?;
        let output = View::contiguous(&output, shapes.0)?;
        let saved = Saved { output, lse: View::contiguous(&lse, shapes.1)? };
        gradients(&Pass { attention, saved, upstream })
    }
}
