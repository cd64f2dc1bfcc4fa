//! The matrix product beside the machine's multiply-add peak, one core: `cargo bench`.

use std::time::Instant;

use fusewire_kernels::gemm::{Matmul, NoEpilogue, Start, matmul};
use fusewire_kernels::parallel::Serial;
use fusewire_kernels::peak;
use fusewire_kernels::view::{View, ViewMut};

const ROUNDS: usize = 15;

/// Seconds of one product `(rows, depth) · (depth, columns)`: the median of some.
fn seconds([rows, depth, columns]: [usize; 3], transposed: [bool; 2]) -> f64 {
    let a = vec![1.0_f32; rows * depth];
    let b = vec![1.0_f32; depth * columns];
    let mut c = vec![0.0_f32; rows * columns];
    let view = |data, shape: [usize; 2], transposed: bool| {
        let stored = if transposed { [shape[1], shape[0]] } else { shape };
        let view = View::contiguous(data, stored).expect("fits");
        if transposed { view.transpose() } else { view }
    };
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let product = Matmul {
                a: view(&a, [rows, depth], transposed[0]),
                b: view(&b, [depth, columns], transposed[1]),
                c: ViewMut::contiguous(&mut c, [rows, columns]).expect("fits"),
                start: Start::Zero,
                epilogue: NoEpilogue,
            };
            let start = Instant::now();
            matmul(product, &Serial).expect("shapes fit");
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    assert!(c.iter().all(|&x| x == depth as f32), "wrong product");
    times[ROUNDS / 2]
}

#[allow(clippy::print_stdout)]
fn main() {
    let shapes = [
        [1024, 1024, 1024],
        [768, 128, 384],
        [4096, 384, 1536],
        [4096, 1536, 384],
        [64, 512, 2048],
        [100, 77, 130],
        [128, 784, 128],
    ];
    println!("rows x depth x columns | layout | GFLOP/s | of peak");
    for shape in shapes {
        for (layout, transposed) in
            [("a b", [false, false]), ("a bT", [false, true]), ("aT b", [true, false])]
        {
            let peak = peak::flops::<f32>();
            let [rows, depth, columns] = shape;
            let speed = 2.0 * (rows * depth * columns) as f64 / seconds(shape, transposed);
            println!(
                "{rows} x {depth} x {columns} | {layout} | {:.0} | {:.2}",
                speed / 1e9,
                speed / peak
            );
        }
    }
}
