//! What can be set and asked: threads, the machine's peak, and what `show_config` tells.

use fusewire_kernels::peak;
use fusewire_simd::{Bf16, F16};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::gate::{self, Failure};
use crate::team::{set_own_threads, with_team};
use crate::torch_abi;

#[pyfunction]
pub(crate) fn set_num_threads(threads: usize) -> PyResult<()> {
    if threads == 0 {
        return Err(Failure::Value("threads must be at least 1, but is 0".into()).into());
    }
    set_own_threads(threads);
    Ok(())
}

#[pyfunction]
pub(crate) fn get_num_threads() -> usize {
    with_team(|team| team.threads())
}

#[pyfunction]
pub(crate) fn config(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("fusewire", env!("CARGO_PKG_VERSION"))?;
    facts.set_item("isa", fusewire_simd::selected().map_err(Failure::Value)?.as_str())?;
    facts.set_item("isa_detected", fusewire_simd::detected().as_str())?;
    facts.set_item("threads", get_num_threads())?;
    facts.set_item("team", if torch_abi::is_attached() { "PyTorch" } else { "fusewire" })?;
    facts.set_item("build", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    Ok(facts)
}

/// Floating-point operations per second of one core, counting a multiply-add as two.
#[pyfunction]
pub(crate) fn peak_flops(py: Python<'_>, dtype: &str) -> PyResult<f64> {
    gate::enter(py, |_| match dtype {
        "float32" => Ok(peak::flops::<f32>()),
        "float64" => Ok(peak::flops::<f64>()),
        "bfloat16" => Ok(peak::flops::<Bf16>()),
        "float16" => Ok(peak::flops::<F16>()),
        _ => Err(Failure::Value(format!(
            "dtype must be float32, float64, bfloat16 or float16, but is {dtype:?}"
        ))),
    })
}

/// Bytes per second that one core reads of so many, from the nearest cache that holds them.
#[pyfunction]
pub(crate) fn peak_read(py: Python<'_>, bytes: usize) -> PyResult<f64> {
    const MOST: usize = 1 << 30;
    gate::enter(py, |_| match bytes {
        4..=MOST => Ok(peak::read(bytes)),
        _ => Err(Failure::Value(format!("bytes must lie between 4 and {MOST}, but are {bytes}"))),
    })
}
