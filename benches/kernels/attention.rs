//! Attention beside the machine's peak, in float32 and bfloat16: `cargo bench --bench attention --
//! [threads [filter]]`.

use std::time::Instant;

use fusewire_kernels::attention::{
    Alignment, Attention, Band, Gradients, Mask, Pass, Saved, Score, Sequences, Upstream, backward,
    forward,
};
use fusewire_kernels::math::Elementary;
use fusewire_kernels::parallel::{Pool, flushing_denormals};
use fusewire_kernels::peak;
use fusewire_kernels::view::{View, ViewMut};
use fusewire_simd::{Bf16, Element, Real};

/// Seconds that one line of the table may take, warming included.
const SECONDS: f64 = 0.6;

/// `(batch, heads, kv_heads, length, head_dim)`.
const SHAPES: [[usize; 5]; 8] = [
    [1, 8, 8, 128, 64],
    [64, 6, 6, 64, 64],
    [4, 8, 8, 512, 64],
    [1, 12, 12, 1024, 64],
    [1, 8, 8, 4096, 64],
    [1, 8, 8, 2048, 128],
    [2, 16, 4, 2048, 128],
    [4, 8, 8, 512, 80],
];

/// Numbers in [−1, 1] without a pattern.
fn numbers<E: Element>(count: usize, seed: u64) -> Vec<E> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f64 / (1_u64 << 23) as f64 - 1.0
    };
    (0..count).map(|_| E::from_real(E::Real::from_f64(next()))).collect()
}

fn view<E>(numbers: &[E], shape: [usize; 4]) -> View<'_, E, 4> {
    View::contiguous(numbers, shape).expect("fits")
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// See [`speeds`].
type Speeds = fn([usize; 5], bool, &Pool) -> [f64; 3];

/// Floating-point operations per second of both passes, and of the peak between them.
fn speeds<E: Element<Real: Elementary>>(
    [batch, heads, kv_heads, length, dim]: [usize; 5],
    causal: bool,
    team: &Pool,
) -> [f64; 3] {
    let (shape, kv_shape) = ([batch, heads, length, dim], [batch, kv_heads, length, dim]);
    let count = |shape: [usize; 4]| shape.iter().product();
    let [query, upstream] = [1, 2].map(|seed| numbers::<E>(count(shape), seed));
    let [key, value] = [3, 4].map(|seed| numbers::<E>(count(kv_shape), seed));
    let [mut output, mut query_gradient] = [(); 2].map(|()| vec![E::default(); count(shape)]);
    let [mut key_gradient, mut value_gradient] =
        [(); 2].map(|()| vec![E::default(); count(kv_shape)]);
    let mut lse = vec![E::Real::ZERO; batch * heads * length];
    let attention = Attention {
        query: view(&query, shape),
        key: view(&key, kv_shape),
        value: view(&value, kv_shape),
        sequences: Sequences::FULL,
        score: Score {
            scale: 1.0 / (dim as f64).sqrt(),
            band: Band { left: None, right: causal.then_some(0), alignment: Alignment::TopLeft },
            softcap: None,
            slopes: None,
            mask: Mask::Absent,
        },
        sinks: None,
        dropout: None,
    };
    let [mut forwards, mut backwards, mut peaks] = [const { Vec::new() }; 3];
    let begin = Instant::now();
    while forwards.len() < 3 || begin.elapsed().as_secs_f64() < SECONDS {
        peaks.push(peak::flops::<E>());
        // Each pass several times, for short ones a millisecond long.
        let work = (batch * heads * length * length * dim * 4) as f64;
        for _ in 0..(2e8 / work).max(1.0) as usize {
            let start = Instant::now();
            let target = ViewMut::contiguous(&mut output, shape).expect("fits");
            let lse = ViewMut::contiguous(&mut lse, [batch, heads, length]).expect("fits");
            flushing_denormals(team, |team| forward(&attention, target, lse, team)).expect("fits");
            forwards.push(start.elapsed().as_secs_f64());
        }
        for _ in 0..(2e8 / work).max(1.0) as usize {
            let start = Instant::now();
            let lse = View::contiguous(&lse, [batch, heads, length]).expect("fits");
            let saved = Saved { output: view(&output, shape), lse };
            let upstream = Upstream { output: view(&upstream, shape), lse: None };
            let gradients = Gradients {
                query: ViewMut::contiguous(&mut query_gradient, shape).ok(),
                key: ViewMut::contiguous(&mut key_gradient, kv_shape).ok(),
                value: ViewMut::contiguous(&mut value_gradient, kv_shape).ok(),
            };
            let pass = Pass { attention: &attention, saved, upstream };
            flushing_denormals(team, |team| backward(&pass, gradients, team)).expect("fits");
            backwards.push(start.elapsed().as_secs_f64());
        }
    }
    let half = if causal { 0.5 } else { 1.0 };
    let work = half * (batch * heads * length * length * dim * 4) as f64;
    [work / median(forwards), 2.5 * work / median(backwards), median(peaks)]
}

#[allow(clippy::print_stdout)] // the table is what it is run for
fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let threads = words.first().map_or(1, |word| word.parse().expect("a number of threads"));
    let team = Pool::new(threads);
    println!(
        "batch heads kv_heads length head_dim | GFLOP/s forward, backward | of peak | {threads} threads"
    );
    for shape in SHAPES {
        for causal in [false, true] {
            let types: [(&str, Speeds); 2] =
                [("float32", speeds::<f32>), ("bfloat16", speeds::<Bf16>)];
            for (of, speeds) in types {
                let name = format!("{of} {shape:?}{}", if causal { " causal" } else { "" });
                if words.get(1).is_some_and(|filter| !name.contains(filter.as_str())) {
                    continue;
                }
                let [forward, backward, peak] = speeds(shape, causal, &team);
                let peak = peak * threads as f64;
                println!(
                    "{name:43} | {:6.0} {:6.0} | {:.2} {:.2}",
                    forward / 1e9,
                    backward / 1e9,
                    forward / peak,
                    backward / peak
                );
            }
        }
    }
}
