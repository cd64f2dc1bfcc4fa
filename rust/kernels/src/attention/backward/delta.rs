//! What the backward passes need of each query: `δ = rowsum(dO ∘ O) − dLSE`, and the logarithm.

use fusewire_simd::{Lanes, Real};

use super::Pass;
use crate::Result;
use crate::attention::score::Place;
use crate::gemm::{Scales, copy_transposed};
use crate::view::{View, ViewMut};

impl<T: Real> Pass<'_, T> {
    /// Writes `factor · δ`, 0 behind the last query.
    #[inline(always)]
    pub(super) fn write_delta<I: Lanes<T>>(
        &self,
        isa: I,
        place: &Place,
        factor: T,
        delta: &mut [T],
    ) -> Result<()> {
        let sequences = &self.attention.sequences;
        let output = sequences.of_block(self.saved.output, place);
        let gradient = sequences.of_block(self.upstream.output, place);
        let lse = self.upstream.lse;
        let lse = lse.map(|lse| sequences.of_lse(lse, [place.sequence, place.head]));
        let plain = output.has_unit_columns() && gradient.has_unit_columns();
        // Products of one row in each row of a tile, whose transpose sums them for all rows at once.
        for (group, delta) in delta.chunks_exact_mut(I::LANES).enumerate() {
            let mut tiles = [[T::ZERO; 256]; 2];
            let [products, turned] = &mut tiles;
            let first = group * I::LANES;
            let rows = first..place.queries.len().min(first + I::LANES);
            for (row, products) in rows.clone().zip(products.chunks_exact_mut(I::LANES)) {
                if plain {
                    let parts =
                        output.row(row).chunks(I::LANES).zip(gradient.row(row).chunks(I::LANES));
                    let mut sum = isa.zero();
                    for (output, gradient) in parts {
                        sum = isa.mul_add(isa.load_first(output), isa.load_first(gradient), sum);
                    }
                    isa.store(products, sum);
                } else {
                    for column in 0..output.columns() {
                        products[0] += output.get([row, column]) * gradient.get([row, column]);
                    }
                }
            }
            let shape = [I::LANES, I::LANES];
            let from = View::contiguous(&products[..I::LANES * I::LANES], shape)?;
            let to = ViewMut::contiguous(&mut turned[..I::LANES * I::LANES], shape)?;
            copy_transposed(isa, from, Scales::Absent, to);
            let mut sum = isa.zero();
            for part in turned.chunks_exact(I::LANES).take(I::LANES) {
                sum = isa.add(sum, isa.load(part));
            }
            if let Some(lse) = lse {
                let mut gradients = [T::ZERO; 16];
                for (row, to) in rows.zip(&mut gradients) {
                    *to = lse.get([place.queries.start + row]);
                }
                sum = isa.sub(sum, isa.load(&gradients));
            }
            isa.store(delta, isa.mul(sum, isa.splat(factor)));
        }
        Ok(())
    }

    /// Writes the logarithms, ∞ where there is no key or no query.
    #[inline(always)]
    pub(super) fn write_lse(&self, place: &Place, lse: &mut [T]) {
        let head = [place.sequence, place.head];
        let saved = self.attention.sequences.of_lse(self.saved.lse, head);
        lse.fill(-T::NEG_INFINITY);
        for (query, to) in place.queries.clone().zip(lse) {
            let from = saved.get([query]);
            if from != T::NEG_INFINITY {
                *to = from;
            }
        }
    }
}
