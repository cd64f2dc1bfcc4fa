//! The same memory as numbers and as factors, as elements and as sums, or as pairs and as single numbers.
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

/// The numbers of `view` as those that are multiplied one by one.
pub fn singles<E: Element, const N: usize>(view: View<'_, E, N>) -> View<'_, E::Single, N> {
    const { assert!(size_of::<E>() == size_of::<E::Single>()) };
    const { assert!(align_of::<E>() == align_of::<E::Single>()) };
    // SAFETY: both are as large, and any bits are a number of either.
    unsafe { View::from_raw_parts(view.as_ptr().cast(), view.shape(), view.strides()) }
}

/// The same of numbers to be written.
pub fn singles_mut<E: Element, const N: usize>(
    mut view: ViewMut<'_, E, N>,
) -> ViewMut<'_, E::Single, N> {
    const { assert!(size_of::<E>() == size_of::<E::Single>()) };
    const { assert!(align_of::<E>() == align_of::<E::Single>()) };
    let (shape, strides) = (view.shape(), view.strides());
    // SAFETY: as above, and the view is handed on.
    unsafe { ViewMut::from_raw_parts(view.as_mut_ptr().cast(), shape, strides) }
}
