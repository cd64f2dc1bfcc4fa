//! What the backward passes need of each query: `δ = rowsum(dO ∘ O) − dLSE`, and the logarithm.

use fusewire_simd::{Element, Kernel, Real, Storage};

use super::Pass;
use crate::Result;
use crate::attention::tile::Place;
use crate::gemm::{Scales, copy_transposed};
use crate::view::{View, ViewMut};

/// Adds `rowsum(dO ∘ O)` to what is there; one function, because several passes do.
pub(super) struct Deltas<'a, E: Element> {
    pub(super) pass: &'a Pass<'a, E>,
    pub(super) place: &'a Place,
    pub(super) delta: &'a mut [E::Real],
}

impl<E: Element> Kernel<E> for Deltas<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { pass, place, delta } = self;
        let sequences = &pass.attention.sequences;
        let output = sequences.of_block(pass.saved.output, place);
        let gradient = sequences.of_block(pass.upstream.output, place);
        let plain = output.has_unit_columns() && gradient.has_unit_columns();
        // Products of one row in each row of a tile, whose transpose sums them for all rows at once.
        for (group, delta) in delta.chunks_exact_mut(I::LANES).enumerate() {
            let mut tiles = [[E::Real::ZERO; 256]; 2];
            let [products, turned] = &mut tiles;
            let first = group * I::LANES;
            let rows = first..place.queries.len().min(first + I::LANES);
            for (row, products) in rows.zip(products.chunks_exact_mut(I::LANES)) {
                if plain {
                    let (output, gradient) = (output.row(row), gradient.row(row));
                    let mut sum = isa.zero();
                    for column in (0..output.len()).step_by(I::LANES) {
                        let gradient = isa.read_first(&gradient[column..]);
                        sum = isa.mul_add(isa.read_first(&output[column..]), gradient, sum);
                    }
                    isa.store(products, sum);
                } else {
                    for column in 0..output.columns() {
                        let place = [row, column];
                        products[0] += output.get(place).to_real() * gradient.get(place).to_real();
                    }
                }
            }
            let shape = [I::LANES, I::LANES];
            let from = View::contiguous(&products[..I::LANES * I::LANES], shape)?;
            let to = ViewMut::contiguous(&mut turned[..I::LANES * I::LANES], shape)?;
            copy_transposed::<E::Real, E::Real, I>(isa, from, Scales::Absent, to);
            let mut sum = isa.load(delta);
            for part in turned.chunks_exact(I::LANES).take(I::LANES) {
                sum = isa.add(sum, isa.load(part));
            }
            isa.store(delta, sum);
        }
        Ok(())
    }
}

impl<E: Element> Pass<'_, E> {
    /// Writes `−dLSE`, with which δ begins; 0 behind the last query.
    #[inline(always)]
    pub(super) fn begin_deltas(&self, place: &Place, delta: &mut [E::Real]) {
        delta.fill(E::Real::ZERO);
        let Some(gradient) = self.upstream.lse else { return };
        let head = [place.sequence, place.head];
        let gradient = self.attention.sequences.of_lse(gradient, head);
        for (query, to) in place.queries.clone().zip(delta) {
            *to = -gradient.get([query]);
        }
    }

    /// Writes the logarithms, ∞ where there is no key or no query.
    #[inline(always)]
    pub(super) fn write_lse(&self, place: &Place, lse: &mut [E::Real]) {
        let head = [place.sequence, place.head];
        let saved = self.attention.sequences.of_lse(self.saved.lse, head);
        lse.fill(-E::Real::NEG_INFINITY);
        for (query, to) in place.queries.clone().zip(lse) {
            let from = saved.get([query]);
            if from != E::Real::NEG_INFINITY {
                *to = from;
            }
        }
    }
}
