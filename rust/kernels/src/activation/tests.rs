//! What Python cannot see: every instruction set and every layout gives the same numbers.

use fusewire_simd::on_each_isa;

use super::{Activation, Needs, activate, activate_backward};
use crate::parallel::{Pool, Serial};
use crate::view::{View, ViewMut};

const NAMES: [&str; 7] = ["identity", "gelu", "gelu_tanh", "relu", "sigmoid", "silu", "tanh"];

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 37 + seed * 101) % 1009) as f64 / 252.0 - 2.0).collect()
}

fn applied(name: &str, x: &[f64], shape: [usize; 2]) -> Vec<f64> {
    let mut output = vec![f64::NAN; x.len()];
    activate(
        name.parse().expect("known"),
        View::contiguous(x, shape).expect("input"),
        ViewMut::contiguous(&mut output, shape).expect("output"),
        &Serial,
    )
    .expect("shapes fit");
    output
}

#[test]
fn derivatives_are_those_of_differences() {
    on_each_isa(|isa| {
        for shape @ [rows, columns] in [[0, 3], [2, 0], [1, 1], [3, 17], [2, 1030]] {
            let count = rows * columns;
            let (x, gradient) = (numbers(count, 1), numbers(count, 2));
            let moved = |by: f64| x.iter().map(|x| x + by).collect::<Vec<_>>();
            for name in NAMES {
                let activation: Activation = name.parse().expect("known");
                let saved = match activation.needs() {
                    Needs::Output => applied(name, &x, shape),
                    Needs::Nothing | Needs::Input => x.clone(),
                };
                let mut got = vec![f64::NAN; count];
                activate_backward(
                    activation,
                    View::contiguous(&gradient, shape).expect("gradient"),
                    View::contiguous(&saved, shape).expect("saved"),
                    ViewMut::contiguous(&mut got, shape).expect("result"),
                    &Pool::new(2),
                )
                .expect("shapes fit");
                let (above, below) =
                    (applied(name, &moved(1e-6), shape), applied(name, &moved(-1e-6), shape));
                for place in 0..count {
                    let slope = (above[place] - below[place]) / 2e-6;
                    let (got, expected) = (got[place], gradient[place] * slope);
                    let there = x[place];
                    let kink = name == "relu" && there.abs() < 1e-5;
                    assert!(
                        kink || (got - expected).abs() < 1e-8,
                        "{isa} {name} at {there}: {got} {expected}"
                    );
                }
            }
        }
    });
}

#[test]
fn strides_change_nothing() {
    on_each_isa(|isa| {
        let (rows, columns) = (35, 19);
        let x = numbers(rows * columns, 3);
        let input = View::contiguous(&x, [rows, columns]).expect("input");
        let mut turned = vec![f64::NAN; x.len()];
        let place = ViewMut::contiguous(&mut turned, [columns, rows]).expect("output");
        activate(Activation::Tanh, input, place.transpose(), &Pool::new(2)).expect("shapes fit");
        let straight = applied("tanh", &x, [rows, columns]);
        for row in 0..rows {
            for column in 0..columns {
                let (got, expected) =
                    (turned[column * rows + row], straight[row * columns + column]);
                assert_eq!(got.to_bits(), expected.to_bits(), "{isa} {row} {column}");
            }
        }
    });
}

#[test]
fn shapes_that_do_not_fit_are_told() {
    let (x, mut output) = (numbers(6, 1), numbers(6, 2));
    let input = View::contiguous(&x, [2, 3]).expect("6 numbers");
    let output = ViewMut::contiguous(&mut output, [3, 2]).expect("6 numbers");
    let error = activate(Activation::Relu, input, output, &Serial).expect_err("2 x 3 is not 3 x 2");
    assert_eq!(error.to_string(), "output must have shape [2, 3], but has [3, 2]");
}
