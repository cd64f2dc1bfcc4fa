//! The product against its definition: every instruction set, edge sizes, strides, NaN outputs.

use fusewire_simd::{Element, Kernel, Lanes, Real, Storage, available, on_each_isa};
use proptest::prelude::*;

use super::{
    ColumnEpilogue, Matmul, NoEpilogue, Start, matmul, multiply_block, multiply_rows, reference,
};
use crate::parallel::{Pool, Serial, Team};
use crate::view::{View, ViewMut};

mod factors;

/// Numbers in [−1, 1] without a pattern.
fn numbers<T: Real>(count: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| T::from_f64(next())).collect()
}

/// Asserts that sums of `depth` products, each at most 1, agree.
fn assert_close<T: Real>(got: &[T], expected: &[f64], depth: usize, context: &str) {
    let precision = if size_of::<T>() == 4 { 1.2e-7 } else { 2.3e-16 };
    let bound = precision * (depth as f64 + 4.0);
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got.to_f64() - expected).abs();
        assert!(error <= bound, "{context}: {got} at {i}, not {expected}");
    }
}

/// A matrix whose rows, or columns where `transposed`, are contiguous with a gap behind each.
fn strided<T>(data: &[T], rows: usize, columns: usize, transposed: bool) -> View<'_, T, 2> {
    let (outer, inner) = if transposed { (columns, rows) } else { (rows, columns) };
    let whole = View::contiguous(&data[..outer * (inner + 3)], [outer, inner + 3]).expect("fits");
    let view = whole.slice(1, 1..inner + 1);
    if transposed { view.transpose() } else { view }
}

struct BlockProduct<'a, T> {
    a: View<'a, T, 2>,
    b: View<'a, T, 2>,
    c: ViewMut<'a, T, 2>,
    start: Start,
}

impl<T: Real> Kernel<T> for BlockProduct<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(self, isa: I) {
        multiply_block::<T, _, _>(isa, self.a, self.b, self.c, self.start, &mut ());
    }
}

struct RowProduct<'a, T> {
    a: View<'a, T, 2>,
    b: View<'a, T, 2>,
    c: ViewMut<'a, T, 3>,
}

impl<T: Real> Kernel<T> for RowProduct<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        multiply_rows::<T, I>(isa, self.a, self.b, self.c.reborrow(), Start::Zero);
        multiply_rows::<T, I>(isa, self.a, self.b, self.c, Start::Accumulate);
    }
}

fn check_rows<T: Real>([rows, columns, depth]: [usize; 3], width: usize) {
    let a = numbers::<T>((rows + 3) * (depth + 3), 1);
    let b = numbers::<T>((columns + 3) * (depth + 3), 2);
    let (a, b) = (strided(&a, rows, depth, false), strided(&b, columns, depth, false));
    let groups = columns.div_ceil(width);
    let expected = reference::matmul(a, b.transpose());
    for isa in available() {
        // Groups with a gap behind each.
        let mut c = vec![T::NAN; rows * groups * (width + 2)];
        let view = ViewMut::contiguous(&mut c, [rows, groups * (width + 2)]).expect("fits");
        let view = view.split_columns(width + 2).slice(2, 0..width);
        T::dispatch_on(isa, RowProduct { a, b, c: view }).expect("available");
        let (mut got, mut twice) = (Vec::new(), Vec::new());
        for row in 0..rows {
            for column in 0..columns {
                let place = column / width * (width + 2) + column % width;
                got.push(c[row * groups * (width + 2) + place]);
                twice.push(2.0 * expected[row * columns + column]);
            }
        }
        assert_close(&got, &twice, 2 * depth, &format!("{isa} {rows}×{columns}×{depth}"));
        assert_eq!(c.iter().filter(|x| !x.to_f64().is_nan()).count(), got.len());
    }
}

#[test]
fn rows_as_they_lie() {
    for shape in [[1, 1, 1], [1, 16, 15], [3, 17, 16], [4, 40, 33], [9, 35, 100], [0, 5, 5]] {
        for width in [1, 3, 16, 64] {
            check_rows::<f32>(shape, width);
            check_rows::<f64>(shape, width);
        }
    }
    check_rows::<f32>([2, 9, 0], 4);
}

fn check_block<T: Real>(rows: usize, columns: usize, depth: usize, transposed: bool) {
    let (a, b) = (numbers::<T>((rows + 3) * (depth + 3) * 2, 1), numbers(depth * (columns + 3), 2));
    let a = strided(&a, rows, depth, transposed);
    let b = strided(&b, depth, columns, false);
    let expected = reference::matmul(a, b);
    let twice: Vec<f64> = expected.iter().map(|x| 2.0 * x).collect();
    for isa in available() {
        let context = format!("{isa} {rows}×{columns}×{depth} transposed {transposed}");
        let mut output = vec![T::NAN; rows * (columns + 2)];
        for (start, expected) in [(Start::Zero, &expected), (Start::Accumulate, &twice)] {
            let c = ViewMut::contiguous(&mut output, [rows, columns + 2]).expect("fits");
            let c = c.slice(1, 1..columns + 1);
            T::dispatch_on(isa, BlockProduct { a, b, c, start }).expect("available");
            for row in 0..rows {
                let output = &output[row * (columns + 2)..][..columns + 2];
                let expected = &expected[row * columns..][..columns];
                assert_close(&output[1..=columns], expected, depth, &context);
                assert!(output[0].to_f64().is_nan() && output[columns + 1].to_f64().is_nan());
            }
        }
    }
}

#[test]
fn blocks_of_every_edge_size() {
    for rows in [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 19, 24, 64] {
        for columns in [0, 1, 7, 8, 15, 16, 17, 33, 48, 64, 65, 80] {
            for depth in [0, 1, 5, 17] {
                check_block::<f32>(rows, columns, depth, rows % 2 == 0);
            }
        }
    }
    check_block::<f64>(13, 43, 9, true);
    check_block::<f64>(64, 64, 64, false);
}

fn product<T: Real>(a: View<'_, T, 2>, b: View<'_, T, 2>, start: Start, team: &dyn Team) -> Vec<T> {
    let mut output =
        vec![if start == Start::Zero { T::NAN } else { T::ONE }; a.rows() * b.columns()];
    let c = ViewMut::contiguous(&mut output, [a.rows(), b.columns()]).expect("fits");
    matmul(Matmul { a, b, c, start, epilogue: NoEpilogue, chain: None }, team).expect("shapes fit");
    output
}

#[test]
fn products_of_every_layout_on_every_instruction_set() {
    // Depths around one cache block, rows and columns around a thread's block.
    for [rows, columns, depth] in [
        [1, 1, 1],
        [7, 70, 77],
        [23, 31, 383],
        [24, 33, 384],
        [193, 65, 385],
        [30, 600, 40],
        [2, 130, 1100],
        [16, 129, 256],
        [61, 300, 300],
        [64, 300, 270],
        [128, 40, 400],
        [16, 2000, 280],
        [140, 530, 20],
    ] {
        for layout in 0..4 {
            let (left, right) = (layout & 1 == 1, layout & 2 == 2);
            let a = numbers::<f32>((rows + 3) * (depth + 3) * 2, 3);
            let b = numbers::<f32>((columns + 3) * (depth + 3) * 2, 4);
            let a = strided(&a, rows, depth, left);
            let b = strided(&b, depth, columns, right);
            let mut expected = reference::matmul(a, b);
            on_each_isa(|isa| {
                let context = format!("{isa} {rows}×{columns}×{depth} layout {layout}");
                let serial = product(a, b, Start::Zero, &Serial);
                assert_close(&serial, &expected, depth, &context);
                assert_eq!(serial, product(a, b, Start::Zero, &Pool::new(3)), "{context}");
            });
            expected.iter_mut().for_each(|x| *x += 1.0);
            assert_close(&product(a, b, Start::Accumulate, &Pool::new(2)), &expected, depth, "+=");
        }
    }
}

#[test]
fn columns_of_a_that_lie_far_apart() {
    for [rows, columns, depth] in [[512, 33, 70], [1024, 20, 40], [400, 100, 390], [130, 64, 400]] {
        let (a, b) = (numbers::<f32>(depth * rows, 6), numbers::<f32>(depth * columns, 7));
        let a = View::contiguous(&a, [depth, rows]).expect("fits").transpose();
        let b = View::contiguous(&b, [depth, columns]).expect("fits");
        let expected = reference::matmul(a, b);
        on_each_isa(|isa| {
            let got = product(a, b, Start::Zero, &Serial);
            assert_close(&got, &expected, depth, &format!("{isa} {rows}×{columns}×{depth}"));
            assert_eq!(got, product(a, b, Start::Zero, &Pool::new(2)));
        });
    }
}

#[test]
fn identity_matrices_change_nothing() {
    let data = numbers::<f64>(70 * 70, 5);
    let matrix = View::contiguous(&data, [70, 70]).expect("fits");
    let identity: Vec<f64> = (0..4900).map(|i| f64::from(u8::from(i / 70 == i % 70))).collect();
    let identity = View::contiguous(&identity, [70, 70]).expect("fits");
    assert_eq!(product(matrix, identity, Start::Zero, &Serial), data);
    assert_eq!(product(identity, matrix, Start::Zero, &Serial), data);
}

/// Adds the column and then doubles, to see that columns are absolute.
struct AddColumnAndDouble;

impl<T: Real> ColumnEpilogue<T> for AddColumnAndDouble {
    #[inline(always)]
    fn apply<I: Storage<T>>(&self, _: I, column: usize, width: usize, sums: &mut [T])
    where
        T: Element<Real = T>,
    {
        for row in sums.chunks_exact_mut(width) {
            for (place, sum) in row.iter_mut().enumerate() {
                *sum = (*sum + T::from_f64((column + place) as f64)) * T::from_f64(2.0);
            }
        }
    }
}

#[test]
fn the_epilogue_comes_once_and_knows_its_place() {
    for ([rows, columns, depth], transposed) in [([200, 1100, 600], false), ([64, 300, 300], true)]
    {
        let zeros = vec![0.0_f32; rows * depth];
        let b = vec![0.0_f32; depth * (columns + 3) * 2];
        let mut output = vec![f32::NAN; rows * columns];
        let product = Matmul {
            a: View::contiguous(&zeros, [rows, depth]).expect("fits"),
            b: strided(&b, depth, columns, transposed),
            c: ViewMut::contiguous(&mut output, [rows, columns]).expect("fits"),
            start: Start::Zero,
            epilogue: AddColumnAndDouble,
            chain: None,
        };
        matmul(product, &Pool::new(2)).expect("shapes fit");
        for (i, &value) in output.iter().enumerate() {
            assert_eq!(value, (2 * (i % columns)) as f32);
        }
    }
}

#[test]
fn an_empty_sum_is_zero_and_shapes_are_checked() {
    let empty: &[f32] = &[];
    let a = View::contiguous(empty, [3, 0]).expect("fits");
    let b = View::contiguous(empty, [0, 2]).expect("fits");
    assert_eq!(product(a, b, Start::Zero, &Serial), [0.0; 6]);
    let mut output = [0.0_f32; 6];
    let c = ViewMut::contiguous(&mut output, [2, 3]).expect("fits");
    let (start, epilogue) = (Start::Zero, NoEpilogue);
    let outcome = matmul(Matmul { a, b, c, start, epilogue, chain: None }, &Serial);
    let message = outcome.expect_err("2×3 is not 3×2").to_string();
    assert!(message.contains("[3, 2]") && message.contains("[2, 3]"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_shape(rows in 0_usize..90, columns in 0_usize..150, depth in 0_usize..90, seed: u64) {
        let a = numbers::<f32>(rows * depth, seed);
        let b = numbers::<f32>(depth * columns, !seed);
        let a = View::contiguous(&a, [rows, depth]).expect("fits");
        let b = View::contiguous(&b, [columns, depth]).expect("fits").transpose();
        let context = format!("{rows}×{columns}×{depth}");
        assert_close(&product(a, b, Start::Zero, &Pool::new(2)), &reference::matmul(a, b), depth, &context);
    }
}
