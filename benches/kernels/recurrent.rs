//! Recurrent layers beside the machine's peak, and single steps beside one reading of their weights;
//! one core, float32: `cargo bench --bench recurrent [-- part of a cell's name and shape]`.

use std::time::Instant;

use fusewire_kernels::parallel::Serial;
use fusewire_kernels::peak;
use fusewire_kernels::rnn::{
    Backward, Cell, Elman, Forward, Gradients, Gru, Lstm, Steps, Tanh, WeightGradients, Weights,
    backward, forward, saved_columns,
};
use fusewire_kernels::scratch::Scratch;
use fusewire_kernels::view::{View, ViewMut};

/// Numbers that begin with a cache line, as tensors do.
type Numbers = Scratch<f32>;

/// Repetitions of one measurement take this long, at least three of them.
const SECONDS: f64 = 0.25;

/// `(steps, batch, input, hidden)`.
const SHAPES: [[usize; 4]; 7] = [
    [1, 1, 256, 256],
    [64, 1, 256, 256],
    [64, 16, 128, 128],
    [64, 32, 256, 256],
    [128, 64, 512, 512],
    [35, 20, 650, 650],
    [512, 8, 1024, 1024],
];

/// Seconds of `call`: the median of some.
fn seconds(mut call: impl FnMut()) -> f64 {
    let (mut times, begin) = (Vec::new(), Instant::now());
    while times.len() < 4 || begin.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Numbers of both signs, none larger than `size`.
fn numbers(count: usize, size: f32) -> Numbers {
    let mut numbers = Scratch::take(count).expect("little");
    for (i, number) in numbers.iter_mut().enumerate() {
        *number = ((i * 7919 % 2001) as f32 / 1000.0 - 1.0) * size;
    }
    numbers
}

/// No numbers, in the place of those that a call works with.
fn none() -> Numbers {
    numbers(0, 0.0)
}

/// The operands and results of a layer.
struct Data {
    shape: [usize; 4],
    gates: usize,
    cell_size: usize,
    input: Numbers,
    weights: [Numbers; 3],
    state: Numbers,
    output: Numbers,
    finals: [Numbers; 2],
    saved: Numbers,
    of_input: Numbers,
    of_weights: [Numbers; 4],
}

/// The first numbers of `data` as rows of `columns`.
fn rows(data: &[f32], rows: usize, columns: usize) -> View<'_, f32, 2> {
    View::contiguous(&data[..rows * columns], [rows, columns]).expect("fits")
}

/// The same to be written.
fn rows_mut(data: &mut [f32], rows: usize, columns: usize) -> ViewMut<'_, f32, 2> {
    ViewMut::contiguous(&mut data[..rows * columns], [rows, columns]).expect("fits")
}

impl Data {
    fn new<C: Cell>(shape: [usize; 4]) -> Self {
        let [steps, batch, input, hidden] = shape;
        let (total, gates) = (steps * batch, C::GATES * hidden);
        let scale = (hidden as f32).powf(-0.5);
        Self {
            shape,
            gates,
            cell_size: if C::HAS_CELL_STATE { hidden } else { 0 },
            input: numbers(total * input, 1.0),
            weights: [gates * input, gates * hidden, gates].map(|count| numbers(count, scale)),
            state: numbers(batch * hidden, 0.0),
            output: numbers(total * hidden, 0.0),
            finals: [numbers(batch * hidden, 0.0), numbers(batch * hidden, 0.0)],
            saved: numbers(total * saved_columns::<C>(hidden), 0.0),
            of_input: numbers(total * input, 0.0),
            of_weights: [gates * input, gates * hidden, gates, gates].map(|n| numbers(n, 0.0)),
        }
    }

    fn weights(&self) -> Weights<'_, f32> {
        let [_, _, input, hidden] = self.shape;
        let bias = View::contiguous(&self.weights[2], [self.gates]).expect("fits");
        Weights {
            input: rows(&self.weights[0], self.gates, input),
            hidden: rows(&self.weights[1], self.gates, hidden),
            input_bias: Some(bias),
            hidden_bias: Some(bias),
        }
    }

    fn forward<C: Cell>(&mut self, keep: bool) {
        let [steps, batch, input, hidden] = self.shape;
        let total = steps * batch;
        let steps = Steps::equal(steps, batch, false).expect("few");
        let mut output = std::mem::replace(&mut self.output, none());
        let mut finals = std::mem::replace(&mut self.finals, [none(), none()]);
        let mut saved = std::mem::replace(&mut self.saved, none());
        let [final_hidden, final_cell] = &mut finals;
        let call = Forward {
            steps: &steps,
            weights: self.weights(),
            input: rows(&self.input, total, input),
            hidden: rows(&self.state, batch, hidden),
            cell: rows(&self.state, batch, self.cell_size),
            output: rows_mut(&mut output, total, hidden),
            final_hidden: rows_mut(final_hidden, batch, hidden),
            final_cell: rows_mut(final_cell, batch, self.cell_size),
            saved: keep.then(|| rows_mut(&mut saved, total, saved_columns::<C>(hidden))),
        };
        forward::<f32, C>(vec![call], &Serial).expect("shapes fit");
        (self.output, self.finals, self.saved) = (output, finals, saved);
    }

    fn backward<C: Cell>(&mut self) {
        let [steps, batch, input, hidden] = self.shape;
        let total = steps * batch;
        let steps = Steps::equal(steps, batch, false).expect("few");
        let mut of_input = std::mem::replace(&mut self.of_input, none());
        let mut finals = std::mem::replace(&mut self.finals, [none(), none()]);
        let mut of_weights =
            std::mem::replace(&mut self.of_weights, [none(), none(), none(), none()]);
        let [of_hidden, of_cell] = &mut finals;
        let [weight_ih, weight_hh, bias_ih, bias_hh] = &mut of_weights;
        let call = Backward {
            steps: &steps,
            weights: self.weights(),
            input: rows(&self.input, total, input),
            hidden: rows(&self.state, batch, hidden),
            output: rows(&self.output, total, hidden),
            saved: rows(&self.saved, total, saved_columns::<C>(hidden)),
            output_gradient: Some(rows(&self.output, total, hidden)),
            final_hidden_gradient: None,
            final_cell_gradient: None,
            gradients: Gradients {
                input: Some(rows_mut(&mut of_input, total, input)),
                hidden: rows_mut(of_hidden, batch, hidden),
                cell: rows_mut(of_cell, batch, self.cell_size),
                weights: Some(WeightGradients {
                    input: rows_mut(weight_ih, self.gates, input),
                    hidden: rows_mut(weight_hh, self.gates, hidden),
                    input_bias: ViewMut::contiguous(bias_ih, [self.gates]).expect("fits"),
                    hidden_bias: ViewMut::contiguous(bias_hh, [self.gates]).expect("fits"),
                }),
            },
        };
        backward::<f32, C>(vec![call], &Serial).expect("shapes fit");
        (self.of_input, self.finals, self.of_weights) = (of_input, finals, of_weights);
    }
}

#[allow(clippy::print_stdout)] // the table is what it is run for
fn table<C: Cell>(name: &str) {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for shape @ [steps, batch, input, hidden] in SHAPES {
        let label = format!("{name} {steps}x{batch}x{input}x{hidden}");
        if only.as_ref().is_some_and(|only| !label.contains(only.as_str())) {
            continue;
        }
        let mut data = Data::new::<C>(shape);
        let weights = C::GATES * hidden * (input + hidden);
        let peak = peak::flops::<f32>();
        let work = 2.0 * (steps * batch * weights) as f64 / peak;
        let inference = seconds(|| data.forward::<C>(false));
        let training = seconds(|| data.forward::<C>(true));
        let gradients = seconds(|| data.backward::<C>());
        println!(
            "{label} | ms, of peak: inference {:.3} {:.2}, keeping {:.3} {:.2}, backward {:.3} {:.2}",
            1e3 * inference,
            work / inference,
            1e3 * training,
            work / training,
            1e3 * gradients,
            2.0 * work / gradients,
        );
        if steps == 1 {
            let bytes = weights * size_of::<f32>();
            let once = bytes as f64 / peak::read(bytes);
            let (step, once) = (1e6 * inference, 1e6 * once);
            println!("  a step {step:.1} us; reading its {bytes} bytes once {once:.1} us");
        }
    }
}

fn main() {
    table::<Lstm>("lstm");
    table::<Gru>("gru");
    table::<Elman<Tanh>>("elman");
}
