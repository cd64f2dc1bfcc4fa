//! A call by the kernel and by the definition, with every gradient by both.

use fusewire_simd::{Bf16, Element, Real, on_each_isa};

use crate::math::Elementary;
use crate::parallel::{Pool, Team};
use crate::rnn::reference::{Kind, Parameters};
use crate::rnn::{
    Backward, Cell, Elman, Forward, Gradients, Gru, Lstm, Relu, Steps, Tanh, WeightGradients,
    Weights, backward, forward, saved_columns,
};
use crate::view::{View, ViewMut};

pub(super) const KINDS: [Kind; 4] = [Kind::Tanh, Kind::Relu, Kind::Lstm, Kind::Gru];

/// A call's sizes; sequences come the longest first.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) kind: Kind,
    pub(super) lengths: Vec<usize>,
    pub(super) input_size: usize,
    pub(super) hidden_size: usize,
    pub(super) reverse: bool,
}

/// The operands, and the results, of a call, by these indices.
pub(super) type Numbers = Vec<Vec<f64>>;
pub(super) const INPUT: usize = 0;
pub(super) const HIDDEN: usize = 1;
pub(super) const CELL: usize = 2;
pub(super) const INPUT_WEIGHT: usize = 3;
pub(super) const HIDDEN_WEIGHT: usize = 4;
pub(super) const INPUT_BIAS: usize = 5;
pub(super) const HIDDEN_BIAS: usize = 6;
const NAMES: [&str; 7] = [
    "input",
    "hidden state",
    "cell state",
    "input weight",
    "hidden weight",
    "input bias",
    "hidden bias",
];

impl Case {
    fn gates(&self) -> usize {
        match self.kind {
            Kind::Tanh | Kind::Relu => 1,
            Kind::Lstm => 4,
            Kind::Gru => 3,
        }
    }

    fn cell_size(&self) -> usize {
        if self.kind == Kind::Lstm { self.hidden_size } else { 0 }
    }

    fn total(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn batch_sizes(&self) -> Vec<usize> {
        let longest = self.lengths.first().copied().unwrap_or(0);
        (0..longest).map(|time| self.lengths.iter().filter(|&&l| l > time).count()).collect()
    }

    pub(super) fn steps(&self) -> Steps {
        Steps::new(&self.batch_sizes(), self.lengths.len(), self.reverse).expect("sorted")
    }

    pub(super) fn operand_shapes(&self) -> [[usize; 2]; 7] {
        let (batch, rows) = (self.lengths.len(), self.gates() * self.hidden_size);
        [
            [self.total(), self.input_size],
            [batch, self.hidden_size],
            [batch, self.cell_size()],
            [rows, self.input_size],
            [rows, self.hidden_size],
            [1, rows],
            [1, rows],
        ]
    }

    /// The shapes of the output and the final states.
    pub(super) fn result_shapes(&self) -> [[usize; 2]; 3] {
        let batch = self.lengths.len();
        [[self.total(), self.hidden_size], [batch, self.hidden_size], [batch, self.cell_size()]]
    }

    pub(super) fn operands(&self, seed: u64) -> Numbers {
        let scale = 1.0 / (self.hidden_size as f64).sqrt();
        let shapes = self.operand_shapes().into_iter().enumerate();
        shapes
            .map(|(i, [rows, columns])| {
                let scale = if i < INPUT_WEIGHT { 1.0 } else { scale };
                random(rows * columns, seed + i as u64).into_iter().map(|x| x * scale).collect()
            })
            .collect()
    }

    /// Output, final hidden state and final cell state by the definition.
    fn reference(&self, operands: &Numbers) -> Numbers {
        let parameters = Parameters {
            kind: self.kind,
            input: operands[INPUT_WEIGHT].clone(),
            hidden: operands[HIDDEN_WEIGHT].clone(),
            input_bias: operands[INPUT_BIAS].clone(),
            hidden_bias: operands[HIDDEN_BIAS].clone(),
        };
        let sizes = self.batch_sizes();
        let row = |time: usize, sequence: usize| sizes[..time].iter().sum::<usize>() + sequence;
        let slice = |numbers: &[f64], row: usize, columns: usize| {
            numbers[row * columns..(row + 1) * columns].to_vec()
        };
        let mut results: Numbers =
            self.result_shapes().map(|[rows, columns]| vec![f64::NAN; rows * columns]).into();
        for (sequence, &length) in self.lengths.iter().enumerate() {
            let mut hidden = slice(&operands[HIDDEN], sequence, self.hidden_size);
            let mut cell = slice(&operands[CELL], sequence, self.cell_size());
            for step in 0..length {
                let time = if self.reverse { length - 1 - step } else { step };
                let at = row(time, sequence);
                let input = slice(&operands[INPUT], at, self.input_size);
                (hidden, cell) = parameters.step(&input, &hidden, &cell);
                results[0][at * self.hidden_size..][..self.hidden_size].copy_from_slice(&hidden);
            }
            let place = sequence * self.hidden_size;
            results[1][place..][..self.hidden_size].copy_from_slice(&hidden);
            let place = sequence * self.cell_size();
            results[2][place..][..self.cell_size()].copy_from_slice(&cell);
        }
        results
    }

    /// The results, and the gradients of their sum weighted by `gradients`, by the kernel.
    pub(super) fn run<T: Elementary>(
        &self,
        operands: &Numbers,
        gradients: &Numbers,
        team: &dyn Team,
    ) -> (Numbers, Numbers) {
        match self.kind {
            Kind::Tanh => self.run_cell::<T, Elman<Tanh>>(operands, gradients, team),
            Kind::Relu => self.run_cell::<T, Elman<Relu>>(operands, gradients, team),
            Kind::Lstm => self.run_cell::<T, Lstm>(operands, gradients, team),
            Kind::Gru => self.run_cell::<T, Gru>(operands, gradients, team),
        }
    }

    fn run_cell<T: Elementary, C: Cell>(
        &self,
        operands: &Numbers,
        outer: &Numbers,
        team: &dyn Team,
    ) -> (Numbers, Numbers) {
        let steps = self.steps();
        let operands = convert::<T>(operands);
        let outer = convert::<T>(outer);
        let mut gradients: Vec<Vec<T>> = nan(&self.operand_shapes());
        let saved_shape = [self.total(), saved_columns::<C>(self.hidden_size)];
        let mut saved = vec![T::NAN; saved_shape[0] * saved_shape[1]];
        let shapes = self.operand_shapes();
        let view = |i: usize| View::contiguous(&operands[i], shapes[i]).expect("fits");
        let results = self.forward_cell::<T, C>(&operands, None, team);
        assert_eq!(results, self.forward_cell::<T, C>(&operands, Some(&mut saved), team));
        let result_shapes = self.result_shapes();
        let outer = |i: usize| View::contiguous(&outer[i], result_shapes[i]).expect("fits");
        let [input, hidden, cell, input_weight, hidden_weight, input_bias, hidden_bias] =
            views_mut(&mut gradients, shapes);
        let call = Backward {
            steps: &steps,
            weights: self.weights(&operands),
            input: view(INPUT),
            hidden: view(HIDDEN),
            output: View::contiguous(&results[0], result_shapes[0]).expect("fits"),
            saved: View::contiguous(&saved, saved_shape).expect("fits"),
            output_gradient: Some(outer(0)),
            final_hidden_gradient: Some(outer(1)),
            final_cell_gradient: Some(outer(2)),
            gradients: Gradients {
                input: Some(input),
                hidden,
                cell,
                weights: Some(WeightGradients {
                    input: input_weight,
                    hidden: hidden_weight,
                    input_bias: input_bias.inner([0]),
                    hidden_bias: hidden_bias.inner([0]),
                }),
            },
        };
        backward::<T, C>(vec![call], team).expect("shapes fit");
        (widen(&results), widen(&gradients))
    }

    fn weights<'a, E>(&self, operands: &'a [Vec<E>]) -> Weights<'a, E> {
        let shapes = self.operand_shapes();
        let view = |i: usize| View::contiguous(&operands[i], shapes[i]).expect("fits");
        Weights {
            input: view(INPUT_WEIGHT),
            hidden: view(HIDDEN_WEIGHT),
            input_bias: Some(view(INPUT_BIAS).inner([0])),
            hidden_bias: Some(view(HIDDEN_BIAS).inner([0])),
        }
    }

    /// The results, and what is kept where there is room for it.
    fn forward_cell<E: Element<Real: Elementary>, C: Cell>(
        &self,
        operands: &[Vec<E>],
        saved: Option<&mut [E::Real]>,
        team: &dyn Team,
    ) -> Vec<Vec<E>> {
        let shapes = self.operand_shapes();
        let view = |i: usize| View::contiguous(&operands[i], shapes[i]).expect("fits");
        let mut results: Vec<Vec<E>> = nan(&self.result_shapes());
        let [output, hidden, cell] = views_mut(&mut results, self.result_shapes());
        let saved_shape = [self.total(), saved_columns::<C>(self.hidden_size)];
        let call = Forward {
            steps: &self.steps(),
            weights: self.weights(operands),
            input: view(INPUT),
            hidden: view(HIDDEN),
            cell: view(CELL),
            output,
            final_hidden: hidden,
            final_cell: cell,
            saved: saved.map(|saved| ViewMut::contiguous(saved, saved_shape).expect("fits")),
        };
        forward::<E, C>(vec![call], team).expect("shapes fit");
        results
    }

    /// The results for operands as they are stored.
    fn infer<E: Element<Real: Elementary>>(&self, operands: &[Vec<E>], team: &dyn Team) -> Numbers {
        let results = match self.kind {
            Kind::Tanh => self.forward_cell::<E, Elman<Tanh>>(operands, None, team),
            Kind::Relu => self.forward_cell::<E, Elman<Relu>>(operands, None, team),
            Kind::Lstm => self.forward_cell::<E, Lstm>(operands, None, team),
            Kind::Gru => self.forward_cell::<E, Gru>(operands, None, team),
        };
        widen(&results)
    }

    /// Inference in 16 bits: hidden states are rounded for each product, and results once.
    fn check_halves(&self, isa: &str) {
        let operands = convert::<Bf16>(&self.operands(1));
        let expected = self.reference(&widen(&operands));
        let results = self.infer(&operands, &Pool::new(1));
        assert_near(&results, &expected, 4e-3, &format!("{isa} {self:?} of 16 bits"));
        for threads in [2, 5] {
            assert_eq!(results, self.infer(&operands, &Pool::new(threads)), "{isa} {self:?}");
        }
    }

    pub(super) fn check(&self) {
        let operands = self.operands(1);
        let shapes = self.result_shapes();
        let outer: Numbers =
            shapes.iter().zip(20..).map(|([r, c], seed)| random(r * c, seed)).collect();
        let expected = self.reference(&operands);
        let mut gradients: Option<Numbers> = None;
        on_each_isa(|isa| {
            self.check_halves(isa.as_str());
            let context = format!("{isa} {self:?}");
            let double = self.run::<f64>(&operands, &outer, &Pool::new(1));
            assert_near(&double.0, &expected, 1e-13, &context);
            let truth = gradients.get_or_insert_with(|| {
                self.check_gradients(&operands, &outer, &double.1);
                double.1.clone()
            });
            assert_near(&double.1, truth, 1e-12, &context);
            let single = self.run::<f32>(&operands, &outer, &Pool::new(1));
            assert_near(&single.0, &expected, 2e-6, &context);
            assert_near(&single.1, truth, 5e-6, &context);
            for threads in [2, 5] {
                let team = Pool::new(threads);
                assert_eq!(single, self.run::<f32>(&operands, &outer, &team), "{context}");
            }
        });
    }

    /// Compares gradients with finite differences of the reference along random directions.
    fn check_gradients(&self, operands: &Numbers, outer: &Numbers, gradients: &Numbers) {
        let loss = |operands: &Numbers| -> f64 {
            let results = self.reference(operands);
            results.iter().zip(outer).map(|(result, weight)| dot(result, weight)).sum()
        };
        const STEP: f64 = 1e-5;
        for (i, name) in NAMES.iter().enumerate() {
            for seed in 50..53 {
                let direction = random(operands[i].len(), seed);
                let moved = |step: f64| {
                    let mut operands = operands.clone();
                    let numbers = operands[i].iter_mut().zip(&direction);
                    numbers.for_each(|(x, d)| *x += step * d);
                    loss(&operands)
                };
                let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                let got = dot(&gradients[i], &direction);
                let scale = dot(&gradients[i], &gradients[i]).sqrt().max(1.0);
                assert!(
                    (got - expected).abs() <= 1e-7 * scale,
                    "{self:?}: the gradient of the {name} is {got} along a line, not {expected}"
                );
            }
        }
    }
}

fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // A number that float32 holds exactly.
        f64::from((state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn convert<E: Element>(numbers: &Numbers) -> Vec<Vec<E>> {
    let number = |&x| E::from_real(E::Real::from_f64(x));
    numbers.iter().map(|numbers| numbers.iter().map(number).collect()).collect()
}

fn widen<E: Element>(numbers: &[Vec<E>]) -> Numbers {
    let number = |&x: &E| x.to_real().to_f64();
    numbers.iter().map(|numbers| numbers.iter().map(number).collect()).collect()
}

fn nan<E: Element>(shapes: &[[usize; 2]]) -> Vec<Vec<E>> {
    shapes.iter().map(|[rows, columns]| vec![E::from_real(E::Real::NAN); rows * columns]).collect()
}

fn views_mut<T, const N: usize>(
    numbers: &mut [Vec<T>],
    shapes: [[usize; 2]; N],
) -> [ViewMut<'_, T, 2>; N] {
    let mut numbers = numbers.iter_mut();
    shapes.map(|shape| {
        ViewMut::contiguous(numbers.next().expect("as many as shapes"), shape).expect("fits")
    })
}

/// Asserts that the error is at most `bound` times the norm of the truth (or 1).
fn assert_near(got: &Numbers, expected: &Numbers, bound: f64, context: &str) {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error: f64 = got.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
        let scale = dot(expected, expected).sqrt().max(1.0);
        assert!(error.sqrt() <= bound * scale, "{context}: number {i} is off by {}", error.sqrt());
    }
}
