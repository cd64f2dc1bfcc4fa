//! The backward pass of one direction: what lasts from chunk to chunk, and the products behind each.

use std::marker::PhantomData;
use std::ops::Range;

use fusewire_simd::Lanes;

use super::run::{Layer, Own, Run, State};
use super::{Backward, WeightGradients};
use crate::Result;
use crate::gemm::{ColumnSums, Matmul, NoEpilogue, Start, matmul};
use crate::math::Elementary;
use crate::parallel::{PackedRows, Phases, Serial, Task, Team, all_parts};
use crate::rnn::cell::Cell;
use crate::rnn::copies::copy;
use crate::rnn::cut::Cut;
use crate::rnn::panels::BackWeight;
use crate::rnn::weights::Sizes;
use crate::rnn::{Steps, padded};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};

/// Rows whose gradients are computed before they are multiplied: enough for an efficient product,
/// few enough to be still in the last cache. A multiple of what a product sums in one chain.
const CHUNK_ROWS: usize = 1152;

/// Rows of a product's task are a multiple of this: few enough that threads get equal shares.
const PRODUCT_ROWS: usize = 64;

/// Rows whose products are summed in one chain for the gradient of a weight.
const WEIGHT_CHAIN: usize = 64;
/// The same for a recurrent weight: PyTorch sums its products step by step, in chains as short.
const RECURRENT_WEIGHT_CHAIN: usize = 32;

/// Columns of a task of sums are a multiple of this: whole lines of several rows.
const SUMMED_COLUMNS: usize = 256;

/// One direction, whose phases are the steps from the last to the first, and one behind them for the
/// gradients of the initial states.
pub(super) struct Direction<'a, T: Elementary, C> {
    layer: Layer<'a, T, C>,
    input: View<'a, T, 2>,
    input_weight: View<'a, T, 2>,
    input_gradient: Option<ViewMut<'a, T, 2>>,
    state_gradients: [ViewMut<'a, T, 2>; 2],
    weight_gradients: Option<WeightGradients<'a, T>>,
    cut: Cut,
    chunks: Vec<Chunk>,
    /// The gradients of the gates' sums of a chunk, in rows of `C::GRADIENTS · hidden_size`.
    sums: Scratch<T>,
    /// The hidden states before the steps of a chunk.
    previous: Scratch<T>,
    /// The sums of the gates' gradients over all rows so far.
    bias_sums: Scratch<T>,
    runs: Vec<Lasting<T>>,
    kind: PhantomData<C>,
}

/// Neighbouring steps.
struct Chunk {
    phases: Range<usize>,
    times: Range<usize>,
    /// Where each time's rows begin in the chunk, and where the last's end.
    offsets: Vec<usize>,
    /// The rows of the whole data.
    rows: Range<usize>,
}

/// What lasts from chunk to chunk of a run of sequences.
struct Lasting<T: Elementary> {
    sequences: Range<usize>,
    exchange: Scratch<T>,
    parts: Vec<State<T>>,
}

impl<'a, T: Elementary, C: Cell> Direction<'a, T, C> {
    pub(super) fn new<I: Lanes<T>>(
        isa: I,
        call: Backward<'a, T>,
        sizes: Sizes,
        cut: Cut,
        team: &dyn Team,
    ) -> Result<Self> {
        let layer = Layer {
            steps: call.steps,
            sizes,
            hidden: call.hidden,
            output: call.output,
            saved: call.saved,
            output_gradient: call.output_gradient,
            weight: {
                let few = sizes.has_few_rows();
                BackWeight::new(isa, call.weights.hidden, few, team)?
            },
        };
        let finals = [call.final_hidden_gradient, call.final_cell_gradient];
        let mut runs = Vec::new();
        for run in 0..sizes.batch.div_ceil(cut.rows) {
            let sequences = cut.sequences(run, sizes.batch);
            let parts = (0..cut.parts)
                .map(|part| {
                    let units = cut.part(part, sizes.hidden_size);
                    State::new::<C>(sequences.clone(), units, finals)
                })
                .collect::<Result<_>>()?;
            let exchange = Scratch::zeros(2 * sequences.len() * layer.exchange_stride())?;
            runs.push(Lasting { sequences, exchange, parts });
        }
        let chunks = chunks(call.steps);
        let most = chunks.iter().map(|chunk| chunk.rows.len()).max().unwrap_or(0);
        Ok(Self {
            layer,
            input: call.input,
            input_weight: call.weights.input,
            input_gradient: call.gradients.input,
            state_gradients: [call.gradients.hidden, call.gradients.cell],
            weight_gradients: call.gradients.weights,
            cut,
            chunks,
            sums: Scratch::take(most * padded(C::GRADIENTS * sizes.hidden_size))?,
            previous: Scratch::take(most * padded(sizes.hidden_size))?,
            bias_sums: Scratch::zeros(C::GRADIENTS * sizes.hidden_size)?,
            runs,
            kind: PhantomData,
        })
    }

    /// How many chunks of steps there are.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Adds the phases of a chunk, and the runs that take their shifts.
    pub(super) fn begin<'d>(
        &'d mut self,
        chunk: usize,
        phases: &mut Vec<Phases<'d, T, Own<'d, T>>>,
        runs: &mut Vec<Run<'d, 'a, T, C>>,
    ) -> Result<()> {
        let Self { layer, chunks, sums, cut, .. } = self;
        let Some(chunk) = chunks.get(chunk) else { return Ok(()) };
        let Sizes { batch, hidden_size, .. } = layer.sizes;
        let stride = padded(C::GRADIENTS * hidden_size);
        let rows = chunk.rows.len();
        let sums = ViewMut::contiguous(&mut sums[..rows * stride], [rows, stride])?;
        let slots =
            all_parts(sums.slice(1, 0..C::GRADIENTS * hidden_size).blocks([0, hidden_size]));
        let mut slots: Vec<_> = slots
            .into_iter()
            .map(|slot| all_parts(PackedRows::new(slot, &chunk.offsets, batch, cut.rows)))
            .map(Vec::into_iter)
            .collect();
        for lasting in &mut self.runs {
            let rows = lasting.sequences.len();
            let mut slots: Vec<_> = slots
                .iter_mut()
                .filter_map(Iterator::next)
                .map(|slot| slot.cut(cut.parts, cut.units).into_iter())
                .collect();
            let own = lasting.parts.iter_mut().map(|state| Own {
                sums: slots.iter_mut().filter_map(Iterator::next).collect(),
                state,
            });
            let own = own.collect();
            let stride = layer.exchange_stride();
            let exchange = ViewMut::contiguous(&mut lasting.exchange, [2, rows, stride])?;
            let width = cut.units * C::GATES;
            phases.push(Phases::new(chunk.phases.clone(), exchange, width, own));
            let (sequences, first_time) = (lasting.sequences.clone(), chunk.times.start);
            runs.push(Run { layer, sequences, first_time, kind: PhantomData });
        }
        Ok(())
    }

    /// Adds what is to be done with a chunk's gradients, in tasks for `threads` to share.
    pub(super) fn multiply<'d, I: Lanes<T>>(
        &'d mut self,
        isa: I,
        index: usize,
        threads: usize,
        tasks: &mut Vec<Task<'d>>,
    ) -> Result<()> {
        if index >= self.chunks.len() {
            return Ok(());
        }
        if self.weight_gradients.is_some() {
            self.gather_previous(index)?;
        }
        let hidden_size = self.layer.sizes.hidden_size;
        let chunk = &self.chunks[index];
        let rows = chunk.rows.len();
        let shape = [rows, padded(C::GRADIENTS * hidden_size)];
        let sums = View::contiguous(&self.sums[..shape[0] * shape[1]], shape)?;
        let input_sums = sums.slice(1, 0..C::GATES * hidden_size);
        if let Some(gradient) = &mut self.input_gradient {
            let c = gradient.reborrow().slice(0, chunk.rows.clone());
            let b = self.input_weight;
            let (a, start, epilogue) = (input_sums, Start::Zero, NoEpilogue);
            add_product(tasks, threads, Matmul { a, b, c, start, epilogue, chain: None });
        }
        let Some(gradients) = &mut self.weight_gradients else { return Ok(()) };
        let start = if index == 0 { Start::Zero } else { Start::Accumulate };
        let chain = Some(WEIGHT_CHAIN);
        let (a, b) = (input_sums.transpose(), self.input.slice(0, chunk.rows.clone()));
        let c = gradients.input.reborrow();
        add_product(tasks, threads, Matmul { a, b, c, start, epilogue: NoEpilogue, chain });
        let shape = [rows, padded(hidden_size)];
        let previous = View::contiguous(&self.previous[..shape[0] * shape[1]], shape)?;
        let b = previous.slice(1, 0..hidden_size);
        let weights = all_parts(gradients.hidden.reborrow().blocks([C::SHARED * hidden_size, 0]));
        for (slots, c) in gate_runs::<C>().zip(weights) {
            let columns = slots.start * hidden_size..slots.end * hidden_size;
            let a = sums.slice(1, columns).transpose();
            let chain = Some(RECURRENT_WEIGHT_CHAIN);
            add_product(tasks, threads, Matmul { a, b, c, start, epilogue: NoEpilogue, chain });
        }
        let rows = sums.slice(1, 0..C::GRADIENTS * hidden_size);
        let width = self.bias_sums.len().div_ceil(threads).next_multiple_of(SUMMED_COLUMNS);
        for (part, sums) in self.bias_sums.chunks_mut(width).enumerate() {
            let rows = rows.slice(1, part * width..part * width + sums.len());
            tasks.push(Box::new(move || isa.vectorize(ColumnSums { rows, sums })));
        }
        Ok(())
    }

    /// Collects the hidden states before the steps of a chunk.
    fn gather_previous(&mut self, index: usize) -> Result<()> {
        let Sizes { batch, hidden_size, .. } = self.layer.sizes;
        let chunk = &self.chunks[index];
        let shape = [chunk.rows.len(), padded(hidden_size)];
        for time in chunk.times.clone() {
            let at = chunk.offsets[time - chunk.times.start];
            let (before, initial) = self.layer.previous(time, 0..batch);
            for (states, first) in [(before, at), (initial, at + before.rows())] {
                let target = &mut self.previous[..shape[0] * shape[1]];
                let target = ViewMut::contiguous(target, shape)?;
                let target = target.slice(0, first..first + states.rows());
                copy(states, target.slice(1, 0..hidden_size));
            }
        }
        Ok(())
    }

    /// Stores what is known behind the last chunk: the gradients of biases and initial states.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Some(gradients) = &mut self.weight_gradients {
            let hidden_size = self.layer.sizes.hidden_size;
            for (index, &sum) in self.bias_sums.iter().enumerate() {
                if index < C::GATES * hidden_size {
                    gradients.input_bias.set([index], sum);
                }
                if index < C::SHARED * hidden_size {
                    gradients.hidden_bias.set([index], sum);
                } else if index >= C::GATES * hidden_size {
                    let apart = index - (C::GATES - C::SHARED) * hidden_size;
                    gradients.hidden_bias.set([apart], sum);
                }
            }
        }
        self.store_states()
    }

    fn store_states(&mut self) -> Result<()> {
        let [hidden, cell] = &mut self.state_gradients;
        for run in &self.runs {
            for state in &run.parts {
                let (sequences, units) = (run.sequences.clone(), state.units.clone());
                let target = hidden.reborrow().slice(0, sequences.clone()).slice(1, units.clone());
                copy(state.hidden()?, target);
                if C::HAS_CELL_STATE {
                    let target = cell.reborrow().slice(0, sequences).slice(1, units);
                    copy(state.cell()?, target);
                }
            }
        }
        Ok(())
    }
}

/// Cuts a product by rows into tasks, which pack the right operand each for itself.
fn add_product<'d, T: Elementary>(
    tasks: &mut Vec<Task<'d>>,
    threads: usize,
    product: Matmul<'d, T, NoEpilogue>,
) {
    let Matmul { a, b, c, start, epilogue, chain } = product;
    let height = c.rows().div_ceil(threads).next_multiple_of(PRODUCT_ROWS);
    for (part, c) in all_parts(c.blocks([height, 0])).into_iter().enumerate() {
        let a = a.slice(0, part * height..part * height + c.rows());
        let product = Matmul { a, b, c, start, epilogue, chain };
        tasks.push(Box::new(move || matmul(product, &Serial)));
    }
}

/// Cuts the steps, the last first; the phase behind them belongs to the last chunk.
fn chunks(steps: &Steps) -> Vec<Chunk> {
    let (seq_len, offsets) = (steps.seq_len(), steps.offsets());
    let mut chunks = Vec::new();
    let mut first = 0;
    loop {
        let mut end = first;
        let mut rows = 0;
        while end < seq_len && (end == first || rows < CHUNK_ROWS) {
            let time = steps.time(seq_len - 1 - end);
            rows += offsets[time + 1] - offsets[time];
            end += 1;
        }
        let last = end == seq_len;
        let times = match end - first {
            0 => 0..0,
            count => {
                let ends = [steps.time(seq_len - 1 - first), steps.time(seq_len - end)];
                let first_time = ends[0].min(ends[1]);
                first_time..first_time + count
            }
        };
        let base = offsets[times.start];
        chunks.push(Chunk {
            phases: first..if last { end + 1 } else { end },
            rows: base..offsets[times.end],
            offsets: offsets[times.start..=times.end].iter().map(|at| at - base).collect(),
            times,
        });
        if last {
            return chunks;
        }
        first = end;
    }
}

/// The slots of the gradients of the products with the hidden state: those of the shared gates, and
/// those of the others, which lie behind those of all gates.
fn gate_runs<C: Cell>() -> impl Iterator<Item = Range<usize>> {
    [0..C::SHARED, C::GATES..C::GRADIENTS].into_iter().filter(|run| !run.is_empty())
}
