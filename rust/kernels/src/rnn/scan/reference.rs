//! The recurrences as they are defined, one unit at a time, in float64.

/// Which cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`super::MinGru`].
    Gru,
    /// [`super::MinLstm`].
    Lstm,
}

impl Kind {
    /// The number of gates.
    pub fn gates(self) -> usize {
        match self {
            Self::Gru => 2,
            Self::Lstm => 3,
        }
    }

    /// A unit's next state from its gates' sums and its last state.
    pub fn step(self, sums: &[f64], hidden: f64, positive: bool) -> f64 {
        let candidate = |sum: f64| match positive {
            true if sum >= 0.0 => sum + 0.5,
            true => sigmoid(sum),
            false => sum,
        };
        match self {
            Self::Gru => {
                let update = sigmoid(sums[0]);
                (1.0 - update) * hidden + update * candidate(sums[1])
            }
            Self::Lstm => {
                let [forget, input] = [sigmoid(sums[0]), sigmoid(sums[1])];
                (forget * hidden + input * candidate(sums[2])) / (forget + input)
            }
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
