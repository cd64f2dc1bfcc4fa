//! The same memory as numbers and as factors, or as elements and as sums.
#![allow(unsafe_code)]

use fusewire_simd::{Element, Factor};

use crate::view::{View, ViewMut};

/// The factors whose bits `numbers` hold, vectors of which travel as vectors of numbers.
pub fn stored_factors<F: Factor>(numbers: View<'_, F::Real, 2>) -> View<'_, F, 2> {
    const { assert!(size_of::<F>() == size_of::<F::Real>()) };
    const { assert!(align_of::<F>() <= align_of::<F::Real>()) };
    // SAFETY: factors are as large as numbers, and any bits are one.
    unsafe { View::from_raw_parts(numbers.as_ptr().cast(), numbers.shape(), numbers.strides()) }
}

/// The numbers of `view` as sums, where they are stored as what sums are.
pub fn as_sums<E: Element>(mut view: ViewMut<'_, E, 2>) -> Option<ViewMut<'_, E::Real, 2>> {
    let (shape, strides) = (view.shape(), view.strides());
    // SAFETY: the two are one type, and the view is handed on.
    E::IS_REAL.then(|| unsafe { ViewMut::from_raw_parts(view.as_mut_ptr().cast(), shape, strides) })
}
