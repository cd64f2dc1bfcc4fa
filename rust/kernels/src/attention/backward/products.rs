//! The gradients of queries, keys and values from those of the products.

use fusewire_simd::{Lanes, Real};

use super::block::{Consumer, Piece};
use crate::attention::ahead::Ahead;
use crate::gemm::{Start, multiply_block};
use crate::math::Elementary;
use crate::view::{View, ViewMut};

/// Adds `dV += Pᵀ·dO`, `dK += dSᵀ·Q`, `dQ += dS·K`; rows of all are contiguous, and a gradient that is
/// not wanted has no columns.
pub(super) struct Products<'a, T: Real> {
    /// The queries of the block.
    pub(super) query: View<'a, T, 2>,
    /// The gradients of the block's output.
    pub(super) upstream: View<'a, T, 2>,
    /// The keys.
    pub(super) key: View<'a, T, 2>,
    pub(super) query_gradient: ViewMut<'a, T, 2>,
    pub(super) key_gradient: ViewMut<'a, T, 2>,
    pub(super) value_gradient: ViewMut<'a, T, 2>,
}

impl<T: Elementary> Consumer<T> for Products<'_, T> {
    const OF_PRODUCTS: bool = true;

    #[inline(always)]
    fn wants_slopes(&self) -> bool {
        self.query_gradient.columns() + self.key_gradient.columns() > 0
    }

    #[inline(always)]
    fn take<I: Lanes<T>>(&mut self, isa: I, piece: &Piece<'_, T>, ahead: &mut Ahead<T>) {
        let Piece { keys, queries, powers, slopes } = piece;
        let add = Start::Accumulate;
        if self.value_gradient.columns() > 0 {
            let b = self.upstream.slice(0, queries.clone());
            let c = self.value_gradient.reborrow().slice(0, keys.clone());
            multiply_block::<T, _, _>(isa, *powers, b, c, add, ahead);
        }
        if self.key_gradient.columns() > 0 {
            let b = self.query.slice(0, queries.clone());
            let c = self.key_gradient.reborrow().slice(0, keys.clone());
            multiply_block::<T, _, _>(isa, *slopes, b, c, add, ahead);
        }
        if self.query_gradient.columns() > 0 {
            let b = self.key.slice(0, keys.clone());
            let c = self.query_gradient.reborrow().slice(0, queries.clone());
            multiply_block::<T, _, _>(isa, slopes.transpose(), b, c, add, ahead);
        }
    }
}
