//! The parameters of one layer in one direction, and the shapes that must agree.

use super::{Cell, Steps};
use crate::parallel::{Serial, Team};
use crate::view::View;
use crate::{Error, Result};

/// The parameters of one layer in one direction, as `torch.nn` keeps them.
#[derive(Clone, Copy)]
pub struct Weights<'a, T> {
    /// What the input is multiplied by, `(gates · hidden_size, input_size)`.
    pub input: View<'a, T, 2>,
    /// What the hidden state is multiplied by, `(gates · hidden_size, hidden_size)`.
    pub hidden: View<'a, T, 2>,
    /// What is added to the input's product, `(gates · hidden_size)`, or nothing.
    pub input_bias: Option<View<'a, T, 1>>,
    /// What is added to the hidden state's product, `(gates · hidden_size)`, or nothing.
    pub hidden_bias: Option<View<'a, T, 1>>,
}

/// The sizes of a call, which all its operands must have.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) total: usize,
    pub(super) batch: usize,
    pub(super) input_size: usize,
    pub(super) hidden_size: usize,
    /// `hidden_size` where the cell has a second state, else 0.
    pub(super) cell_size: usize,
}

/// Multiplications per gate that take as long as waking a team, some ten microseconds.
const WORTH_A_TEAM: usize = 1 << 20;

/// Rows that are multiplied with a weight as it lies: packing it would take longer.
const FEW_ROWS: usize = 16;

/// Rows of a step that wait for the weight, not for the products with it.
const FEW_SEQUENCES: usize = 2;

impl Sizes {
    /// Whether all steps together have too few rows to repay packing a weight.
    pub(super) fn has_few_rows(&self) -> bool {
        self.total <= FEW_ROWS
    }

    /// The team for one direction's work: of threads that wake in less time than they save.
    pub(super) fn team<'t>(&self, team: &'t dyn Team) -> &'t dyn Team {
        let depth = self.input_size.saturating_add(self.hidden_size);
        let work = self.total.saturating_mul(self.hidden_size).saturating_mul(depth);
        if work < WORTH_A_TEAM { &Serial } else { team }
    }

    /// Whether a step has so few rows that a weight comes from its cache as fast as it lies as packed.
    pub(super) fn has_few_sequences(&self) -> bool {
        self.batch <= FEW_SEQUENCES || self.has_few_rows()
    }

    /// The sizes of a call, once the operands that forward and backward share have been checked.
    pub(super) fn check<C: Cell, T>(
        steps: &Steps,
        input: View<'_, T, 2>,
        states: [View<'_, T, 2>; 2],
        weights: &Weights<'_, T>,
    ) -> Result<Self> {
        let hidden_size = weights.hidden.columns();
        if hidden_size == 0 {
            return Err(Error::Value("hidden_size must be at least 1".into()));
        }
        let cell_size = if C::HAS_CELL_STATE { hidden_size } else { 0 };
        let sizes = Self {
            total: steps.total(),
            batch: steps.batch(),
            input_size: weights.input.columns(),
            hidden_size,
            cell_size,
        };
        let columns = C::GATES
            .checked_mul(hidden_size)
            .ok_or_else(|| Error::Memory(format!("hidden_size {hidden_size} is too large")))?;
        expect("weight_hh", weights.hidden.shape(), [columns, hidden_size])?;
        expect("weight_ih", weights.input.shape(), [columns, sizes.input_size])?;
        for (name, bias) in [("bias_ih", weights.input_bias), ("bias_hh", weights.hidden_bias)] {
            if let Some(bias) = bias {
                expect(name, bias.shape(), [columns])?;
            }
        }
        expect("input", input.shape(), [sizes.total, sizes.input_size])?;
        expect("the hidden state", states[0].shape(), [sizes.batch, hidden_size])?;
        expect("the cell state", states[1].shape(), [sizes.batch, cell_size])?;
        Ok(sizes)
    }
}

/// Checks one operand's shape.
pub(super) fn expect<const N: usize>(
    name: &str,
    shape: [usize; N],
    expected: [usize; N],
) -> Result<()> {
    if shape == expected { Ok(()) } else { Err(Error::shape(name, &expected, &shape)) }
}
