//! NumPy arrays: any strides and read-only memory in, new contiguous arrays out.

use std::alloc::{self, alloc_zeroed};
use std::ffi::c_void;

use fusewire_kernels::view::count;
use numpy::npyffi::NPY_TYPES;
use numpy::{
    PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;

use super::{Array, Dtype, FLOATS, Float, Layout, MAX_RANK, Stored};
use crate::gate::{Failure, Result};

/// An operand from Python, or a result on its way there.
pub(crate) struct NumpyArray {
    /// What makes an operand unusable is told when its name is known.
    layout: std::result::Result<Layout, String>,
    owner: Owner,
}

/// Who keeps the memory alive.
enum Owner {
    Python(Py<PyAny>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    /// Numbers of 16 bits, whose type the layout tells.
    Half(Vec<u16>),
}

// SAFETY: the address in the layout belongs to the owner, which can be sent and shared; kernels
// write through it only while they hold the value exclusively.
unsafe impl Send for NumpyArray {}
// SAFETY: as above.
unsafe impl Sync for NumpyArray {}

// SAFETY: extraction checks that the numbers are aligned and native, and the owner keeps their
// memory; NumPy vouches for shape and strides. What `empty` makes has no other reference.
unsafe impl Array for NumpyArray {
    fn layout(&self, name: &str) -> Result<Layout> {
        self.layout.clone().map_err(|unusable| Failure::Type(format!("{name} {unusable}")))
    }

    fn empty<T: Stored>(shape: &[usize]) -> Result<Self> {
        match T::FLOAT {
            Float::Float32 => Self::result(shape, T::FLOAT, Owner::Float32),
            Float::Float64 => Self::result(shape, T::FLOAT, Owner::Float64),
            Float::BFloat16 | Float::Float16 => Self::result(shape, T::FLOAT, Owner::Half),
        }
    }
}

fn padded(sizes: &[usize]) -> ([usize; MAX_RANK], usize) {
    let mut shape = [1; MAX_RANK];
    shape[..sizes.len()].copy_from_slice(sizes);
    (shape, sizes.len())
}

impl NumpyArray {
    fn result<T: Default>(
        sizes: &[usize],
        float: Float,
        own: impl FnOnce(Vec<T>) -> Owner,
    ) -> Result<Self> {
        let (shape, rank) = padded(sizes);
        let mut numbers = zeros::<T>(count::<T, MAX_RANK>(shape)?)?;
        let mut strides = [1; MAX_RANK];
        for axis in (1..rank).rev() {
            strides[axis - 1] = strides[axis] * shape[axis].max(1) as isize;
        }
        let start = numbers.as_mut_ptr().cast::<c_void>();
        let layout = Layout { dtype: Dtype::Float(float), start, rank, shape, strides };
        Ok(Self { layout: Ok(layout), owner: own(numbers) })
    }
}

/// Zeros that the system hands out without touching them, or an error where it has no more.
fn zeros<T: Default>(len: usize) -> Result<Vec<T>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let refused = || Failure::Memory(format!("no memory for an array of {len} numbers"));
    let layout = alloc::Layout::array::<T>(len).map_err(|_| refused())?;
    // SAFETY: the layout is not empty; the vector gets exactly what was allocated for it, and zero
    // bits are numbers.
    unsafe {
        let start = alloc_zeroed(layout).cast::<T>();
        if start.is_null() { Err(refused()) } else { Ok(Vec::from_raw_parts(start, len, len)) }
    }
}

impl<'py> FromPyObject<'_, 'py> for NumpyArray {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self { layout: describe(&object), owner: Owner::Python(object.to_owned().unbind()) })
    }
}

/// Where the numbers of a Python object lie, or why they cannot be used.
fn describe(object: &Bound<'_, PyAny>) -> std::result::Result<Layout, String> {
    let Ok(array) = object.cast::<PyUntypedArray>() else {
        let got = object.get_type().name().map_or_else(|_| "another".into(), |n| n.to_string());
        return Err(format!("must be a NumPy array, but is {got}"));
    };
    let (py, kind) = (object.py(), array.dtype());
    let native = kind.is_native_byteorder().unwrap_or(true);
    let dtype = if kind.is_equiv_to(&dtype::<f32>(py)) {
        Dtype::Float(Float::Float32)
    } else if kind.is_equiv_to(&dtype::<f64>(py)) {
        Dtype::Float(Float::Float64)
    } else if kind.is_equiv_to(&dtype::<bool>(py)) {
        Dtype::Bool
    } else if kind.is_equiv_to(&dtype::<i32>(py)) {
        Dtype::Int32
    } else if kind.is_equiv_to(&dtype::<i64>(py)) {
        Dtype::Int64
    } else if kind.num() == NPY_TYPES::NPY_HALF as i32 && native {
        Dtype::Float(Float::Float16)
    } else if kind.itemsize() == size_of::<u16>() && kind.to_string() == "bfloat16" {
        Dtype::Float(Float::BFloat16) // ml_dtypes', which NumPy knows by name only
    } else {
        return Err(format!("must be {FLOATS} in native byte order, but is {kind}"));
    };
    let rank = array.ndim();
    if rank > MAX_RANK {
        return Err(format!("must have at most {MAX_RANK} dimensions, but has {rank}"));
    }
    let (shape, _) = padded(array.shape());
    let mut strides = [0; MAX_RANK];
    let mut aligned = array.is_empty() || array.is_aligned();
    for axis in (0..rank).filter(|&axis| shape[axis] > 1) {
        let (bytes, size) = (array.strides()[axis], dtype.size() as isize);
        aligned &= bytes % size == 0;
        strides[axis] = bytes / size;
    }
    if !aligned {
        return Err("must be aligned in memory; pass a copy of it".into());
    }
    // SAFETY: the pointer is to a live array object, of which one field is read.
    let start = unsafe { (*array.as_array_ptr()).fields.data }.cast::<c_void>();
    Ok(Layout { dtype, start, rank, shape, strides })
}

impl<'py> IntoPyObject<'py> for NumpyArray {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let layout = self.layout("the result")?;
        let shape = &layout.shape[..layout.rank];
        match self.owner {
            Owner::Python(object) => Ok(object.into_bound(py)),
            Owner::Float32(numbers) => {
                Ok(PyArray1::from_vec(py, numbers).reshape(shape)?.into_any())
            }
            Owner::Float64(numbers) => {
                Ok(PyArray1::from_vec(py, numbers).reshape(shape)?.into_any())
            }
            Owner::Half(words) => {
                let array = PyArray1::from_vec(py, words).reshape(shape)?;
                let kind = match layout.dtype {
                    Dtype::Float(Float::BFloat16) => py.import("ml_dtypes")?.getattr("bfloat16")?,
                    _ => py.import("numpy")?.getattr("float16")?,
                };
                array.call_method1("view", (kind,))
            }
        }
    }
}
