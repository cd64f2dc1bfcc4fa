//! Functions of single numbers: activations of sums, and their gradients.

use fusewire_simd::{Abreast, Element, Kernel, Lanes, Storage};

use super::activation::Activation;
use crate::math::Elementary;
use crate::parallel::{Team, for_each_part};
use crate::view::{View, ViewMut};

/// Rows that a thread computes at a time.
const ROWS: usize = 32;
/// Numbers that are computed at a time, in the nearest cache.
const BUFFER: usize = 512;
/// Vectors that are computed side by side.
const VECTORS: usize = 4;

/// Writes to `output` the activation of `saved`, or where there is a gradient of the output that of
/// the sums, given what it [follows from](Activation::needs). All are equally large; the output's rows are contiguous.
pub(super) fn map<E: Element<Real: Elementary>>(
    activation: Activation,
    saved: View<'_, E, 2>,
    grad_output: Option<View<'_, E, 2>>,
    output: ViewMut<'_, E, 2>,
    team: &dyn Team,
) {
    let block = [ROWS, output.columns().max(1)];
    for_each_part(team, output.blocks(block), |index, output| {
        let rows = index * ROWS..index * ROWS + output.rows();
        let saved = saved.slice(0, rows.clone());
        let grad_output = grad_output.map(|gradient| gradient.slice(0, rows));
        E::dispatch(Map { activation, saved, grad_output, output });
    });
}

struct Map<'a, E> {
    activation: Activation,
    saved: View<'a, E, 2>,
    grad_output: Option<View<'a, E, 2>>,
    output: ViewMut<'a, E, 2>,
}

impl<E: Element<Real: Elementary>> Kernel<E> for Map<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { activation, saved, grad_output, mut output } = self;
        let columns = output.columns();
        let mut buffers = [[E::Real::default(); BUFFER]; 2];
        let [numbers, gradients] = &mut buffers;
        for row in 0..output.rows() {
            for first in (0..columns).step_by(BUFFER) {
                let target = &mut output.row_mut(row)[first..columns.min(first + BUFFER)];
                let numbers = &mut numbers[..target.len()];
                read(isa, saved, [row, first], numbers);
                if let Some(grad_output) = grad_output {
                    let gradients = &mut gradients[..target.len()];
                    read(isa, grad_output, [row, first], gradients);
                    let kernel = Differentiate { activation, numbers, gradients };
                    isa.vectorize::<E::Real, _>(kernel);
                } else {
                    isa.vectorize::<E::Real, _>(Activate { activation, numbers });
                }
                for (number, target) in numbers.chunks(I::LANES).zip(target.chunks_mut(I::LANES)) {
                    isa.write_first(target, isa.load_first(number));
                }
            }
        }
    }
}

/// Reads the numbers of a row from a column on, whatever the strides.
#[inline(always)]
fn read<E: Element, I: Storage<E>>(
    isa: I,
    rows: View<'_, E, 2>,
    [row, first]: [usize; 2],
    numbers: &mut [E::Real],
) {
    if rows.has_unit_columns() {
        let source = rows.row(row)[first..].chunks(I::LANES);
        for (source, numbers) in source.zip(numbers.chunks_mut(I::LANES)) {
            isa.store_first(numbers, isa.read_first(source));
        }
    } else {
        for (column, number) in numbers.iter_mut().enumerate() {
            *number = rows.get([row, first + column]).to_real();
        }
    }
}

/// Applies an activation to each number; one function for all that end with one.
pub(super) struct Activate<'a, T> {
    pub(super) activation: Activation,
    pub(super) numbers: &'a mut [T],
}

impl<T: Elementary> Kernel<T> for Activate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<T>>(self, isa: I) {
        let isa = Abreast::<I, VECTORS>(isa);
        for numbers in self.numbers.chunks_mut(VECTORS * I::LANES) {
            let result = self.activation.apply(isa, isa.load_first(numbers));
            isa.store_first(numbers, result);
        }
    }
}

/// Turns what the derivative follows from into the gradients of sums, given those of the output.
struct Differentiate<'a, T> {
    activation: Activation,
    numbers: &'a mut [T],
    gradients: &'a [T],
}

impl<T: Elementary> Kernel<T> for Differentiate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<T>>(self, isa: I) {
        let isa = Abreast::<I, VECTORS>(isa);
        let numbers = self.numbers.chunks_mut(VECTORS * I::LANES);
        for (numbers, gradients) in numbers.zip(self.gradients.chunks(VECTORS * I::LANES)) {
            let (saved, gradient) = (isa.load_first(numbers), isa.load_first(gradients));
            isa.store_first(numbers, self.activation.gradient(isa, saved, gradient));
        }
    }
}
