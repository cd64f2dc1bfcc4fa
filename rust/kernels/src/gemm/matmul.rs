//! The whole product: which way is the quickest for its operands.

use fusewire_simd::Element;

use super::around::Start;
use super::cache_blocks::{Matmul, Product};
use super::epilogue::ColumnEpilogue;
use super::few_rows::{self, FewRows};
use super::turned::{self, turned};
use crate::parallel::{Serial, Team};
use crate::{Error, Result};

/// Multiply-adds below which the calling thread works alone: about 10 µs, what a team costs to call.
const WORTH_A_TEAM: usize = 1 << 21;

/// Computes a matrix product on a team of threads.
///
/// Sums run along the depth in blocks of fixed size, so results do not depend on the team.
///
/// # Errors
/// If the shapes do not fit together, or rows of `c` are not contiguous.
pub fn matmul<E: Element, F: ColumnEpilogue<E::Real>>(
    product: Matmul<'_, E, F>,
    team: &dyn Team,
) -> Result<()> {
    let Matmul { a, b, ref c, start, .. } = product;
    if a.columns() != b.rows() {
        return Err(Error::shape("the right operand", &[a.columns(), b.columns()], &b.shape()));
    }
    if c.shape() != [a.rows(), b.columns()] {
        return Err(Error::shape("the product", &[a.rows(), b.columns()], &c.shape()));
    }
    if !c.has_unit_columns() {
        return Err(Error::Value("the product's rows must be contiguous".into()));
    }
    let work = a.rows().saturating_mul(a.columns()).saturating_mul(b.columns());
    let team = if work < WORTH_A_TEAM { &Serial } else { team };
    let turns = start == Start::Zero && turned::pays(a, b);
    let reads_rows = a.has_unit_columns() && b.transpose().has_unit_columns();
    if turns {
        turned(product, team)
    } else if a.rows() <= few_rows::MOST && reads_rows && start == Start::Zero {
        E::dispatch(FewRows { a, b: b.transpose(), c: product.c, epilogue: product.epilogue, team })
    } else {
        E::dispatch(Product { product, team })
    }
}
