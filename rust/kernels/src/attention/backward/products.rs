//! The gradients of queries, keys and values from those of the products.

use fusewire_simd::{Element, Storage};

use super::block::{Consumer, Piece};
use super::elementwise::Wanted;
use crate::Result;
use crate::attention::ahead::Ahead;
use crate::attention::operand::deep;
use crate::gemm::{Start, multiply_in_chains, stored_factors};
use crate::math::Elementary;
use crate::view::{View, ViewMut};

/// Adds `dV += Pᵀ·dO`, `dK += dSᵀ·Q`, `dQ += dS·K`; rows of all are contiguous, and a gradient that is
/// not wanted has no columns.
pub(super) struct Products<'a, E: Element> {
    /// The queries of the block, factors along them.
    pub(super) query: View<'a, E::Factor, 2>,
    /// The gradients of the block's output, factors along the queries.
    pub(super) upstream: View<'a, E::Factor, 2>,
    /// The keys, factors along them.
    pub(super) key: View<'a, E::Factor, 2>,
    /// Terms that are summed one after the other.
    pub(super) chain: usize,
    pub(super) query_gradient: ViewMut<'a, E::Real, 2>,
    pub(super) key_gradient: ViewMut<'a, E::Real, 2>,
    pub(super) value_gradient: ViewMut<'a, E::Real, 2>,
}

impl<E: Element<Real: Elementary>> Consumer<E> for Products<'_, E> {
    #[inline(always)]
    fn wanted(&self) -> Wanted {
        let columns = self.query_gradient.columns() + self.key_gradient.columns();
        if columns > 0 { Wanted::OfProducts } else { Wanted::Nothing }
    }

    #[inline(always)]
    fn take<I: Storage<E>>(
        &mut self,
        isa: I,
        piece: Piece<'_, E::Real>,
        ahead: &mut Ahead,
    ) -> Result<()> {
        let Piece { keys, queries, powers, slopes, joined } = piece;
        let add = Start::Accumulate;
        let (block, depth) = (deep::<E>(queries.clone()), deep::<E>(0..queries.len()));
        if self.value_gradient.columns() > 0 {
            let a = stored_factors(powers).slice(1, depth.clone());
            let b = self.upstream.slice(0, block.clone());
            let c = self.value_gradient.reborrow().slice(0, keys.clone());
            multiply_in_chains::<E, _, _>(isa, a, b, c, add, self.chain, ahead);
        }
        if self.key_gradient.columns() > 0 {
            let a = stored_factors(slopes).slice(1, depth);
            let b = self.query.slice(0, block);
            let c = self.key_gradient.reborrow().slice(0, keys.clone());
            multiply_in_chains::<E, _, _>(isa, a, b, c, add, self.chain, ahead);
        }
        if self.query_gradient.columns() > 0 {
            let a = stored_factors(joined).slice(1, 0..queries.len()).transpose();
            let b = self.key.slice(0, deep::<E>(keys));
            let c = self.query_gradient.reborrow().slice(0, queries);
            multiply_in_chains::<E, _, _>(isa, a, b, c, add, self.chain, ahead);
        }
        Ok(())
    }
}
