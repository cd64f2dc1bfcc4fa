//! Functions of single numbers, or of one from each of several arrays, whatever their strides.

use fusewire_simd::{Abreast, Element, Kernel, Lanes, Real, Storage};

use crate::parallel::{Team, for_each_part};
use crate::view::{View, ViewMut};

/// Rows that a thread computes at a time.
const ROWS: usize = 32;
/// Numbers that are gathered at a time, in the nearest cache.
const BUFFER: usize = 512;
/// Vectors that are computed side by side.
const VECTORS: usize = 4;

/// What is chosen when a call is made: computes a number of the target from one of each source.
pub(super) trait Function<E: Element, const N: usize>: Copy + Send + Sync {
    /// All slices are equally long.
    fn compute<I: Storage<E>>(self, isa: I, sources: [&[E]; N], target: &mut [E]);
}

/// A function of `N` numbers that a loop is compiled for.
pub(super) trait Pointwise<T, const N: usize>: Copy {
    /// The results for vectors of numbers.
    fn of<I: Lanes<T>>(self, isa: I, numbers: [I::Vector; N]) -> I::Vector
    where
        T: Real;
}

/// Writes `function` of the numbers of `sources` to `output`; all are equally large.
pub(super) fn map<E: Element, const N: usize>(
    function: impl Function<E, N>,
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

impl<E: Element, F: Function<E, N>, const N: usize> Kernel<E> for Map<'_, E, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { function, sources, mut output } = self;
        let columns = output.columns();
        // For what does not lie side by side.
        let (mut gathered, mut results) = ([[E::default(); BUFFER]; N], [E::default(); BUFFER]);
        for row in 0..output.rows() {
            for first in (0..columns).step_by(BUFFER) {
                let count = BUFFER.min(columns - first);
                let mut pieces: [&[E]; N] = [&[]; N];
                for ((piece, source), buffer) in pieces.iter_mut().zip(&sources).zip(&mut gathered)
                {
                    *piece = if source.has_unit_columns() {
                        &source.row(row)[first..first + count]
                    } else {
                        for (column, number) in buffer[..count].iter_mut().enumerate() {
                            *number = source.get([row, first + column]);
                        }
                        &buffer[..count]
                    };
                }
                let lies = output.has_unit_columns();
                let target = if lies {
                    &mut output.row_mut(row)[first..first + count]
                } else {
                    &mut results[..count]
                };
                function.compute(isa, pieces, target);
                for column in if lies { 0..0 } else { 0..count } {
                    output.set([row, first + column], results[column]);
                }
            }
        }
    }
}

/// Computes a function of numbers; all slices are equally long.
pub(super) struct Compute<'a, E, F, const N: usize> {
    pub(super) function: F,
    pub(super) sources: [&'a [E]; N],
    pub(super) target: &'a mut [E],
}

impl<E: Element, F: Pointwise<E::Real, N>, const N: usize> Kernel<E> for Compute<'_, E, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { function, sources, target } = self;
        let (abreast, step) = (Abreast::<I, VECTORS>(isa), VECTORS * I::LANES);
        let count = target.len();
        assert!(sources.iter().all(|source| source.len() == count));
        let whole = count - count % step;
        for first in (0..whole).step_by(step) {
            let mut vectors = [abreast.zero(); N];
            for (vector, source) in vectors.iter_mut().zip(&sources) {
                for index in 0..VECTORS {
                    vector[index] = isa.read(&source[first + index * I::LANES..]);
                }
            }
            let results = function.of(abreast, vectors);
            for index in 0..VECTORS {
                isa.write(&mut target[first + index * I::LANES..], results[index]);
            }
        }
        for first in (whole..count).step_by(I::LANES) {
            let mut vectors = [isa.zero(); N];
            for (vector, source) in vectors.iter_mut().zip(&sources) {
                *vector = isa.read_first(&source[first..]);
            }
            isa.write_first(&mut target[first..], function.of(isa, vectors));
        }
    }
}

/// Computes a function of numbers in their place.
pub(super) struct InPlace<'a, T, F> {
    pub(super) function: F,
    pub(super) numbers: &'a mut [T],
}

impl<T: Real, F: Pointwise<T, 1>> Kernel<T> for InPlace<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<T>>(self, isa: I) {
        let isa = Abreast::<I, VECTORS>(isa);
        for numbers in self.numbers.chunks_mut(VECTORS * I::LANES) {
            let x = isa.load_first(numbers);
            isa.store_first(numbers, self.function.of(isa, [x]));
        }
    }
}
