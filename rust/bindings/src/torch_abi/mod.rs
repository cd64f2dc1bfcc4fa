//! PyTorch through the stable C ABI of libtorch, looked up in the running process.
//!
//! Nothing here links against libtorch: [`attach`] finds the library that `import torch` loaded
//! and resolves the functions of its C shim, so one binary serves every PyTorch from 2.10 on.
//! An operator is a type that implements [`Operator`]; its schema is declared in Python.
#![allow(unsafe_code)]

mod loaded;
mod native;
mod operator;
mod pages;
mod python;
mod symbols;
mod team;
mod tensor;
mod value;

use std::ffi::c_void;

pub(crate) use native::{FlashAttention, flash_attention, flash_attention_backward};
pub(crate) use operator::{Library, Operator};
pub(crate) use python::takes_tensors;
pub(crate) use symbols::{attach, is_attached};
pub(crate) use team::TorchTeam;
pub(crate) use tensor::Tensor;
pub(crate) use value::{Joined, Text};

/// Any of libtorch's opaque objects.
type Handle = *mut c_void;
