use super::{View, ViewMut};

#[test]
fn slices_rows_and_inner_views_agree() {
    let data: Vec<u32> = (0..60).collect();
    let view = View::contiguous(&data, [3, 4, 5]).expect("60 numbers");
    assert_eq!(view.strides(), [20, 5, 1]);
    let matrix = view.inner::<1, 2>([2]);
    assert_eq!(matrix.row(1), &[45, 46, 47, 48, 49]);
    assert_eq!(matrix.transpose().get([4, 1]), 49);
    assert_eq!(view.permute([2, 0, 1]).get([4, 2, 1]), 49);
    assert_eq!(matrix.slice(0, 1..3).row(0)[0], 45);
    assert_eq!(view.inner::<1, 2>([0]).split_columns(5).get([3, 0, 4]), 19);
    assert_eq!(View::contiguous(&data, [5, 12]).expect("60").split_columns(4).get([1, 2, 3]), 23);
    assert_eq!(matrix.inner::<1, 1>([3]).alone::<2>().row(0), &[55, 56, 57, 58, 59]);
}

#[test]
fn writes_land_where_they_are_read() {
    let mut data = vec![0; 12];
    let mut view = ViewMut::contiguous(&mut data, [3, 4]).expect("12 numbers");
    view.set([1, 2], 7);
    view.reborrow().transpose().set([3, 2], 8);
    view.row_mut(0)[0] = 9;
    assert_eq!(data, [9, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 8]);
}

#[test]
fn broadcasting_repeats_dimensions_of_one() {
    let view = View::contiguous(&[1, 2, 3], [1, 3]).expect("3 numbers");
    let repeated = view.broadcast([4, 3]).expect("1 grows to 4");
    assert_eq!((repeated.row(3), repeated.strides()), (&[1, 2, 3][..], [0, 1]));
    assert!(view.broadcast([1, 6]).is_err());
}

#[test]
fn two_dimensions_become_one_where_a_stride_leads_through() {
    let data: Vec<u32> = (0..24).collect();
    let view = View::contiguous(&data, [2, 3, 4]).expect("24 numbers");
    let rows = view.merge_rows().expect("contiguous");
    assert_eq!((rows.rows(), rows.row(4)), (6, view.inner::<1, 2>([1]).row(1)));
    let outer = view.slice(1, 1..2).merge_rows().expect("one row for each");
    assert_eq!((outer.rows(), outer.row(1)[0]), (2, 16));
    assert!(view.slice(1, 0..2).merge_rows().is_none());
    assert!(view.permute([1, 0, 2]).merge_rows().is_none());
}

#[test]
fn impossible_shapes_are_errors() {
    assert!(View::contiguous(&[0_f32; 5], [2, 3]).is_err());
    assert!(View::<f32, 2>::contiguous(&[], [usize::MAX, 2]).is_err());
    assert!(View::<f32, 2>::contiguous(&[], [usize::MAX, 0]).is_ok());
}
