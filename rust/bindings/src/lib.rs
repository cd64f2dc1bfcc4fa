//! The Python extension module `fusewire._native`: NumPy arrays and PyTorch tensors in and out.
//!
//! One thin file per family of operators, with two faces: functions of NumPy arrays for this
//! module, and operators of tensors for PyTorch's dispatcher. Both go through [`gate`].

mod activation;
mod array;
mod attention;
mod config;
mod embeddings;
mod gate;
mod linear;
mod rnn;
mod scan;
mod sdpa;
mod team;
mod torch_abi;

use std::sync::Mutex;

use pyo3::prelude::*;

use crate::gate::Failure;

/// Registers every operator with the PyTorch of this process, once.
#[pyfunction]
fn attach_torch(folder: &str, version: &str) -> PyResult<()> {
    static LIBRARY: Mutex<Option<torch_abi::Library>> = Mutex::new(None);
    let attach = || -> gate::Result<()> {
        let mut registered = LIBRARY
            .lock()
            .map_err(|_| Failure::Internal("PyTorch's operators could not be registered".into()))?;
        if registered.is_none() {
            torch_abi::attach(folder, version)?;
            let library = torch_abi::Library::open(c"fusewire")?;
            activation::register(&library)?;
            attention::register(&library)?;
            linear::register(&library)?;
            rnn::register(&library)?;
            scan::register(&library)?;
            *registered = Some(library);
        }
        Ok(())
    };
    Ok(attach()?)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(attach_torch, module)?)?;
    module.add_function(wrap_pyfunction!(activation::activate, module)?)?;
    module.add_function(wrap_pyfunction!(activation::activate_backward, module)?)?;
    module.add_function(wrap_pyfunction!(activation::apply_activate, module)?)?;
    module.add_function(wrap_pyfunction!(activation::apply_activate_backward, module)?)?;
    module.add_function(wrap_pyfunction!(attention::attention, module)?)?;
    module.add_function(wrap_pyfunction!(attention::attention_backward, module)?)?;
    module.add_function(wrap_pyfunction!(attention::attention_backward_mask, module)?)?;
    module.add_function(wrap_pyfunction!(attention::attention_backward_slopes, module)?)?;
    module.add_function(wrap_pyfunction!(attention::attention_backward_sinks, module)?)?;
    module.add_function(wrap_pyfunction!(attention::decode::decode_attention, module)?)?;
    module.add_function(wrap_pyfunction!(config::config, module)?)?;
    module.add_function(wrap_pyfunction!(config::get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(config::set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(config::peak_flops, module)?)?;
    module.add_function(wrap_pyfunction!(config::peak_read, module)?)?;
    module.add_class::<embeddings::WordTables>()?;
    module.add_function(wrap_pyfunction!(linear::apply_linear, module)?)?;
    module.add_function(wrap_pyfunction!(linear::apply_linear_with_sums, module)?)?;
    module.add_function(wrap_pyfunction!(linear::apply_linear_backward, module)?)?;
    module.add_function(wrap_pyfunction!(linear::linear, module)?)?;
    module.add_function(wrap_pyfunction!(linear::linear_backward, module)?)?;
    module.add_function(wrap_pyfunction!(rnn::apply_rnn_layer, module)?)?;
    module.add_function(wrap_pyfunction!(rnn::apply_rnn_layer_backward, module)?)?;
    module.add_function(wrap_pyfunction!(rnn::rnn_layer, module)?)?;
    module.add_function(wrap_pyfunction!(rnn::rnn_layer_backward, module)?)?;
    module.add_function(wrap_pyfunction!(rnn::rnn_saved_columns, module)?)?;
    module.add_function(wrap_pyfunction!(rnn::rnn_layers, module)?)?;
    module.add_function(wrap_pyfunction!(sdpa::attend, module)?)?;
    module.add_function(wrap_pyfunction!(sdpa::attend_backward, module)?)?;
    module.add_function(wrap_pyfunction!(sdpa::replace_sdpa, module)?)?;
    module.add_function(wrap_pyfunction!(scan::rnn_scan, module)?)?;
    module.add_function(wrap_pyfunction!(scan::rnn_scan_backward, module)?)?;
    module.add_function(wrap_pyfunction!(sdpa::takes_tensors, module)?)?;
    Ok(())
}
