//! What Python cannot see: every instruction set gives the same layer, to rounding.

use fusewire_simd::on_each_isa;

use super::{Gradients, Linear, Saved};
use crate::activation::Activation;
use crate::gemm::reference;
use crate::parallel::{Pool, Serial, Team};
use crate::view::{View, ViewMut};

const ACTIVATIONS: [&str; 7] = ["identity", "gelu", "gelu_tanh", "relu", "sigmoid", "silu", "tanh"];

fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 37 + seed * 101) % 1009) as f64 / 504.5 - 1.0).collect()
}

fn layer<'a>(
    operands: &'a [Vec<f64>; 3],
    [rows, inputs, outputs]: [usize; 3],
    activation: &str,
) -> Linear<'a, f64> {
    Linear::new(
        View::contiguous(&operands[0], [rows, inputs]).expect("input"),
        View::contiguous(&operands[1], [outputs, inputs]).expect("weight"),
        Some(View::contiguous(&operands[2], [outputs]).expect("bias")),
        activation.parse::<Activation>().expect("known"),
    )
    .expect("shapes fit")
}

fn output(layer: &Linear<'_, f64>, team: &dyn Team) -> Vec<f64> {
    let shape = layer.output_shape();
    let mut output = vec![f64::NAN; shape[0] * shape[1]];
    layer.forward(ViewMut::contiguous(&mut output, shape).expect("output"), team).expect("fits");
    output
}

#[test]
fn every_instruction_set_computes_the_layer() {
    on_each_isa(|isa| {
        for sizes @ [rows, inputs, outputs] in [[1, 1, 1], [3, 17, 33], [33, 64, 7], [5, 0, 4]] {
            let operands =
                [numbers(rows * inputs, 1), numbers(outputs * inputs, 2), numbers(outputs, 3)];
            let input = View::contiguous(&operands[0], [rows, inputs]).expect("input");
            let weight = View::contiguous(&operands[1], [outputs, inputs]).expect("weight");
            let product = reference::matmul(input, weight.transpose());
            for name in ACTIVATIONS {
                let got = output(&layer(&operands, sizes, name), &Serial);
                for (place, (got, x)) in got.iter().zip(&product).enumerate() {
                    let x = x + operands[2][place % outputs];
                    let expected = match name {
                        "gelu" => continue, // beside math::gelu
                        "gelu_tanh" => {
                            let inner = x + 0.044715 * x.powi(3);
                            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * inner).tanh())
                        }
                        "relu" => x.max(0.0),
                        "sigmoid" => 1.0 / (1.0 + (-x).exp()),
                        "silu" => x / (1.0 + (-x).exp()),
                        "tanh" => x.tanh(),
                        _ => x,
                    };
                    assert!(
                        (got - expected).abs() < 1e-13,
                        "{isa} {name} {sizes:?}: {got} {expected}"
                    );
                }
            }
        }
    });
}

#[test]
fn gradients_are_those_of_differences() {
    let sizes @ [rows, inputs, outputs] = [3, 5, 4];
    let operands = [numbers(rows * inputs, 1), numbers(outputs * inputs, 2), numbers(outputs, 3)];
    let weights = numbers(rows * outputs, 4);
    let loss = |operands: &[Vec<f64>; 3], name: &str| -> f64 {
        output(&layer(operands, sizes, name), &Serial)
            .iter()
            .zip(&weights)
            .map(|(y, w)| y * w)
            .sum()
    };
    for name in ACTIVATIONS {
        let layer = layer(&operands, sizes, name);
        let output = output(&layer, &Serial);
        let shape = [rows, outputs];
        let (mut sums, mut again) = (vec![f64::NAN; output.len()], vec![f64::NAN; output.len()]);
        layer
            .forward_with_sums(
                ViewMut::contiguous(&mut sums, shape).expect("sums"),
                ViewMut::contiguous(&mut again, shape).expect("output"),
                &Pool::new(2),
            )
            .expect("shapes fit");
        assert!(output.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-15), "{name}");
        let gradients = |sums: Option<&[f64]>| {
            let mut got = operands.clone();
            let [input, weight, bias] = &mut got;
            let view = |numbers| View::contiguous(numbers, shape).expect("as large as the output");
            layer
                .backward(
                    view(&weights),
                    Saved { output: Some(view(&output)), sums: sums.map(view) },
                    Gradients {
                        input: Some(ViewMut::contiguous(input, [rows, inputs]).expect("input")),
                        weight: Some(
                            ViewMut::contiguous(weight, [outputs, inputs]).expect("weight"),
                        ),
                        bias: Some(ViewMut::contiguous(bias, [outputs]).expect("bias")),
                    },
                    &Pool::new(2),
                )
                .expect("shapes fit");
            got
        };
        let got = gradients(Some(&sums));
        assert_eq!(got, gradients(None), "{name}: sums computed again are the same");
        for (which, got) in got.iter().enumerate() {
            for (place, got) in got.iter().enumerate() {
                let step = |by: f64| {
                    let mut moved = operands.clone();
                    moved[which][place] += by;
                    loss(&moved, name)
                };
                let expected = (step(1e-6) - step(-1e-6)) / 2e-6;
                assert!((got - expected).abs() < 1e-7, "{name} {which} {place}: {got} {expected}");
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_told() {
    let (input, weight) = (vec![0.0; 6], vec![0.0; 8]);
    let input = View::contiguous(&input, [2, 3]).expect("6 numbers");
    let weight = View::contiguous(&weight, [2, 4]).expect("8 numbers");
    let error = Linear::<f64>::new(input, weight, None, Activation::Identity).err();
    assert!(error.expect("3 is not 4").to_string().contains("must have 4 features"));
}
