//! The whole product: cache blocks, packing and threads around [`multiply_block`].

use fusewire_simd::{Kernel, Lanes, Real};

use super::block::multiply_block;
use super::epilogue::{Epilogue, NoEpilogue, Start};
use super::pack::copy_rows;
use crate::parallel::{Serial, Team, for_each_part, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Depth of a cache block: a panel of B that deep, and a tile of A, stay near the core.
const DEPTH: usize = 384;
/// Products summed in one chain: rounding grows with the length of a chain, not with the depth.
const CHAIN: usize = 128;
/// Rows of a cache block: that much of A, packed, takes about half of a second-level cache.
const ROWS: usize = 192;
/// Columns that a thread works off at a time.
const COLUMNS: usize = 512;
/// Columns packed at a time, so that packed B is bounded however wide it is.
const PACKED_COLUMNS: usize = 4096;
/// Columns of a panel, for any instruction set: a multiple of every vector's lanes.
const PANEL: usize = 32;
/// Multiply-adds below which the calling thread works alone: about 10 µs, what a team costs to call.
const WORTH_A_TEAM: usize = 1 << 21;
/// Numbers between the rows of packed A, beyond its depth: rows must not fall into the same sets.
const PADDING: usize = 16;

/// What happens to columns of the finished product while they are in registers.
///
/// Unlike [`Epilogue`], it is shared by threads and told absolute positions.
pub trait ColumnEpilogue<T: Real>: Sync {
    /// The value to store at `row` and the columns from `column` on, given the product there.
    fn apply<I: Lanes<T>>(
        &self,
        isa: I,
        row: usize,
        column: usize,
        product: I::Vector,
    ) -> I::Vector;
}

impl<T: Real> ColumnEpilogue<T> for NoEpilogue {
    #[inline(always)]
    fn apply<I: Lanes<T>>(&self, _: I, _: usize, _: usize, product: I::Vector) -> I::Vector {
        product
    }
}

/// `C (+)= A · B` and what is fused behind it; a transposed operand is a view with swapped strides.
pub struct Matmul<'a, T: Real, E> {
    /// The left operand, `(rows, depth)`.
    pub a: View<'a, T, 2>,
    /// The right operand, `(depth, columns)`.
    pub b: View<'a, T, 2>,
    /// The product, `(rows, columns)`, with contiguous rows.
    pub c: ViewMut<'a, T, 2>,
    /// What the product is added to.
    pub start: Start,
    /// What happens to the product before it is stored.
    pub epilogue: E,
}

/// Computes a matrix product on a team of threads.
///
/// Sums run along the depth in blocks of fixed size, so results do not depend on the team.
///
/// # Errors
/// If the shapes do not fit together, or rows of `c` are not contiguous.
pub fn matmul<T: Real, E: ColumnEpilogue<T>>(
    product: Matmul<'_, T, E>,
    team: &dyn Team,
) -> Result<()> {
    let Matmul { a, b, ref c, .. } = product;
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
    T::dispatch(Product { product, team })
}

struct Product<'a, T: Real, E> {
    product: Matmul<'a, T, E>,
    team: &'a dyn Team,
}

impl<T: Real, E: ColumnEpilogue<T>> Kernel<T> for Product<'_, T, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Matmul { a, b, mut c, start, epilogue } = self.product;
        let depths = a.columns().div_ceil(DEPTH).max(1);
        for first in (0..b.columns()).step_by(PACKED_COLUMNS) {
            let columns = first..b.columns().min(first + PACKED_COLUMNS);
            for depth in 0..depths {
                let range = depth * DEPTH..a.columns().min((depth + 1) * DEPTH);
                let panels = Panels::pack(
                    isa,
                    b.slice(0, range.clone()).slice(1, columns.clone()),
                    a.rows(),
                    self.team,
                )?;
                let step = Step {
                    a: a.slice(1, range),
                    panels: &panels,
                    start: if depth == 0 { start } else { Start::Accumulate },
                    finished: (depth + 1 == depths).then_some(&epilogue),
                    first_column: columns.start,
                };
                step.run(isa, c.reborrow().slice(1, columns.clone()), self.team)?;
            }
        }
        Ok(())
    }
}

/// A depth block of B, ready for the block product.
enum Panels<'a, T: Real> {
    /// As it lies: too few rows of A to repay a copy.
    Plain(View<'a, T, 2>),
    /// Panels of `PANEL` columns one behind the other, each `(depth, PANEL)`.
    Packed { numbers: Scratch<T>, depth: usize, columns: usize },
}

struct PackPanel<'a, T> {
    source: View<'a, T, 2>,
    panel: ViewMut<'a, T, 2>,
}

impl<T: Real> Kernel<T> for PackPanel<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        let width = self.source.columns();
        copy_rows(isa, self.source, self.panel.slice(1, 0..width));
    }
}

impl<'a, T: Real> Panels<'a, T> {
    /// Rows of A below which B is read as it lies.
    const FEW_ROWS: usize = 24;

    #[inline(always)]
    fn pack<I: Lanes<T>>(isa: I, b: View<'a, T, 2>, rows: usize, team: &dyn Team) -> Result<Self> {
        if b.has_unit_columns() && rows < Self::FEW_ROWS {
            return Ok(Self::Plain(b));
        }
        let [depth, columns] = b.shape();
        let panels = columns.div_ceil(PANEL);
        let mut numbers = Scratch::take(panels * PANEL * depth)?;
        let target = ViewMut::contiguous(&mut numbers, [panels, depth, PANEL])?;
        if depth > 0 {
            for_each_part(team, target.blocks([1, depth, PANEL]), |index, panel| {
                let range = index * PANEL..columns.min((index + 1) * PANEL);
                isa.vectorize(PackPanel { source: b.slice(1, range), panel: panel.inner([0]) });
            });
        }
        Ok(Self::Packed { numbers, depth, columns })
    }

    /// The columns from `column` on, as wide as they lie together, and their number.
    #[inline(always)]
    fn columns_from(&self, column: usize, end: usize) -> Result<View<'_, T, 2>> {
        match self {
            Self::Plain(b) => Ok(b.slice(1, column..end)),
            Self::Packed { numbers, depth, columns } => {
                let panel = column / PANEL;
                let numbers = &numbers[panel * PANEL * depth..(panel + 1) * PANEL * depth];
                let width = PANEL.min(columns - column).min(end - column);
                Ok(View::contiguous(numbers, [*depth, PANEL])?.slice(1, 0..width))
            }
        }
    }
}

/// One depth block of the product.
struct Step<'a, T: Real, E> {
    a: View<'a, T, 2>,
    panels: &'a Panels<'a, T>,
    start: Start,
    /// The epilogue, behind the last depth block.
    finished: Option<&'a E>,
    first_column: usize,
}

impl<T: Real, E: ColumnEpilogue<T>> Step<'_, T, E> {
    #[inline(always)]
    fn run<I: Lanes<T>>(&self, isa: I, c: ViewMut<'_, T, 2>, team: &dyn Team) -> Result<()> {
        // Smaller blocks where the product has fewer of them than the team has threads.
        let crowd = |size: usize, whole: usize| size.min(whole.div_ceil(team.threads()).max(PANEL));
        let (rows, columns) = (c.rows(), c.columns());
        let block = if rows >= columns {
            [crowd(ROWS, rows), COLUMNS]
        } else {
            [ROWS, crowd(COLUMNS, columns).next_multiple_of(PANEL)]
        };
        let blocks = c.blocks(block);
        let grid_columns = columns.div_ceil(block[1]);
        try_for_each_part(team, blocks, |index, part| {
            let place = [index / grid_columns * block[0], index % grid_columns * block[1]];
            isa.vectorize(StepBlock { step: self, place, c: part })
        })
    }
}

/// One block of C in one depth block: what a thread does at a time.
struct StepBlock<'a, 'b, T: Real, E> {
    step: &'a Step<'b, T, E>,
    place: [usize; 2],
    c: ViewMut<'a, T, 2>,
}

struct Finish<'a, E> {
    epilogue: &'a E,
    place: [usize; 2],
}

impl<T: Real, E: ColumnEpilogue<T>> Epilogue<T> for Finish<'_, E> {
    #[inline(always)]
    fn apply<I: Lanes<T>>(
        &mut self,
        isa: I,
        row: usize,
        column: usize,
        product: I::Vector,
    ) -> I::Vector {
        self.epilogue.apply(isa, self.place[0] + row, self.place[1] + column, product)
    }
}

impl<T: Real, E: ColumnEpilogue<T>> Kernel<T> for StepBlock<'_, '_, T, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) -> Result<()> {
        let Self { step, place: [row, column], mut c } = self;
        let a = step.a.slice(0, row..row + c.rows());
        let (rows, depth) = (c.rows(), a.columns());
        // A transposed operand is copied as it lies: broadcasts do not care, and no number is moved.
        let transposed = a.strides()[0] == 1;
        let lies = if transposed { a.transpose() } else { a };
        let stride = lies.columns() + PADDING;
        let mut packed =
            Scratch::take(if c.columns() > PANEL && rows > 1 { lies.rows() * stride } else { 0 })?;
        let a = if packed.is_empty() {
            a
        } else {
            let shape = [lies.rows(), stride];
            let target = ViewMut::contiguous(&mut packed, shape)?.slice(1, 0..lies.columns());
            copy_rows(isa, lies, target);
            let copied = View::contiguous(&packed, shape)?.slice(1, 0..lies.columns());
            if transposed { copied.transpose() } else { copied }
        };
        let mut done = 0;
        while done < c.columns() {
            let b = step.panels.columns_from(column + done, column + c.columns())?;
            let columns = done..done + b.columns();
            let mut target = c.reborrow().slice(1, columns.clone());
            for first in (0..depth.max(1)).step_by(CHAIN) {
                let range = first..depth.min(first + CHAIN);
                let (a, b) = (a.slice(1, range.clone()), b.slice(0, range.clone()));
                let start = if first == 0 { step.start } else { Start::Accumulate };
                let target = target.reborrow();
                match step.finished.filter(|_| range.end == depth) {
                    Some(epilogue) => {
                        let place = [row, step.first_column + column + done];
                        let mut finish = Finish { epilogue, place };
                        multiply_block::<T, _, _>(isa, a, b, target, start, &mut finish);
                    }
                    None => multiply_block::<T, _, _>(isa, a, b, target, start, &mut NoEpilogue),
                }
            }
            done = columns.end;
        }
        Ok(())
    }
}
