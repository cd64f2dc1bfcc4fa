//! One batch: scores of all windows, then the updates of all windows.

use fusewire_simd::{Kernel, Lanes};

use super::parts::{gather, scatter};
use super::rows::{prefetch_row, width};
use super::windows::{Batch, Window};
use super::{Embeddings, Pass};
use crate::math::{Elementary, ln, sigmoid};
use crate::parallel::{Team, try_for_each_part};
use crate::scratch::Scratch;
use crate::view::{View, ViewMut};
use crate::{Error, Result};

/// Windows that a thread scores at a time.
const WINDOWS: usize = 16;

/// Context vectors whose products with an output are summed in registers at the same time.
const TILE: usize = 4;

/// Probabilities below this count as this in the loss.
pub(super) const LEAST_PROBABILITY: f64 = 1e-8;

impl<T: Elementary> Embeddings<T> {
    /// Learns from a batch; puts the loss of every window into `losses`.
    pub(super) fn learn(
        &mut self,
        batch: &Batch,
        pass: Pass,
        losses: &mut [T],
        team: &dyn Team,
    ) -> Result<()> {
        let stride = self.stride();
        let input = ViewMut::contiguous(&mut self.input, [self.rows, stride])?;
        let output = ViewMut::contiguous(&mut self.output, [self.words, stride])?;
        let Some(parts) = &self.parts else {
            return learn(batch, pass, input, output, losses, team);
        };
        // Every word of the batch is put together once, learns, and hands what it has learnt to its parts.
        let shape = [batch.words.len(), stride];
        let mut before = Scratch::take(shape[0] * stride)?;
        let mut after = Scratch::take(shape[0] * stride)?;
        gather(batch, parts, input.as_view(), ViewMut::contiguous(&mut before, shape)?, team);
        after.copy_from_slice(&before);
        learn(batch, pass, ViewMut::contiguous(&mut after, shape)?, output, losses, team)?;
        let [before, after] = [&before, &after].map(|words| View::contiguous(words, shape));
        scatter(batch, parts, [before?, after?], input, team);
        Ok(())
    }
}

/// Scores all windows on the vectors as they stand, then applies every update.
fn learn<T: Elementary>(
    batch: &Batch,
    pass: Pass,
    input: ViewMut<'_, T, 2>,
    output: ViewMut<'_, T, 2>,
    losses: &mut [T],
    team: &dyn Team,
) -> Result<()> {
    let shape = [batch.windows.len(), pass.pairs()];
    let mut coefficients = Scratch::take(shape[0] * shape[1])?;
    let scored = ViewMut::contiguous(&mut coefficients, shape)?;
    score(batch, pass, [input.as_view(), output.as_view()], scored, losses, team)?;
    update(batch, pass, [input, output], View::contiguous(&coefficients, shape)?, team)
}

/// Computes `learning_rate · (label − σ(h_c·u_o))` for every pair, and the loss of every window.
///
/// The coefficients of a window are a row; those of its vector `c` begin at `c · pass.outputs()`.
fn score<T: Elementary>(
    batch: &Batch,
    pass: Pass,
    [input, output]: [View<'_, T, 2>; 2],
    coefficients: ViewMut<'_, T, 2>,
    losses: &mut [T],
    team: &dyn Team,
) -> Result<()> {
    let losses = ViewMut::contiguous(losses, [batch.windows.len(), 1])?;
    let parts = (coefficients.blocks([WINDOWS, 0]), losses.blocks([WINDOWS, 0]));
    try_for_each_part(team, parts, |index, (coefficients, losses)| {
        let mut hidden = Scratch::take(pass.vectors() * input.columns())?;
        let first = index * WINDOWS;
        T::dispatch(Score {
            batch,
            windows: &batch.windows[first..first + losses.rows()],
            input,
            output,
            coefficients,
            losses,
            row: pass.outputs(),
            hidden: &mut hidden,
        });
        Ok(())
    })
}

/// Applies every window's update, in the order of the text.
fn update<T: Elementary>(
    batch: &Batch,
    pass: Pass,
    [input, output]: [ViewMut<'_, T, 2>; 2],
    coefficients: View<'_, T, 2>,
    team: &dyn Team,
) -> Result<()> {
    let width = width(input.columns(), team);
    let parts = (input.blocks([0, width]), output.blocks([0, width]));
    try_for_each_part(team, parts, |_, (input, output)| {
        let columns = input.columns();
        let mut hidden = Scratch::take(pass.vectors() * columns)?;
        let mut slopes = Scratch::take(pass.vectors() * columns)?;
        let mut outputs = Scratch::take(pass.outputs() * columns)?;
        T::dispatch(Update {
            batch,
            input,
            output,
            coefficients,
            row: pass.outputs(),
            hidden: &mut hidden,
            slopes: &mut slopes,
            outputs: &mut outputs,
        });
        Ok::<(), Error>(())
    })
}

struct Score<'a, T> {
    batch: &'a Batch,
    windows: &'a [Window],
    input: View<'a, T, 2>,
    output: View<'a, T, 2>,
    coefficients: ViewMut<'a, T, 2>,
    losses: ViewMut<'a, T, 2>,
    /// Coefficients from one vector of a window to the next.
    row: usize,
    /// Room for the context vectors of a window.
    hidden: &'a mut [T],
}

impl<T: Elementary> Kernel<T> for Score<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let stride = self.input.columns();
        for (index, window) in self.windows.iter().enumerate() {
            if let Some(next) = self.windows.get(index + 1) {
                self.prefetch(isa, next);
            }
            let vectors = window.vectors.len();
            for (place, vector) in window.vectors.clone().enumerate() {
                let target = &mut self.hidden[place * stride..(place + 1) * stride];
                context(isa, self.batch, vector, self.input, target);
            }
            let hidden = &self.hidden[..vectors * stride];
            let coefficients = self.coefficients.row_mut(index);
            for (place, &word) in self.batch.outputs[window.outputs.clone()].iter().enumerate() {
                let output = self.output.row(word as usize);
                let mut first = 0;
                while first + TILE <= vectors {
                    let targets = &mut coefficients[first * self.row + place..];
                    products::<T, I, TILE>(
                        isa,
                        &hidden[first * stride..],
                        output,
                        targets,
                        self.row,
                    );
                    first += TILE;
                }
                while first < vectors {
                    let targets = &mut coefficients[first * self.row + place..];
                    products::<T, I, 1>(isa, &hidden[first * stride..], output, targets, self.row);
                    first += 1;
                }
            }
            let mut loss = isa.zero();
            for vector in 0..vectors {
                let scores = &mut coefficients[vector * self.row..][..window.outputs.len()];
                loss = isa.add(loss, differentiate(isa, scores, self.batch.learning_rate));
            }
            self.losses.row_mut(index)[0] = isa.sum_lanes(loss);
        }
    }
}

impl<T: Elementary> Score<'_, T> {
    #[inline(always)]
    fn prefetch<I: Lanes<T>>(&self, isa: I, window: &Window) {
        for vector in window.vectors.clone() {
            for &member in &self.batch.members[self.batch.vectors[vector].clone()] {
                prefetch_row(isa, self.input.row(member as usize));
            }
        }
        for &word in &self.batch.outputs[window.outputs.clone()] {
            prefetch_row(isa, self.output.row(word as usize));
        }
    }
}

/// A context vector: the mean of its words.
#[inline(always)]
fn context<T: Elementary, I: Lanes<T>>(
    isa: I,
    batch: &Batch,
    vector: usize,
    words: View<'_, T, 2>,
    target: &mut [T],
) {
    let members = batch.vectors[vector].clone();
    for place in members.clone() {
        let share = isa.splat(T::from_f64(batch.shares[place]));
        let source = words.row(batch.members[place] as usize);
        for (source, target) in source.chunks_exact(I::LANES).zip(target.chunks_exact_mut(I::LANES))
        {
            let scaled = isa.mul(share, isa.load(source));
            let first = place == members.start;
            isa.store(target, if first { scaled } else { isa.add(isa.load(target), scaled) });
        }
    }
}

/// The products of `V` vectors with an output, each to the beginning of a row of `targets`.
#[inline(always)]
fn products<T: Elementary, I: Lanes<T>, const V: usize>(
    isa: I,
    vectors: &[T],
    output: &[T],
    targets: &mut [T],
    row: usize,
) {
    let stride = output.len();
    let vectors = &vectors[..V * stride];
    let mut sums = [isa.zero(); V];
    for column in (0..stride).step_by(I::LANES) {
        let output = isa.load(&output[column..]);
        for v in 0..V {
            sums[v] = isa.mul_add(isa.load(&vectors[v * stride + column..]), output, sums[v]);
        }
    }
    for v in 0..V {
        targets[v * row] = isa.sum_lanes(sums[v]);
    }
}

/// Turns the scores of one vector into coefficients; returns its loss, spread over lanes.
#[inline(always)]
fn differentiate<T: Elementary, I: Lanes<T>>(
    isa: I,
    scores: &mut [T],
    learning_rate: f64,
) -> I::Vector {
    let rate = isa.splat(T::from_f64(learning_rate));
    let (zero, one) = (isa.zero(), isa.splat(T::ONE));
    let least = isa.splat(T::from_f64(LEAST_PROBABILITY));
    let mut loss = zero;
    for (index, part) in scores.chunks_mut(I::LANES).enumerate() {
        // The first score is that of the centre, which is right; the others are wrong.
        let right = isa.first(if index == 0 { 1 } else { 0 });
        let probability = sigmoid(isa, isa.load_first(part));
        let label = isa.select(right, one, zero);
        let said = isa.select(right, probability, isa.sub(one, probability));
        let surprise = ln(isa, isa.max(least, said));
        let exists = isa.first(part.len());
        loss = isa.sub(loss, isa.select(exists, surprise, zero));
        isa.store_first(part, isa.mul(rate, isa.sub(label, probability)));
    }
    loss
}

struct Update<'a, T> {
    batch: &'a Batch,
    /// The same columns of both tables.
    input: ViewMut<'a, T, 2>,
    output: ViewMut<'a, T, 2>,
    coefficients: View<'a, T, 2>,
    row: usize,
    /// Room for the context vectors of a window, their gradients, and its outputs.
    hidden: &'a mut [T],
    slopes: &'a mut [T],
    outputs: &'a mut [T],
}

impl<T: Elementary> Kernel<T> for Update<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Lanes<T>>(mut self, isa: I) {
        let columns = self.input.columns();
        for (index, window) in self.batch.windows.iter().enumerate() {
            let coefficients = self.coefficients.row(index);
            let words = &self.batch.outputs[window.outputs.clone()];
            for (place, &word) in words.iter().enumerate() {
                let target = &mut self.outputs[place * columns..(place + 1) * columns];
                target.copy_from_slice(self.output.row_mut(word as usize));
            }
            for (place, vector) in window.vectors.clone().enumerate() {
                let own = place * columns..(place + 1) * columns;
                let input = self.input.as_view();
                context(isa, self.batch, vector, input, &mut self.hidden[own.clone()]);
                // Of all outputs before any of them moves.
                let coefficients = &coefficients[place * self.row..][..words.len()];
                weighted_sum(isa, coefficients, 1, self.outputs, &mut self.slopes[own]);
            }
            for (place, &word) in words.iter().enumerate() {
                let coefficients = &coefficients[place..];
                let target = self.output.row_mut(word as usize);
                let hidden = &self.hidden[..window.vectors.len() * columns];
                add_weighted_sum(isa, coefficients, self.row, hidden, target);
            }
            for (place, vector) in window.vectors.clone().enumerate() {
                let slope = &self.slopes[place * columns..(place + 1) * columns];
                for &member in &self.batch.members[self.batch.vectors[vector].clone()] {
                    add_weighted_sum(isa, &[T::ONE], 1, slope, self.input.row_mut(member as usize));
                }
            }
        }
    }
}

/// `target = Σ_i weights[i] · rows_i`, a row being as long as the target.
#[inline(always)]
fn weighted_sum<T: Elementary, I: Lanes<T>>(
    isa: I,
    weights: &[T],
    step: usize,
    rows: &[T],
    target: &mut [T],
) {
    target.fill(T::ZERO);
    add_weighted_sum(isa, weights, step, &rows[..weights.len() * target.len()], target);
}

/// `target += Σ_i weights[i · step] · rows_i`, for as many rows as there are.
#[inline(always)]
fn add_weighted_sum<T: Elementary, I: Lanes<T>>(
    isa: I,
    weights: &[T],
    step: usize,
    rows: &[T],
    target: &mut [T],
) {
    let columns = target.len();
    for (column, target) in target.chunks_exact_mut(I::LANES).enumerate() {
        let mut sum = isa.load(target);
        for (row, weight) in rows.chunks_exact(columns).zip(weights.iter().step_by(step)) {
            sum = isa.mul_add(isa.splat(*weight), isa.load(&row[column * I::LANES..]), sum);
        }
        isa.store(target, sum);
    }
}
