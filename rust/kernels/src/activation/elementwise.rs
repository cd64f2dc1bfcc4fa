//! Functions of single numbers, or of one from each of several arrays, whatever their strides.

use fusewire_simd::{Abreast, Element, Kernel, Lanes, Real, Storage};

use crate::parallel::{Team, for_each_part};
use crate::view::{View, ViewMut};

/// Rows that a thread computes at a time.
const ROWS: usize = 32;
/// Numbers that are computed at a time, in the nearest cache.
const BUFFER: usize = 512;
/// Vectors that are computed side by side.
const VECTORS: usize = 4;

/// A function of `N` numbers.
pub(crate) trait Pointwise<T, const N: usize>: Copy + Send + Sync {
    /// The results for vectors of numbers.
    fn of<I: Lanes<T>>(self, isa: I, numbers: [I::Vector; N]) -> I::Vector
    where
        T: Real;
}

/// Writes `function` of the numbers of `sources` to `output`; all are equally large.
pub(super) fn map<E: Element, const N: usize>(
    function: impl Pointwise<E::Real, N>,
    sources: [View<'_, E, 2>; N],
    output: ViewMut<'_, E, 2>,
    team: &dyn Team,
) {
    let block = [ROWS, output.columns().max(1)];
    for_each_part(team, output.blocks(block), |index, output| {
        let rows = index * ROWS..index * ROWS + output.rows();
        let sources = sources.map(|source| source.slice(0, rows.clone()));
        E::dispatch(Map { function, sources, output });
    });
}

struct Map<'a, E, F, const N: usize> {
    function: F,
    sources: [View<'a, E, 2>; N],
    output: ViewMut<'a, E, 2>,
}

impl<E: Element, F: Pointwise<E::Real, N>, const N: usize> Kernel<E> for Map<'_, E, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { function, sources, mut output } = self;
        let columns = output.columns();
        let mut buffers = [[E::Real::default(); BUFFER]; N];
        for row in 0..output.rows() {
            for first in (0..columns).step_by(BUFFER) {
                let count = BUFFER.min(columns - first);
                for (source, buffer) in sources.iter().zip(&mut buffers) {
                    read(isa, *source, [row, first], &mut buffer[..count]);
                }
                let numbers = buffers.each_mut().map(|buffer| &mut buffer[..count]);
                isa.vectorize::<E::Real, _>(Compute { function, numbers });
                write(isa, &buffers[0][..count], &mut output, [row, first]);
            }
        }
    }
}

/// Reads the numbers of a row from a column on.
#[inline(always)]
fn read<E: Element, I: Storage<E>>(
    isa: I,
    source: View<'_, E, 2>,
    [row, first]: [usize; 2],
    numbers: &mut [E::Real],
) {
    if source.has_unit_columns() {
        let source = source.row(row)[first..].chunks(I::LANES);
        for (source, numbers) in source.zip(numbers.chunks_mut(I::LANES)) {
            isa.store_first(numbers, isa.read_first(source));
        }
    } else {
        for (column, number) in numbers.iter_mut().enumerate() {
            *number = source.get([row, first + column]).to_real();
        }
    }
}

/// Writes numbers into a row from a column on.
#[inline(always)]
fn write<E: Element, I: Storage<E>>(
    isa: I,
    numbers: &[E::Real],
    target: &mut ViewMut<'_, E, 2>,
    [row, first]: [usize; 2],
) {
    if target.has_unit_columns() {
        let target = target.row_mut(row)[first..].chunks_mut(I::LANES);
        for (numbers, target) in numbers.chunks(I::LANES).zip(target) {
            isa.write_first(target, isa.load_first(numbers));
        }
    } else {
        for (column, &number) in numbers.iter().enumerate() {
            target.set([row, first + column], E::from_real(number));
        }
    }
}

/// Computes a function of numbers in the place of the first of them.
pub(crate) struct Compute<'a, T, F, const N: usize> {
    /// The function.
    pub(crate) function: F,
    /// What it is applied to, `N` slices of equal length.
    pub(crate) numbers: [&'a mut [T]; N],
}

impl<T: Real, F: Pointwise<T, N>, const N: usize> Kernel<T> for Compute<'_, T, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<T>>(self, isa: I) {
        let Self { function, numbers } = self;
        let isa = Abreast::<I, VECTORS>(isa);
        let count = numbers[0].len();
        for first in (0..count).step_by(VECTORS * I::LANES) {
            let places = first..count.min(first + VECTORS * I::LANES);
            let mut vectors = [isa.zero(); N];
            for (vector, numbers) in vectors.iter_mut().zip(&numbers) {
                *vector = isa.load_first(&numbers[places.clone()]);
            }
            isa.store_first(&mut numbers[0][places], function.of(isa, vectors));
        }
    }
}
