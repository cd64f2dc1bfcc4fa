//! Operands of every element type as factors, and the block product of those.

use fusewire_simd::{Bf16, Element, F16, Factor, Kernel, Real, Storage, available, on_each_isa};

use super::super::{
    Matmul, NoEpilogue, Start, column_sums, copy_columns, copy_rows, factors, matmul,
    multiply_block,
};
use super::{numbers, strided};
use crate::parallel::{Pool, Serial, Team};
use crate::view::{View, ViewMut};

fn elements<E: Element>(count: usize, seed: u64) -> Vec<E> {
    let numbers: Vec<E::Real> = numbers(count, seed);
    numbers.into_iter().map(E::from_real).collect()
}

/// `C (+)= A · B` by way of packed factors: A by its columns, B by its rows, or both by rows.
struct PackedProduct<'a, E: Element> {
    a: View<'a, E, 2>,
    b: View<'a, E, 2>,
    c: ViewMut<'a, E::Real, 2>,
    start: Start,
}

impl<E: Element> Kernel<E> for PackedProduct<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Storage<E>>(self, isa: I) {
        let Self { a, b, c, start } = self;
        let ([rows, _], [depth, columns]) = (a.shape(), b.shape());
        let depth = depth.div_ceil(E::Factor::DEPTH);
        let mut packed_a = vec![E::Factor::default(); rows * depth];
        let mut packed_b = vec![E::Factor::default(); depth * columns];
        let target = ViewMut::contiguous(&mut packed_b, [depth, columns]).expect("fits");
        copy_rows(isa, b, target);
        let packed_b = View::contiguous(&packed_b, [depth, columns]).expect("fits");
        let a = if a.has_unit_columns() {
            let target = ViewMut::contiguous(&mut packed_a, [rows, depth]).expect("fits");
            copy_columns(isa, a, target);
            View::contiguous(&packed_a, [rows, depth]).expect("fits")
        } else {
            let target = ViewMut::contiguous(&mut packed_a, [depth, rows]).expect("fits");
            copy_rows(isa, a.transpose(), target);
            View::contiguous(&packed_a, [depth, rows]).expect("fits").transpose()
        };
        multiply_block::<E, _, _>(isa, a, packed_b, c, start, &mut ());
    }
}

fn real_view<E: Element>(view: View<'_, E, 2>) -> Vec<f64> {
    let [rows, columns] = view.shape();
    let positions = (0..rows).flat_map(|row| (0..columns).map(move |column| [row, column]));
    positions.map(|position| view.get(position).to_real().to_f64()).collect()
}

fn check<E: Element>(rows: usize, columns: usize, depth: usize, layout: usize) {
    let (left, right) = (layout & 1 == 1, layout & 2 == 2);
    let a = elements::<E>((rows + 3) * (depth + 3) * 2, 1);
    let b = elements::<E>((columns + 3) * (depth + 3) * 2, 2);
    let (a, b) = (strided(&a, rows, depth, left), strided(&b, depth, columns, right));
    let (wide_a, wide_b) = (real_view(a), real_view(b));
    let mut c = vec![E::Real::NAN; rows * columns];
    for isa in available() {
        c.fill(E::Real::NAN);
        for (times, start) in [(1.0, Start::Zero), (2.0, Start::Accumulate)] {
            let target = ViewMut::contiguous(&mut c, [rows, columns]).expect("fits");
            E::dispatch_on(isa, PackedProduct { a, b, c: target, start }).expect("available");
            for (place, got) in c.iter().enumerate() {
                let (row, column) = (place / columns, place % columns);
                let product = |k: usize| wide_a[row * depth + k] * wide_b[k * columns + column];
                let expected: f64 = times * (0..depth).map(product).sum::<f64>();
                let error = (got.to_f64() - expected).abs();
                let bound = times * 1.2e-7 * (depth as f64 + 4.0);
                assert!(error <= bound, "{isa} {rows}×{columns}×{depth} layout {layout}: {got}");
            }
        }
    }
}

#[test]
fn packed_factors_multiply_as_their_numbers_do() {
    for layout in 0..4 {
        for [rows, columns, depth] in [
            [1, 1, 1],
            [3, 17, 2],
            [5, 16, 31],
            [19, 33, 32],
            [16, 47, 33],
            [13, 64, 65],
            [64, 32, 64],
            [53, 81, 330],
            [2, 3, 0],
        ] {
            check::<f32>(rows, columns, depth, layout);
            check::<f64>(rows, columns, depth, layout);
            check::<Bf16>(rows, columns, depth, layout);
            check::<F16>(rows, columns, depth, layout);
        }
    }
}

#[test]
fn operands_are_factors_as_they_lie_where_pairs_are_whole() {
    let numbers = elements::<Bf16>(60, 3);
    let view = |columns| View::contiguous(&numbers[..6 * columns], [6, columns]).expect("fits");
    let pairs = factors(view(8)).expect("four pairs to a row");
    assert_eq!(pairs.shape(), [6, 4]);
    assert_eq!(pairs.get([2, 1]).0, [numbers[18], numbers[19]]);
    assert!(factors(view(7)).is_none(), "odd rows");
    assert!(factors(view(8).slice(1, 0..5)).is_none(), "an odd number of columns");
    assert!(factors(view(8).transpose()).is_none(), "the depth is not contiguous");
    let halves = elements::<F16>(8, 4);
    assert!(factors(View::contiguous(&halves, [2, 4]).expect("fits")).is_none(), "not widened");
}

/// `C (+)= A · B` by [`matmul`]; where it is added, to ones.
fn whole<E: Element>(
    a: View<'_, E, 2>,
    b: View<'_, E, 2>,
    start: Start,
    team: &dyn Team,
) -> Vec<E> {
    let before = if start == Start::Zero { E::Real::NAN } else { E::Real::ONE };
    let mut output = vec![E::from_real(before); a.rows() * b.columns()];
    let c = ViewMut::contiguous(&mut output, [a.rows(), b.columns()]).expect("fits");
    matmul(Matmul { a, b, c, start, epilogue: NoEpilogue, chain: None }, team).expect("shapes fit");
    output
}

fn check_whole<E: Element>([rows, columns, depth]: [usize; 3], layout: usize, precision: f64) {
    let (left, right) = (layout & 1 == 1, layout & 2 == 2);
    let a = elements::<E>((rows + 3) * (depth + 3) * 2, 5);
    let b = elements::<E>((columns + 3) * (depth + 3) * 2, 6);
    let (a, b) = (strided(&a, rows, depth, left), strided(&b, depth, columns, right));
    let (wide_a, wide_b) = (real_view(a), real_view(b));
    on_each_isa(|isa| {
        for start in [Start::Zero, Start::Accumulate] {
            let got = whole(a, b, start, &Serial);
            assert_eq!(got, whole(a, b, start, &Pool::new(3)));
            for (place, got) in got.iter().enumerate() {
                let (row, column) = (place / columns, place % columns);
                let product = |k: usize| wide_a[row * depth + k] * wide_b[k * columns + column];
                let sum: f64 = (0..depth).map(product).sum();
                let expected = sum + if start == Start::Zero { 0.0 } else { 1.0 };
                let error = (got.to_real().to_f64() - expected).abs();
                // Rounded once, behind a sum in float32.
                let bound = precision * expected.abs() + 1.2e-7 * (depth as f64 + 4.0);
                assert!(error <= bound, "{isa} {rows}×{columns}×{depth} layout {layout}: {got}");
            }
        }
    });
}

#[test]
fn products_in_half_precision_are_rounded_once() {
    for sizes in [[1, 70, 77], [5, 33, 64], [24, 31, 130], [195, 70, 801], [30, 520, 40], [2, 3, 0]]
    {
        for layout in 0..4 {
            check_whole::<Bf16>(sizes, layout, 1.0 / 256.0);
            check_whole::<F16>(sizes, layout, 1.0 / 2048.0);
        }
    }
}

#[test]
fn columns_are_summed() {
    let numbers = elements::<Bf16>(70 * 41, 7);
    let rows = View::contiguous(&numbers, [70, 41]).expect("fits");
    let wide = real_view(rows);
    let mut sums = vec![Bf16::from_f32(f32::NAN); 41];
    column_sums(rows, ViewMut::contiguous(&mut sums, [41]).expect("fits"), &Serial).expect("fits");
    for (column, sum) in sums.iter().enumerate() {
        let expected: f64 = (0..70).map(|row| wide[row * 41 + column]).sum();
        let error = (f64::from(sum.to_f32()) - expected).abs();
        assert!(error <= expected.abs() / 256.0 + 1e-5, "{sum}, not {expected}");
    }
}
