//! Word vectors for NumPy: an object that owns both tables, so that training changes them in place.

use std::sync::Mutex;

use fusewire_kernels::embeddings::{Embeddings, Pass, Report, Text};
use pyo3::prelude::*;

use crate::array::{Array, NumpyArray};
use crate::gate::{self, Failure, Result};

/// Tables of word vectors that learn from text.
#[pyclass(frozen, module = "fusewire._native")]
pub(crate) struct WordTables {
    tables: Mutex<Embeddings<f32>>,
}

#[pymethods]
impl WordTables {
    #[new]
    fn new(
        py: Python<'_>,
        input: NumpyArray,
        output: NumpyArray,
        keep: NumpyArray,
        noise: NumpyArray,
        parts: Option<(NumpyArray, NumpyArray)>,
    ) -> PyResult<Self> {
        gate::enter(py, |_| {
            let parts = match &parts {
                Some((offsets, rows)) => Some([offsets.view("offsets")?, rows.view("rows")?]),
                None => None,
            };
            let tables = Embeddings::new(
                input.view("input")?,
                output.view("output")?,
                keep.view("keep")?,
                noise.view("noise")?,
                parts,
            )?;
            Ok(Self { tables: Mutex::new(tables) })
        })
    }

    /// Learns from a text; returns the sum of the losses, and the pairs it is a sum over.
    #[expect(clippy::too_many_arguments, reason = "they are the caller's keywords")]
    fn train(
        &self,
        py: Python<'_>,
        words: NumpyArray,
        sentences: NumpyArray,
        objective: &str,
        window: usize,
        negatives: usize,
        batch: usize,
        learning_rates: [f64; 2],
        seed: u64,
    ) -> PyResult<(f64, u64)> {
        gate::enter(py, |team| {
            let objective = objective.parse()?;
            let pass = Pass { objective, window, negatives, batch, learning_rates, seed };
            let text =
                Text { words: words.view("words")?, sentences: sentences.view("sentences")? };
            let Report { loss, pairs } = self.lock()?.train(text, pass, team)?;
            Ok((loss, pairs))
        })
    }

    /// A copy of the input table, a row for each word and part.
    fn input(&self, py: Python<'_>) -> PyResult<NumpyArray> {
        gate::enter(py, |_| {
            let tables = self.lock()?;
            copy(tables.shapes()[0], |row| tables.input_row(row))
        })
    }

    /// A copy of the output table, a row for each word.
    fn output(&self, py: Python<'_>) -> PyResult<NumpyArray> {
        gate::enter(py, |_| {
            let tables = self.lock()?;
            copy(tables.shapes()[1], |row| tables.output_row(row))
        })
    }
}

impl WordTables {
    fn lock(&self) -> Result<std::sync::MutexGuard<'_, Embeddings<f32>>> {
        self.tables
            .try_lock()
            .map_err(|_| Failure::Value("these tables are in use by another thread".into()))
    }
}

fn copy<'a>(shape: [usize; 2], row_of: impl Fn(usize) -> &'a [f32]) -> Result<NumpyArray> {
    let mut copied = NumpyArray::empty::<f32>(&shape)?;
    let mut rows = copied.view_mut::<f32, 2>("the copy")?;
    for row in 0..shape[0] {
        rows.row_mut(row).copy_from_slice(row_of(row));
    }
    Ok(copied)
}
