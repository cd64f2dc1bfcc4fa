//! The matrix product beside the machine's peak for its type, one core: `cargo bench`.

use std::time::Instant;

use fusewire_kernels::gemm::{Matmul, NoEpilogue, Start, matmul};
use fusewire_kernels::parallel::Serial;
use fusewire_kernels::peak;
use fusewire_kernels::view::{View, ViewMut};
use fusewire_simd::{Bf16, Element, F16, Real};

/// Products of one shape take this long, at least three of them.
const SECONDS: f64 = 0.06;

/// Seconds of one product `(rows, depth) · (depth, columns)`: the median of some.
fn seconds<E: Element>([rows, depth, columns]: [usize; 3], transposed: [bool; 2]) -> f64 {
    let one = E::from_real(E::Real::ONE);
    let (a, b) = (vec![one; rows * depth], vec![one; depth * columns]);
    let mut c = vec![E::default(); rows * columns];
    let view = |data, shape: [usize; 2], transposed: bool| {
        let stored = if transposed { [shape[1], shape[0]] } else { shape };
        let view = View::contiguous(data, stored).expect("fits");
        if transposed { view.transpose() } else { view }
    };
    let (mut times, begin) = (Vec::new(), Instant::now());
    while times.len() < 4 || begin.elapsed().as_secs_f64() < SECONDS {
        let product = Matmul {
            a: view(&a, [rows, depth], transposed[0]),
            b: view(&b, [depth, columns], transposed[1]),
            c: ViewMut::contiguous(&mut c, [rows, columns]).expect("fits"),
            start: Start::Zero,
            epilogue: NoEpilogue,
            chain: None,
        };
        let start = Instant::now();
        matmul(product, &Serial).expect("shapes fit");
        times.push(start.elapsed().as_secs_f64());
    }
    let expected = E::from_real(E::Real::from_f64(depth as f64));
    assert!(c.iter().all(|&x| x == expected), "wrong product");
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[allow(clippy::print_stdout)] // the table is what it is run for
fn table<E: Element>(name: &str) {
    let shapes = [
        [1024, 1024, 1024],
        [768, 128, 384],
        [4096, 384, 1536],
        [4096, 1536, 384],
        [64, 512, 2048],
        [100, 77, 130],
        [1, 4096, 1024],
    ];
    println!("{name}: rows x depth x columns | of peak for a b, a bT, aT b | peak GFLOP/s");
    for shape @ [rows, depth, columns] in shapes {
        let peak = peak::flops::<E>();
        let work = 2.0 * (rows * depth * columns) as f64;
        let [plain, right, left] = [[false, false], [false, true], [true, false]]
            .map(|transposed| work / seconds::<E>(shape, transposed) / peak);
        let peak = peak / 1e9;
        println!("{rows} x {depth} x {columns} | {plain:.2} {right:.2} {left:.2} | {peak:.0}");
    }
}

fn main() {
    table::<f32>("float32");
    table::<Bf16>("bfloat16");
    table::<F16>("float16");
}
