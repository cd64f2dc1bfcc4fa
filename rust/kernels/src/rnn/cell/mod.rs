//! What a recurrent cell is: a strategy for one block of units of one sequence at one step.

mod elman;
mod gru;
mod lstm;

use fusewire_simd::{Lanes, Real};

use crate::math::Elementary;

pub use elman::{Elman, Relu, Tanh};
pub use gru::Gru;
pub use lstm::Lstm;

/// A cell computes its gates' sums from two products, that of the input and that of the last hidden
/// state, and from the gates the next state.
pub trait Cell: Copy + Send + Sync + 'static {
    /// Gates, in the order of `torch.nn`'s weights.
    const GATES: usize;
    /// The leading gates in which the two products are simply added. The others keep them apart, so
    /// that their two weights have different gradients.
    const SHARED: usize;
    /// Numbers per unit that the forward pass keeps for the backward pass.
    const SAVED: usize;
    /// Units of a block: as many as fill the register tile with all gates, and whole vectors.
    const UNITS: usize;
    /// Whether there is a cell state beside the hidden state.
    const HAS_CELL_STATE: bool;

    /// Numbers per unit that the backward pass computes: the gradients of the gates' sums, and for
    /// gates that are not shared a second one, that of the hidden state's product.
    const GRADIENTS: usize = 2 * Self::GATES - Self::SHARED;
    /// All gates of a block.
    const COLUMNS: usize = Self::GATES * Self::UNITS;
    /// Units of a block in the cell state.
    const CELL_UNITS: usize = if Self::HAS_CELL_STATE { Self::UNITS } else { 0 };

    /// One step for one block of units.
    fn forward<T: Elementary, I: Lanes<T>>(isa: I, step: ForwardStep<'_, T>);

    /// The gradients of one step for one block of units.
    fn backward<T: Elementary, I: Lanes<T>>(isa: I, step: BackwardStep<'_, T>);
}

/// A step's numbers of a block of units; where there are several gates, one gate's units follow
/// another's.
pub struct ForwardStep<'a, T> {
    /// The input's product with its bias, and that of the hidden state where the gate is shared.
    pub(super) projection: &'a [T],
    /// The product of the last hidden state.
    pub(super) product: &'a [T],
    /// The bias of that product where the gate is not shared, else 0.
    pub(super) bias: &'a [T],
    /// The last hidden state.
    pub(super) previous: &'a [T],
    /// The new hidden state.
    pub(super) hidden: &'a mut [T],
    /// The cell state, last and then new; empty without one.
    pub(super) cell: &'a mut [T],
    /// What the backward pass will need.
    pub(super) saved: &'a mut [T],
}

impl<T: Real> ForwardStep<'_, T> {
    /// The sum of a shared gate, for a vector of units.
    #[inline(always)]
    fn sum<C: Cell, I: Lanes<T>>(&self, isa: I, gate: usize, unit: usize) -> I::Vector {
        let at = gate * C::UNITS + unit;
        isa.add(isa.load(&self.projection[at..]), isa.load(&self.product[at..]))
    }

    /// Keeps a vector of units for the backward pass.
    #[inline(always)]
    fn save<C: Cell, I: Lanes<T>>(&mut self, isa: I, slot: usize, unit: usize, value: I::Vector) {
        isa.store(&mut self.saved[slot * C::UNITS + unit..], value);
    }
}

/// A step's numbers of a block of units, in the backward direction; in the last block, numbers from
/// outside end with the last unit.
pub struct BackwardStep<'a, T> {
    /// What [`Cell::forward`] kept.
    pub(super) saved: &'a [T],
    /// The last hidden state.
    pub(super) previous: &'a [T],
    /// The new hidden state.
    pub(super) hidden: &'a [T],
    /// The gradient of the new hidden state as an output; empty where it is 0.
    pub(super) output_gradient: &'a [T],
    /// The gradient of the new hidden state from later steps; then that of the last hidden state,
    /// less what reaches it through its product.
    pub(super) hidden_gradient: &'a mut [T],
    /// The gradient of the new cell state; then that of the last.
    pub(super) cell_gradient: &'a mut [T],
    /// The gradients of the sums: those of all gates, then the second ones of those not shared.
    pub(super) sums: &'a mut [T],
}

impl<T: Real> BackwardStep<'_, T> {
    /// A kept vector of units.
    #[inline(always)]
    fn saved<C: Cell, I: Lanes<T>>(&self, isa: I, slot: usize, unit: usize) -> I::Vector {
        isa.load(&self.saved[slot * C::UNITS + unit..])
    }

    /// The whole gradient of the new hidden state, for a vector of units.
    #[inline(always)]
    fn hidden_gradient<I: Lanes<T>>(&self, isa: I, unit: usize) -> I::Vector {
        let later = isa.load(&self.hidden_gradient[unit..]);
        isa.add(later, load_outside(isa, self.output_gradient, unit))
    }

    /// Stores the gradient of a sum for a vector of units.
    #[inline(always)]
    fn store<C: Cell, I: Lanes<T>>(
        &mut self,
        isa: I,
        slot: usize,
        unit: usize,
        gradient: I::Vector,
    ) {
        isa.store(&mut self.sums[slot * C::UNITS + unit..], gradient);
    }
}

/// A vector from numbers that may end before it does; what is missing is 0.
#[inline(always)]
fn load_outside<T: Real, I: Lanes<T>>(isa: I, numbers: &[T], unit: usize) -> I::Vector {
    isa.load_first(numbers.get(unit..).unwrap_or_default())
}
