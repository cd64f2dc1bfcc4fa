//! Products with a matrix as it lies, row by row along the depth: too few rows to repay packing it.
#![allow(unsafe_code)]

use fusewire_simd::{Element, Factor, Kernel, Storage};

use super::around::Start;
use crate::view::{View, ViewMut};

/// Numbers of the widest vector.
const WIDEST: usize = 16;

/// Rows of A of the largest tile.
const MOST: usize = 4;

/// `C (+)= A · Bᵀ`, where the depth of both operands is contiguous, and columns of C come in groups:
/// the rows of B make the columns of the first group, then those of the second. A comes as factors.
///
/// Each number of `C` is a sum over lanes, then of the lanes, whatever block it is computed in.
///
/// # Panics
/// If the shapes do not fit together, or the depth or the columns of a group are not contiguous.
#[inline(always)]
pub fn multiply_rows<E: Element, I: Storage<E>>(
    isa: I,
    a: View<'_, E::Factor, 2>,
    b: View<'_, E, 2>,
    c: ViewMut<'_, E::Real, 3>,
    start: Start,
) {
    let [rows, groups, width] = c.shape();
    assert_eq!(a.rows(), rows, "C must have A's rows");
    assert!(b.rows() <= groups * width, "C must have a column for each row of B");
    let depth = b.columns().div_ceil(E::Factor::DEPTH);
    assert_eq!(a.columns(), depth, "A and B must be equally deep");
    assert!(a.has_unit_columns() && b.has_unit_columns() && c.has_unit_columns());
    isa.vectorize(Dots { a, b, c, start });
}

struct Dots<'a, E: Element> {
    a: View<'a, E::Factor, 2>,
    b: View<'a, E, 2>,
    c: ViewMut<'a, E::Real, 3>,
    start: Start,
}

impl<E: Element> Kernel<E> for Dots<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(mut self, isa: I) {
        let [rows, _, width] = self.c.shape();
        let mut column = 0;
        while column < self.b.rows() {
            let left = (width - column % width).min(self.b.rows() - column).min(I::LANES);
            // Columns outside, so that rows of B wait in the nearest cache for all rows of A.
            let mut row = 0;
            while row < rows {
                row += match rows - row {
                    1 => self.block::<I, 1, 1>(isa, row, column, left),
                    2 => self.block::<I, 2, 1>(isa, row, column, left),
                    3 => self.block::<I, 3, 1>(isa, row, column, left),
                    // As many sums as find room in registers.
                    _ if I::REGISTERS == 32 => self.block::<I, MOST, 4>(isa, row, column, left),
                    _ => self.block::<I, MOST, 2>(isa, row, column, left),
                };
            }
            column += left;
        }
    }
}

impl<E: Element> Dots<'_, E> {
    /// The products of `ROWS` rows of A with `columns` rows of B, at most a vector of one group, in tiles
    /// of `TOGETHER` rows of B; returns `ROWS`.
    #[inline(always)]
    fn block<I: Storage<E>, const ROWS: usize, const TOGETHER: usize>(
        &mut self,
        isa: I,
        row: usize,
        column: usize,
        columns: usize,
    ) -> usize {
        let mut left: [&[E::Factor]; ROWS] = [&[]; ROWS];
        for (offset, left) in left.iter_mut().enumerate() {
            *left = self.a.row(row + offset);
        }
        let mut sums = [[isa.zero(); WIDEST]; ROWS];
        let mut done = 0;
        // Fewer rows wait for memory, which comes fastest in order, one row of B after the other.
        while TOGETHER > 1 && done + TOGETHER <= columns {
            let mut right: [&[E]; TOGETHER] = [&[]; TOGETHER];
            let mut next = [self.b.as_ptr(); TOGETHER];
            for (offset, (right, next)) in right.iter_mut().zip(&mut next).enumerate() {
                *right = self.b.row(column + done + offset);
                // The same place in the next tile: B is read once, as fast as it comes.
                *next = right.as_ptr().wrapping_offset(TOGETHER as isize * self.b.strides()[0]);
            }
            let tile = dot_rows::<E, I, ROWS, TOGETHER>(isa, left, right, Next::Near(next));
            for (sums, tile) in sums.iter_mut().zip(tile) {
                sums[done..done + TOGETHER].copy_from_slice(&tile);
            }
            done += TOGETHER;
        }
        for done in done..columns {
            let right = [self.b.row(column + done)];
            let tile = dot_chains::<E, I, ROWS, 1, 2>(isa, left, right, Next::None);
            for (sums, [sum]) in sums.iter_mut().zip(tile) {
                sums[done] = sum;
            }
        }
        let width = self.c.shape()[2];
        for (i, sums) in sums.iter().enumerate() {
            let mut groups = self.c.reborrow().inner::<1, 2>([row + i]);
            let target = &mut groups.row_mut(column / width)[column % width..][..columns];
            let sum = isa.sum_each(&sums[..I::LANES]);
            let sum = match self.start {
                Start::Zero => sum,
                Start::Accumulate => isa.add(isa.load_first(target), sum),
            };
            isa.store_first(target, sum);
        }
        ROWS
    }
}

/// Rows that are fetched while others are multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Next<E, const COLUMNS: usize> {
    /// None.
    None,
    /// To the nearest cache.
    Near([*const E; COLUMNS]),
    /// From far away, to the second-level cache.
    Far([*const E; COLUMNS]),
}

/// The products of rows of factors with rows of numbers as they lie, of which the lanes are still to
/// be summed; as much of what lies at `next` is fetched meanwhile.
///
/// # Panics
/// If a row is shorter than the first of `right`.
#[inline(always)]
pub(crate) fn dot_rows<E: Element, I: Storage<E>, const ROWS: usize, const COLUMNS: usize>(
    isa: I,
    left: [&[E::Factor]; ROWS],
    right: [&[E]; COLUMNS],
    next: Next<E, COLUMNS>,
) -> [[I::Vector; COLUMNS]; ROWS] {
    dot_chains::<E, I, ROWS, COLUMNS, 1>(isa, left, right, next)
}

/// [`dot_rows`] in so many chains of additions: enough of them hide an addition's latency.
#[inline(always)]
fn dot_chains<
    E: Element,
    I: Storage<E>,
    const ROWS: usize,
    const COLUMNS: usize,
    const CHAINS: usize,
>(
    isa: I,
    left: [&[E::Factor]; ROWS],
    right: [&[E]; COLUMNS],
    next: Next<E, COLUMNS>,
) -> [[I::Vector; COLUMNS]; ROWS] {
    let depth = right[0].len();
    let factors = depth.div_ceil(E::Factor::DEPTH);
    for row in left {
        assert!(row.len() >= factors);
    }
    for row in right {
        assert!(row.len() >= depth);
    }
    let step = I::LANES * E::Factor::DEPTH;
    let mut chains = [[[isa.zero(); COLUMNS]; ROWS]; CHAINS];
    let mut at = 0;
    macro_rules! add_vectors {
        ($sums:expr) => {{
            let mut columns = [isa.zero(); COLUMNS];
            for (place, column) in columns.iter_mut().enumerate() {
                match next {
                    Next::None => {}
                    Next::Near(next) => isa.prefetch(next[place].wrapping_add(at).cast()),
                    Next::Far(next) => isa.prefetch_second(next[place].wrapping_add(at).cast()),
                }
                // SAFETY: the row has a whole vector of factors from `at` on, as was checked above.
                *column = unsafe {
                    let address = right[place].as_ptr().add(at);
                    if E::as_factors(&[]).is_some() {
                        isa.load_pointer(address.cast())
                    } else {
                        isa.read_pointer(address)
                    }
                };
            }
            for (sums, row) in $sums.iter_mut().zip(left) {
                let place = at / E::Factor::DEPTH;
                // SAFETY: as above; a factor is as large as a number.
                let row = unsafe { isa.load_pointer(row.as_ptr().add(place).cast()) };
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = isa.multiply_add(row, column, *sum);
                }
            }
            at += step;
        }};
    }
    while at + CHAINS * step <= depth {
        for sums in &mut chains {
            add_vectors!(sums);
        }
    }
    let [sums, others @ ..] = &mut chains[..] else { return [[isa.zero(); COLUMNS]; ROWS] };
    while at + step <= depth {
        add_vectors!(sums);
    }
    if at < depth {
        let mut columns = [isa.zero(); COLUMNS];
        for (column, row) in columns.iter_mut().zip(right) {
            *column = last_factors(isa, &row[at..depth]);
        }
        for (sums, row) in sums.iter_mut().zip(left) {
            let row = isa.load_factors(&row[at / E::Factor::DEPTH..factors]);
            for (sum, &column) in sums.iter_mut().zip(&columns) {
                *sum = isa.multiply_add(row, column, *sum);
            }
        }
    }
    for others in others {
        for (sums, others) in sums.iter_mut().zip(others) {
            for (sum, &other) in sums.iter_mut().zip(&*others) {
                *sum = isa.add(*sum, other);
            }
        }
    }
    *sums
}

/// The factors of less than a vector of numbers; 0 beyond.
#[inline(always)]
fn last_factors<E: Element, I: Storage<E>>(isa: I, numbers: &[E]) -> I::Vector {
    match E::as_factors(numbers) {
        Some(factors) if numbers.len().is_multiple_of(E::Factor::DEPTH) => {
            isa.load_factors(factors)
        }
        _ => {
            let mut last = [E::Factor::default(); WIDEST];
            for (last, numbers) in last.iter_mut().zip(numbers.chunks(E::Factor::DEPTH)) {
                *last = E::factor(numbers);
            }
            isa.load_factors(&last[..I::LANES])
        }
    }
}
