//! Scans against their definition and finite differences of it.

use fusewire_simd::on_each_isa;

use super::reference::Kind;
use super::{Linear, MinGru, MinLstm, Minimal, Positive, Scan, ScanOutcome};
use crate::math::Elementary;
use crate::parallel::{Pool, Team};
use crate::rnn::Steps;
use crate::view::{View, ViewMut};

/// A call's sizes; sequences come the longest first.
#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    positive: bool,
    lengths: Vec<usize>,
    hidden_size: usize,
    reverse: bool,
}

/// The gates' sums and the initial states, or their gradients, or the output and the final states.
type Pair = [Vec<f64>; 2];

impl Case {
    fn steps(&self) -> Steps {
        let longest = self.lengths.first().copied().unwrap_or(0);
        let active = |time| self.lengths.iter().filter(|&&length| length > time).count();
        let sizes: Vec<usize> = (0..longest).map(active).collect();
        Steps::new(&sizes, self.lengths.len(), self.reverse).expect("sorted")
    }

    fn shapes(&self) -> [[usize; 2]; 3] {
        let (total, batch) = (self.lengths.iter().sum(), self.lengths.len());
        let columns = self.kind.gates() * self.hidden_size;
        [[total, columns], [total, self.hidden_size], [batch, self.hidden_size]]
    }

    fn reference(&self, [gates, hidden]: &Pair) -> Pair {
        let (steps, size) = (self.steps(), self.hidden_size);
        let [_, [total, _], _] = self.shapes();
        let mut output = vec![f64::NAN; total * size];
        let mut last = hidden.clone();
        for (sequence, &length) in self.lengths.iter().enumerate() {
            for step in 0..length {
                let time = if self.reverse { length - 1 - step } else { step };
                let row = steps.offsets()[time] + sequence;
                for unit in 0..size {
                    let sums: Vec<f64> = (0..self.kind.gates())
                        .map(|gate| gates[(row * self.kind.gates() + gate) * size + unit])
                        .collect();
                    let state = &mut last[sequence * size + unit];
                    *state = self.kind.step(&sums, *state, self.positive);
                    output[row * size + unit] = *state;
                }
            }
        }
        [output, last]
    }

    /// The results, and the gradients of their sum weighted by `outer`.
    fn run<T: Elementary>(&self, operands: &Pair, outer: &Pair, team: &dyn Team) -> (Pair, Pair) {
        match (self.kind, self.positive) {
            (Kind::Gru, false) => self.run_cell::<T, MinGru<Linear>>(operands, outer, team),
            (Kind::Gru, true) => self.run_cell::<T, MinGru<Positive>>(operands, outer, team),
            (Kind::Lstm, false) => self.run_cell::<T, MinLstm<Linear>>(operands, outer, team),
            (Kind::Lstm, true) => self.run_cell::<T, MinLstm<Positive>>(operands, outer, team),
        }
    }

    fn run_cell<T: Elementary, C: Minimal>(
        &self,
        operands: &Pair,
        outer: &Pair,
        team: &dyn Team,
    ) -> (Pair, Pair) {
        let convert = |pair: &Pair| -> [Vec<T>; 2] {
            pair.each_ref().map(|numbers| numbers.iter().map(|&x| T::from_f64(x)).collect())
        };
        let widen = |pair: [Vec<T>; 2]| -> Pair {
            pair.map(|numbers| numbers.into_iter().map(T::to_f64).collect())
        };
        let [of_gates, of_output, of_state] = self.shapes();
        let (operands, outer) = (convert(operands), convert(outer));
        let nan = |[rows, columns]: [usize; 2]| vec![T::NAN; rows * columns];
        let [mut output, mut last] = [nan(of_output), nan(of_state)];
        let [mut gates_gradient, mut hidden_gradient] = [nan(of_gates), nan(of_state)];
        let steps = self.steps();
        let scan = Scan {
            steps: &steps,
            gates: View::contiguous(&operands[0], of_gates).expect("fits"),
            hidden: View::contiguous(&operands[1], of_state).expect("fits"),
        };
        scan.forward::<C>(
            ViewMut::contiguous(&mut output, of_output).expect("fits"),
            ViewMut::contiguous(&mut last, of_state).expect("fits"),
            team,
        )
        .expect("shapes fit");
        let outcome = ScanOutcome {
            output: View::contiguous(&output, of_output).expect("fits"),
            output_gradient: Some(View::contiguous(&outer[0], of_output).expect("fits")),
            final_gradient: Some(View::contiguous(&outer[1], of_state).expect("fits")),
        };
        scan.backward::<C>(
            outcome,
            ViewMut::contiguous(&mut gates_gradient, of_gates).expect("fits"),
            ViewMut::contiguous(&mut hidden_gradient, of_state).expect("fits"),
            team,
        )
        .expect("shapes fit");
        (widen([output, last]), widen([gates_gradient, hidden_gradient]))
    }

    fn check(&self) {
        let [of_gates, of_output, of_state] = self.shapes().map(|[r, c]| r * c);
        let operands = [random(of_gates, 1), random(of_state, 2)];
        let outer = [random(of_output, 3), random(of_state, 4)];
        let expected = self.reference(&operands);
        let mut truth: Option<Pair> = None;
        on_each_isa(|isa| {
            let context = format!("{isa} {self:?}");
            let double = self.run::<f64>(&operands, &outer, &Pool::new(1));
            assert_near(&double.0, &expected, 1e-14, &context);
            let truth = truth.get_or_insert_with(|| {
                self.check_gradients(&operands, &outer, &double.1);
                double.1.clone()
            });
            assert_near(&double.1, truth, 1e-14, &context);
            let single = self.run::<f32>(&operands, &outer, &Pool::new(1));
            assert_near(&single.0, &expected, 5e-7, &context);
            assert_near(&single.1, truth, 1e-6, &context);
            for threads in [2, 5] {
                let again = self.run::<f32>(&operands, &outer, &Pool::new(threads));
                assert_eq!(single, again, "{context}");
            }
        });
    }

    /// Compares gradients with finite differences of the reference along a random direction.
    fn check_gradients(&self, operands: &Pair, outer: &Pair, gradients: &Pair) {
        const STEP: f64 = 1e-5;
        let loss = |operands: &Pair| -> f64 {
            let results = self.reference(operands);
            results.iter().zip(outer).map(|(result, weight)| dot(result, weight)).sum()
        };
        let size = |[output, last]: Pair| output.into_iter().chain(last).map(f64::abs).sum::<f64>();
        let loss_size = size(self.reference(operands));
        for i in 0..2 {
            let direction = random(operands[i].len(), 50);
            let moved = |step: f64| {
                let mut operands = operands.clone();
                operands[i].iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
                loss(&operands)
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let got = dot(&gradients[i], &direction);
            let scale = dot(&gradients[i], &gradients[i]).sqrt().max(1.0);
            // The losses are rounded, and their difference is divided by the step.
            let rounding = f64::EPSILON * loss_size / STEP;
            assert!(
                (got - expected).abs() <= 1e-7 * scale + rounding,
                "{self:?} {i}: {got}, not {expected}"
            );
        }
    }
}

fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // A number that float32 holds exactly, of either sign, some large enough to saturate.
        4.0 * (f64::from((state >> 40) as f32 / (1_u32 << 23) as f32) - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Asserts that the error is at most `bound` times the norm of the truth (or 1).
fn assert_near(got: &Pair, expected: &Pair, bound: f64, context: &str) {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error: f64 = got.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
        let scale = dot(expected, expected).sqrt().max(1.0);
        assert!(error.sqrt() <= bound * scale, "{context}: number {i} is off by {}", error.sqrt());
    }
}

#[test]
fn kernels_agree_with_the_definition() {
    // Chunks of 256 steps begin where a few sequences have 512 steps or more.
    let lengths = [
        vec![],
        vec![0, 0],
        vec![1],
        vec![5, 3, 3, 1, 0],
        vec![511, 2],
        vec![512, 257, 256, 255, 0],
    ];
    let many = vec![9; 17];
    for (kind, positive) in
        [(Kind::Gru, false), (Kind::Gru, true), (Kind::Lstm, false), (Kind::Lstm, true)]
    {
        for lengths in lengths.iter().chain([&many]) {
            for (hidden_size, reverse) in [(1, false), (7, true), (16, false), (33, true)] {
                Case { kind, positive, lengths: lengths.clone(), hidden_size, reverse }.check();
            }
        }
    }
}

#[test]
fn gates_far_from_0_give_finite_numbers() {
    let case =
        |kind| Case { kind, positive: false, lengths: vec![4], hidden_size: 2, reverse: false };
    for kind in [Kind::Gru, Kind::Lstm] {
        let case = case(kind);
        let sums = [-1e30, 1e30, -500.0, 500.0, 88.0, -88.0];
        let gates = sums.into_iter().cycle().take(8 * kind.gates()).collect();
        let (results, gradients) =
            case.run::<f32>(&[gates, vec![1.0; 2]], &[vec![1.0; 8], vec![1.0; 2]], &Pool::new(1));
        for numbers in results.iter().chain(&gradients) {
            assert!(numbers.iter().all(|x| !x.is_nan()), "{kind:?} {numbers:?}");
        }
    }
}

#[test]
fn gates_that_are_both_nearly_0_keep_their_ratio() {
    let case = Case {
        kind: Kind::Lstm,
        positive: false,
        lengths: vec![1],
        hidden_size: 1,
        reverse: false,
    };
    for (forget, input) in [
        (-88.0, -90.0),
        (-200.0, -150.0),
        (-101.0, -100.0),
        (-750.0, -740.0),
        (-1e9, -1e9),
        (-1e25, -1e20),
        (f64::NEG_INFINITY, 3.0),
        (-3.0, f64::NEG_INFINITY),
        (-800.0, 800.0),
        (500.0, 500.0),
    ] {
        // Sigmoids of such sums are 0 or 1 but for a factor, of which the ratio is a sigmoid again.
        let logarithm = |sum: f64| sum.min(0.0) - (-sum.abs()).exp().ln_1p();
        let written = 1.0 / (1.0 + (logarithm(forget) - logarithm(input)).exp());
        let slope = written * (1.0 - written);
        let inner = |sum: f64| 1.0 / (1.0 + sum.exp());
        let gradients = [-slope * inner(forget), slope * inner(input), written];
        let operands = [vec![forget, input, 1.0], vec![0.0]];
        let outer = [vec![1.0], vec![0.0]];
        on_each_isa(|isa| {
            let context = format!("{isa} {forget} {input}");
            let expected =
                ([vec![written], vec![written]], [gradients.to_vec(), vec![1.0 - written]]);
            let double = case.run::<f64>(&operands, &outer, &Pool::new(1));
            assert_near(&double.0, &expected.0, 1e-14, &context);
            assert_near(&double.1, &expected.1, 1e-14, &context);
            let single = case.run::<f32>(&operands, &outer, &Pool::new(1));
            assert_near(&single.0, &expected.0, 3e-7, &context);
            assert_near(&single.1, &expected.1, 3e-7, &context);
        });
    }
}

#[test]
fn wrong_shapes_are_named() {
    let numbers = [0.0_f32; 12];
    let mut output = [0.0_f32; 6];
    let scan = Scan {
        steps: &Steps::equal(2, 1, false).expect("few"),
        gates: View::contiguous(&numbers[..10], [2, 5]).expect("fits"),
        hidden: View::contiguous(&numbers[..2], [1, 2]).expect("fits"),
    };
    let (output, last) = output.split_at_mut(4);
    let message = scan
        .forward::<MinGru<Linear>>(
            ViewMut::contiguous(output, [2, 2]).expect("fits"),
            ViewMut::contiguous(last, [1, 2]).expect("fits"),
            &Pool::new(1),
        )
        .expect_err("5 is odd")
        .to_string();
    assert!(message.contains("sums must have shape [2, 4], but has [2, 5]"), "{message}");
}
