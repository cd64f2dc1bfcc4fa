//! A product by cache blocks: packing and threads around [`multiply_block`].

use std::ops::Range;

use fusewire_simd::{Element, Factor, Kernel, Storage};

use super::around::Start;
use super::block::{hold_tiles, multiplies_by_tiles, multiply_block, panel_columns};
use super::epilogue::{ColumnEpilogue, Finish};
use super::pack::{copy_columns, copy_rows, factors, sums_in_place};
use crate::Result;
use crate::parallel::{Serial, Team, for_each_part, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Rows and depth, in factors, of a cache block: that much of A takes a fifth of a second-level cache, and
/// a tile of it and a panel of B that deep stay near the core.
const BLOCK: [usize; 2] = [120, DEPTH];
/// The same where columns of A are contiguous: it is quick to read so much of each at a time.
const BLOCK_OF_COLUMNS: [usize; 2] = [360, CHAIN];
/// The most depth of a cache block.
const DEPTH: usize = 384;
/// Factors summed in one chain: rounding grows with the length of a chain, not with the depth. Matrix
/// tiles sum shorter ones by themselves.
const CHAIN: usize = 128;
/// The same for products narrower than this, which others compute as dot products, whose lanes are as
/// many short chains.
const NARROW: usize = 16;
const NARROW_CHAIN: usize = 8;
/// Columns that a thread works off at a time; with the rows above, their sums take half.
const COLUMNS: usize = 1024;
/// Factors of B packed at a time (8 MB of 32 bits each): they shall wait in the third-level cache.
const PACKED: usize = 2 << 20;
/// The fewest columns packed at a time, however deep: A is packed again for each such part.
const PACKED_COLUMNS: usize = 128;
/// Factors below which the calling thread packs alone: about 20 µs, twice what a team costs to call.
const WORTH_A_TEAM_TO_PACK: usize = 1 << 15;
/// The most columns of a panel: a multiple of every vector's lanes.
const PANEL: usize = 32;
/// Columns up to which it does not pay to copy rows of A that can be read as they lie.
const FEW_COLUMNS: usize = 5 * PANEL;
/// The same for columns of A that are so many bytes long or longer: lines of a few of them at a time,
/// apart as they are, throw one another out of a second-level cache.
const FEW_COLUMNS_APART: usize = 2 * PANEL;
const APART: usize = 1 << 19;
/// Columns of B whose panels are copied side by side, and rows of B at a time, where each row lies in a page
/// of its own, of so many bytes: one panel needs a line or two of it.
const BESIDE: usize = 256;
const PAGE: usize = 4096;
const ROWS_AT_ONCE: usize = 4;
/// Factors between the rows of packed A, beyond its depth: rows must not fall into the same sets.
const PADDING: usize = 16;
/// Bytes after which addresses fall into the same set of a first-level cache.
const ALIAS: usize = 4096;
/// Rows of a cache block are a multiple of this, if not all that there are.
const WHOLE_TILES: usize = 12;

/// `C (+)= A · B` and what is fused behind it; a transposed operand is a view with swapped strides.
///
/// Sums are of [`Element::Real`], and rounded once.
pub struct Matmul<'a, E: Element, F> {
    /// The left operand, `(rows, depth)`.
    pub a: View<'a, E, 2>,
    /// The right operand, `(depth, columns)`.
    pub b: View<'a, E, 2>,
    /// The product, `(rows, columns)`, with contiguous rows.
    pub c: ViewMut<'a, E, 2>,
    /// What the product is added to.
    pub start: Start,
    /// What happens to the product before it is stored.
    pub epilogue: F,
    /// The most factors that are summed in one chain, where less than usual.
    pub chain: Option<usize>,
}

/// A product by cache blocks.
pub(super) struct Product<'a, E: Element, F> {
    pub(super) product: Matmul<'a, E, F>,
    pub(super) team: &'a dyn Team,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for Product<'_, E, F> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { product: Matmul { a, b, mut c, start, epilogue, chain }, team } = self;
        let depth = b.rows().div_ceil(E::Factor::DEPTH).max(1);
        let packed = (PACKED / depth).max(1).next_multiple_of(PACKED_COLUMNS);
        for first in (0..b.columns()).step_by(packed) {
            let columns = first..b.columns().min(first + packed);
            let right = Right::new(isa, a, b.slice(1, columns.clone()), team)?;
            let chain = chain.unwrap_or(match b.columns() {
                _ if multiplies_by_tiles::<E, I>(isa) => DEPTH,
                0..NARROW => NARROW_CHAIN,
                _ => CHAIN,
            });
            let epilogue = &epilogue;
            let step = Step { a, right: &right, start, epilogue, first_column: first, chain };
            step.run(isa, c.reborrow().slice(1, columns), team)?;
        }
        Ok(())
    }
}

/// Columns of B, ready for the block product.
enum Right<'a, E: Element> {
    /// As they lie: too few rows of A to repay a copy.
    Lying(View<'a, E::Factor, 2>),
    /// As they were stored: one block of A's rows needs each panel once, and copies it then.
    Stored { source: View<'a, E, 2>, panel: usize },
    /// Panels of `panel` columns one behind the other, each `(depth, panel)`.
    Packed { factors: Scratch<E::Factor>, depth: usize, columns: usize, panel: usize },
}

/// Some panels of B side by side, `(panels, depth, panel)`.
struct PackPanels<'a, E: Element> {
    source: View<'a, E, 2>,
    panels: ViewMut<'a, E::Factor, 3>,
}

impl<E: Element> Kernel<E> for PackPanels<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { source, mut panels } = self;
        let [_, depth, panel] = panels.shape();
        // One panel reads no row of B twice, and contiguous columns are read one after the other anyway.
        let some = source.has_unit_columns() && source.columns() > panel;
        let at_once = if some { ROWS_AT_ONCE } else { depth.max(1) };
        for first in (0..depth).step_by(at_once) {
            let range = first..depth.min(first + at_once);
            for (index, column) in (0..source.columns()).step_by(panel).enumerate() {
                let columns = column..source.columns().min(column + panel);
                let target = panels.reborrow().inner::<1, 2>([index]);
                let target = target.slice(0, range.clone()).slice(1, 0..columns.len());
                copy_rows(isa, stored_rows(source, range.clone()).slice(1, columns), target);
            }
        }
    }
}

/// The rows of B that become a range of its rows of factors.
#[inline(always)]
fn stored_rows<E: Element>(b: View<'_, E, 2>, factors: Range<usize>) -> View<'_, E, 2> {
    let end = b.rows().min(factors.end * E::Factor::DEPTH);
    b.slice(0, factors.start * E::Factor::DEPTH..end)
}

impl<'a, E: Element> Right<'a, E> {
    /// Rows of A below which B is read as it lies.
    const FEW_ROWS: usize = 24;

    #[inline(always)]
    fn new<I: Storage<E>>(
        isa: I,
        a: View<'_, E, 2>,
        b: View<'a, E, 2>,
        team: &dyn Team,
    ) -> Result<Self> {
        let [block_rows, block_depth] = cache_block(a);
        if E::Factor::DEPTH == 1
            && b.has_unit_columns()
            && a.rows() < Self::FEW_ROWS
            && let Some(lying) = factors(b)
        {
            return Ok(Self::Lying(lying));
        }
        let columns = b.columns();
        let depth = b.rows().div_ceil(E::Factor::DEPTH);
        let width = panel_columns(I::REGISTERS, I::LANES, PANEL);
        // Short blocks would read a little of each row at a time, far from the next.
        if block_depth == DEPTH && a.rows() <= block_rows {
            return Ok(Self::Stored { source: b, panel: width });
        }
        let panels = columns.div_ceil(width);
        let mut factors = Scratch::take(panels * width * depth)?;
        let team = if depth * columns < WORTH_A_TEAM_TO_PACK { &Serial } else { team };
        let target = ViewMut::contiguous(&mut factors, [panels, depth, width])?;
        if depth > 0 {
            let row = b.strides()[0].unsigned_abs() * size_of::<E>();
            let apart = b.has_unit_columns() && row >= PAGE;
            let share = columns / team.threads();
            let beside = if apart { (BESIDE.min(share) / width).max(1) } else { 1 };
            for_each_part(team, target.blocks([beside, depth, width]), |index, panels| {
                let first = index * beside * width;
                let range = first..columns.min(first + beside * width);
                isa.vectorize(PackPanels { source: b.slice(1, range), panels });
            });
        }
        Ok(Self::Packed { factors, depth, columns, panel: width })
    }

    /// Factors of a panel that [`Self::columns_from`] copies.
    fn copied(&self, depth: usize) -> usize {
        if let Self::Stored { panel, .. } = self { depth * panel } else { 0 }
    }

    /// The rows of a range of the depth, in factors, and the columns from `column` on, as wide as they lie
    /// together; those that were stored are copied to `memory`.
    #[inline(always)]
    fn columns_from<'m, I: Storage<E>>(
        &'m self,
        isa: I,
        column: usize,
        end: usize,
        range: Range<usize>,
        memory: &'m mut [E::Factor],
    ) -> Result<View<'m, E::Factor, 2>> {
        match self {
            Self::Lying(b) => Ok(b.slice(1, column..end).slice(0, range)),
            Self::Packed { factors, depth, columns, panel } => {
                let factors = &factors[column / panel * panel * depth..][..panel * depth];
                let width = (*panel).min(columns - column).min(end - column);
                let panel = View::contiguous(factors, [*depth, *panel])?;
                Ok(panel.slice(0, range).slice(1, 0..width))
            }
            Self::Stored { source, panel } => {
                let width = (*panel).min(end - column);
                let source = stored_rows(*source, range.clone()).slice(1, column..column + width);
                let memory = &mut memory[..range.len() * panel];
                let panels = ViewMut::contiguous(memory, [1, range.len(), *panel])?;
                isa.vectorize(PackPanels { source, panels });
                Ok(View::contiguous(memory, [range.len(), *panel])?.slice(1, 0..width))
            }
        }
    }
}

/// The product with some columns of B.
struct Step<'a, E: Element, F> {
    a: View<'a, E, 2>,
    right: &'a Right<'a, E>,
    start: Start,
    epilogue: &'a F,
    first_column: usize,
    chain: usize,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Step<'_, E, F> {
    #[inline(always)]
    fn run<I: Storage<E>>(&self, isa: I, c: ViewMut<'_, E, 2>, team: &dyn Team) -> Result<()> {
        let [block_rows, _] = cache_block(self.a);
        // As many blocks for each thread; smaller ones where the product has too few.
        let share = |size: usize, whole: usize| {
            let blocks = whole.div_ceil(size).next_multiple_of(team.threads()).max(1);
            whole.div_ceil(blocks).max(PANEL)
        };
        let (rows, columns) = (c.rows(), c.columns());
        let block = if rows >= columns {
            [share(block_rows, rows).next_multiple_of(WHOLE_TILES), COLUMNS]
        } else {
            [block_rows, share(COLUMNS, columns).next_multiple_of(PANEL)]
        };
        let blocks = c.blocks(block);
        let grid_columns = columns.div_ceil(block[1]);
        try_for_each_part(team, blocks, |index, part| {
            let place = [index / grid_columns * block[0], index % grid_columns * block[1]];
            isa.vectorize(StepBlock { step: self, place, c: part })
        })
    }
}

/// One block of C over the whole depth: what a thread does at a time.
struct StepBlock<'a, 'b, E: Element, F> {
    step: &'a Step<'b, E, F>,
    place: [usize; 2],
    c: ViewMut<'a, E, 2>,
}

impl<E: Element, F: ColumnEpilogue<E::Real>> Kernel<E> for StepBlock<'_, '_, E, F> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) -> Result<()> {
        let Self { step, place: [row, column], mut c } = self;
        let [rows, columns] = c.shape();
        let _tiles = hold_tiles(isa);
        let a = step.a.slice(0, row..row + rows);
        let depth = a.columns().div_ceil(E::Factor::DEPTH);
        let [_, block_depth] = cache_block(a);
        // Where sums are not finished at once they wait side by side, in memory of their own: rows of
        // C are often a multiple of 4 KB apart, and would throw one another out of the caches.
        let wide = sums_in_place(c.reborrow()).is_some();
        let direct = wide && F::IDENTITY && depth <= block_depth;
        let mut memory = Scratch::take(if direct { 0 } else { rows * columns })?;
        let mut packed = Scratch::take(left_factors::<E>(a, columns))?;
        let mut copied = Scratch::take(step.right.copied(block_depth.min(depth)))?;
        for first in (0..depth.max(1)).step_by(block_depth) {
            let range = first..depth.min(first + block_depth);
            let numbers = range.start * E::Factor::DEPTH;
            let numbers = numbers..a.columns().min(range.end * E::Factor::DEPTH);
            let a = left(isa, a.slice(1, numbers), &mut packed)?;
            let start = if first == 0 { step.start } else { Start::Accumulate };
            let mut done = 0;
            while done < columns {
                let (from, end) = (column + done, column + columns);
                let b = step.right.columns_from(isa, from, end, range.clone(), &mut copied)?;
                let mut panel = c.reborrow().slice(1, done..done + b.columns());
                let width = b.columns();
                if let (true, Some(sums)) = (direct, sums_in_place(panel.reborrow())) {
                    multiply::<E, I>(isa, a, b, sums, start, step.chain);
                } else {
                    let sums = &mut memory[done * rows..][..rows * width];
                    if first == 0 && start == Start::Accumulate {
                        widen(isa, panel.as_view(), ViewMut::contiguous(sums, [rows, width])?);
                    }
                    let target = ViewMut::contiguous(sums, [rows, width])?;
                    multiply::<E, I>(isa, a, b, target, start, step.chain);
                    if range.end == depth {
                        let column = step.first_column + from;
                        isa.vectorize(Finish { epilogue: step.epilogue, column, sums, c: panel });
                    }
                }
                done += width;
            }
        }
        Ok(())
    }
}

/// `C (+)= A · B` for a cache block.
#[inline(always)]
fn multiply<E: Element, I: Storage<E>>(
    isa: I,
    a: View<'_, E::Factor, 2>,
    b: View<'_, E::Factor, 2>,
    mut c: ViewMut<'_, E::Real, 2>,
    start: Start,
    chain: usize,
) {
    for first in (0..a.columns().max(1)).step_by(chain) {
        let range = first..a.columns().min(first + chain);
        let (a, b) = (a.slice(1, range.clone()), b.slice(0, range));
        let start = if first == 0 { start } else { Start::Accumulate };
        multiply_block::<E, _, _>(isa, a, b, c.reborrow(), start, &mut ());
    }
}

/// Rows and depth, in factors, that are worked off at a time.
#[inline(always)]
fn cache_block<E: Element>(a: View<'_, E, 2>) -> [usize; 2] {
    if a.has_unit_columns() || E::Factor::DEPTH > 1 { BLOCK } else { BLOCK_OF_COLUMNS }
}

/// How many factors of `a` must be copied at a time: none where they can be read as they lie.
#[inline(always)]
fn left_factors<E: Element>(a: View<'_, E, 2>, columns: usize) -> usize {
    let [rows, depth] = a.shape();
    let [row, column] = a.strides().map(|stride| stride.unsigned_abs() * size_of::<E>());
    let aliased = row.is_multiple_of(ALIAS) || column.is_multiple_of(ALIAS / 2);
    let [_, block_depth] = cache_block(a);
    let few = if depth.min(DEPTH) * column < APART { FEW_COLUMNS } else { FEW_COLUMNS_APART };
    if columns <= few && (rows < 4 || !aliased) && factors(a).is_some() {
        return 0;
    }
    let depth = depth.div_ceil(E::Factor::DEPTH).min(block_depth);
    rows.max(depth).next_multiple_of(PADDING).max(rows + PADDING) * (depth + PADDING)
}

/// Some columns of A as factors: copied where there is memory, otherwise as they lie.
#[inline(always)]
fn left<'a, E: Element, I: Storage<E>>(
    isa: I,
    a: View<'a, E, 2>,
    memory: &'a mut [E::Factor],
) -> Result<View<'a, E::Factor, 2>> {
    if memory.is_empty()
        && let Some(lying) = factors(a)
    {
        return Ok(lying);
    }
    let [rows, depth] = a.shape();
    let depth = depth.div_ceil(E::Factor::DEPTH);
    if a.has_unit_columns() || E::Factor::DEPTH > 1 {
        let shape = [rows, depth + PADDING];
        let memory = &mut memory[..rows * (depth + PADDING)];
        copy_columns(isa, a, ViewMut::contiguous(memory, shape)?.slice(1, 0..depth));
        Ok(View::contiguous(memory, shape)?.slice(1, 0..depth))
    } else {
        // A column of A behind the other: numbers of A are broadcast, wherever they lie.
        let shape = [depth, rows + PADDING];
        let memory = &mut memory[..depth * (rows + PADDING)];
        copy_rows(isa, a.transpose(), ViewMut::contiguous(memory, shape)?.slice(1, 0..rows));
        Ok(View::contiguous(memory, shape)?.slice(1, 0..rows).transpose())
    }
}

/// Copies stored numbers to where they are summed.
#[inline(always)]
fn widen<E: Element, I: Storage<E>>(isa: I, from: View<'_, E, 2>, mut to: ViewMut<'_, E::Real, 2>) {
    for row in 0..from.rows() {
        let parts = from.row(row).chunks(I::LANES).zip(to.row_mut(row).chunks_mut(I::LANES));
        for (from, to) in parts {
            isa.store_first(to, isa.read_first(from));
        }
    }
}
