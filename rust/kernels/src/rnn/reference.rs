//! Recurrent cells as they are defined, one sequence at a time, in float64.

/// Which cell; the enumeration of [`super::Cell`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Elman with tanh.
    Tanh,
    /// Elman with max(x, 0).
    Relu,
    /// Long short-term memory.
    Lstm,
    /// The gated recurrent unit.
    Gru,
}

/// The parameters of a layer, `(gates · hidden_size, …)` row by row.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Which cell.
    pub kind: Kind,
    /// What the input is multiplied by.
    pub input: Vec<f64>,
    /// What the hidden state is multiplied by.
    pub hidden: Vec<f64>,
    /// Added to the input's product.
    pub input_bias: Vec<f64>,
    /// Added to the hidden state's product.
    pub hidden_bias: Vec<f64>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `W x + b`.
fn affine(weight: &[f64], x: &[f64], bias: &[f64]) -> Vec<f64> {
    let row = |row: usize| &weight[row * x.len()..(row + 1) * x.len()];
    let dot = |a: &[f64]| a.iter().zip(x).map(|(a, x)| a * x).sum::<f64>();
    bias.iter().enumerate().map(|(i, bias)| dot(row(i)) + bias).collect()
}

impl Parameters {
    /// The next hidden and cell state from the input and the last ones; other cells than LSTM leave
    /// the cell state as it is.
    pub fn step(&self, input: &[f64], hidden: &[f64], cell: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let size = hidden.len();
        let of_input = affine(&self.input, input, &self.input_bias);
        let of_hidden = affine(&self.hidden, hidden, &self.hidden_bias);
        let sum =
            |gate: usize, unit: usize| of_input[gate * size + unit] + of_hidden[gate * size + unit];
        let mut next_cell = cell.to_vec();
        let next_hidden = (0..size).map(|unit| match self.kind {
            Kind::Tanh => sum(0, unit).tanh(),
            Kind::Relu => sum(0, unit).max(0.0),
            Kind::Lstm => {
                let [input, forget, output] = [0, 1, 3].map(|gate| sigmoid(sum(gate, unit)));
                next_cell[unit] = forget * cell[unit] + input * sum(2, unit).tanh();
                output * next_cell[unit].tanh()
            }
            Kind::Gru => {
                let [reset, update] = [0, 1].map(|gate| sigmoid(sum(gate, unit)));
                let at = 2 * size + unit;
                let candidate = (of_input[at] + reset * of_hidden[at]).tanh();
                (1.0 - update) * candidate + update * hidden[unit]
            }
        });
        (next_hidden.collect(), next_cell)
    }
}
