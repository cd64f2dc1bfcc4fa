//! Every cell against its definition: outputs, and every gradient by finite differences; edge sizes,
//! lengths, directions, instruction sets, numbers of threads, strides, outputs that start as NaN.

mod case;

use self::case::{
    CELL, Case, HIDDEN, HIDDEN_BIAS, HIDDEN_WEIGHT, INPUT, INPUT_BIAS, INPUT_WEIGHT, KINDS, Numbers,
};
use super::reference::Kind;
use super::{Forward, Gru, Steps, Weights, forward};
use crate::parallel::Pool;
use crate::view::{View, ViewMut};

fn check_all(lengths: &[usize], input_size: usize, hidden_size: usize) {
    for kind in KINDS {
        for reverse in [false, true] {
            let lengths = lengths.to_vec();
            Case { kind, lengths, input_size, hidden_size, reverse }.check();
        }
    }
}

#[test]
fn equal_lengths() {
    check_all(&[5; 7], 9, 7);
    check_all(&[3; 2], 1, 1);
    check_all(&[1], 33, 16);
}

#[test]
fn different_lengths() {
    check_all(&[6, 6, 4, 3, 3, 1, 0, 0], 4, 17);
    check_all(&[9, 1], 3, 33);
    check_all(&[2, 0], 5, 64);
}

#[test]
fn nothing_to_do() {
    check_all(&[], 3, 5);
    check_all(&[0; 3], 3, 5);
    check_all(&[2; 2], 0, 5);
}

#[test]
fn many_sequences_in_several_parts() {
    check_all(&[2; 150], 3, 10);
}

#[test]
fn more_steps_than_a_chunk() {
    let lengths = vec![500; 9];
    let case = Case { kind: Kind::Gru, lengths, input_size: 2, hidden_size: 40, reverse: false };
    case.check();
}

#[test]
fn odd_hidden_size() {
    for kind in [Kind::Lstm, Kind::Gru] {
        Case { kind, lengths: vec![3, 3, 2], input_size: 20, hidden_size: 650, reverse: false }
            .check();
    }
}

#[test]
fn absent_gradients_are_zero_and_input_may_be_strided() {
    let case = Case {
        kind: Kind::Gru,
        lengths: vec![4; 3],
        input_size: 6,
        hidden_size: 5,
        reverse: false,
    };
    let operands = case.operands(3);
    let zeros: Numbers = case.result_shapes().map(|[r, c]| vec![0.0; r * c]).into();
    let (results, gradients) = case.run::<f64>(&operands, &zeros, &Pool::new(1));
    assert!(gradients.iter().flatten().all(|&x| x == 0.0));

    // The same input, its rows the columns of a matrix.
    let transposed: Vec<f64> = (0..6 * 12).map(|i| operands[INPUT][i % 12 * 6 + i / 12]).collect();
    let mut output = vec![f64::NAN; 12 * 5];
    let mut hidden = vec![f64::NAN; 15];
    let shapes = case.operand_shapes();
    let view = |i: usize| View::contiguous(&operands[i], shapes[i]).expect("fits");
    let call = Forward {
        steps: &case.steps(),
        weights: Weights {
            input: view(INPUT_WEIGHT),
            hidden: view(HIDDEN_WEIGHT),
            input_bias: Some(view(INPUT_BIAS).inner([0])),
            hidden_bias: Some(view(HIDDEN_BIAS).inner([0])),
        },
        input: View::contiguous(&transposed, [6, 12]).expect("fits").transpose(),
        hidden: view(HIDDEN),
        cell: view(CELL),
        output: ViewMut::contiguous(&mut output, [12, 5]).expect("fits"),
        final_hidden: ViewMut::contiguous(&mut hidden, [3, 5]).expect("fits"),
        final_cell: ViewMut::contiguous(&mut [], [3, 0]).expect("fits"),
        saved: None,
    };
    forward::<f64, Gru>(vec![call], &Pool::new(1)).expect("shapes fit");
    assert_eq!(output, results[0]);
}

#[test]
fn wrong_shapes_are_named() {
    let message = Steps::new(&[2, 3], 3, false).expect_err("they increase").to_string();
    assert!(message.contains("3 comes after 2"), "{message}");
    let message = Steps::new(&[4], 3, false).expect_err("more than the batch").to_string();
    assert!(message.contains("batch of 3"), "{message}");

    let numbers = [0.0_f32; 64];
    let matrix = |rows: usize, columns: usize| {
        View::contiguous(&numbers[..rows * columns], [rows, columns]).expect("fits")
    };
    let mut output = [0.0_f32; 64];
    let (output, hidden) = output.split_at_mut(8);
    let call = Forward {
        steps: &Steps::equal(2, 2, false).expect("few"),
        weights: Weights {
            input: matrix(6, 3),
            hidden: matrix(6, 2),
            input_bias: None,
            hidden_bias: None,
        },
        input: matrix(4, 5),
        hidden: matrix(2, 2),
        cell: matrix(2, 0),
        output: ViewMut::contiguous(output, [4, 2]).expect("fits"),
        final_hidden: ViewMut::contiguous(&mut hidden[..4], [2, 2]).expect("fits"),
        final_cell: ViewMut::contiguous(&mut [], [2, 0]).expect("fits"),
        saved: None,
    };
    let message = forward::<f32, Gru>(vec![call], &Pool::new(1)).expect_err("3 ≠ 5").to_string();
    assert!(message.contains("input must have shape [4, 3], but has [4, 5]"), "{message}");
}
