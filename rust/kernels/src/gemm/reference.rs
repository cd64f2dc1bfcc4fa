//! The matrix product as it is defined, in float64.

use fusewire_simd::Real;

use crate::view::View;

/// `A · B`, contiguous.
pub fn matmul<T: Real>(a: View<'_, T, 2>, b: View<'_, T, 2>) -> Vec<f64> {
    let mut c = Vec::with_capacity(a.rows() * b.columns());
    for row in 0..a.rows() {
        for column in 0..b.columns() {
            let products =
                (0..a.columns()).map(|k| a.get([row, k]).to_f64() * b.get([k, column]).to_f64());
            c.push(products.sum());
        }
    }
    c
}
