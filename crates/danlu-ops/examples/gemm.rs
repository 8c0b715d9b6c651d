//! Times matrix products of the shapes of a training step: `cargo run --release -p danlu-ops --example gemm [threads] [filter]`.

use danlu_ops::kernels::{Isa, Mat, MatMut, gemm, threads};
use std::time::Instant;

/// name, m, n, k, whether A and B are transposed views
const SHAPES: &[(&str, usize, usize, usize, bool, bool)] = &[
    ("qkv y", 2048, 1152, 384, false, true),
    ("qkv dx", 2048, 384, 1152, false, false),
    ("qkv dw", 1152, 384, 2048, true, false),
    ("o y", 2048, 384, 384, false, true),
    ("up y", 2048, 2048, 384, false, true),
    ("up dx", 2048, 384, 2048, false, false),
    ("up dw", 2048, 384, 2048, true, false),
    ("down y", 2048, 384, 1024, false, true),
    ("down dx", 2048, 1024, 384, false, false),
    ("down dw", 384, 1024, 2048, true, false),
    ("head y", 512, 4096, 384, false, true),
    ("head dx", 512, 384, 4096, false, false),
    ("head dw", 4096, 384, 512, true, false),
    ("gpt2 qkv y", 1024, 2304, 768, false, true),
    ("gpt2 up y", 1024, 3072, 768, false, true),
    ("gpt2 up dw", 3072, 768, 1024, true, false),
    ("gpt2 head y", 256, 50257, 768, false, true),
    ("gpt2 head dx", 256, 768, 50257, false, false),
    ("gpt2 head dw", 50257, 768, 256, true, false),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    threads::set_threads(n);
    println!("{} {} threads", Isa::current().name(), threads::threads());
    let (mut total_flop, mut total_time) = (0.0, 0.0);
    for &(name, m, n, k, ta, tb) in SHAPES {
        if args.get(2).is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
        let mut c = vec![0f32; m * n];
        let a = if ta { Mat::row_major(&a, k, m).t() } else { Mat::row_major(&a, m, k) };
        let b = if tb { Mat::row_major(&b, n, k).t() } else { Mat::row_major(&b, k, n) };
        let flop = 2.0 * (m * n * k) as f64;
        let repeats = ((6e10 / flop) as usize).clamp(3, 50);
        let mut times: Vec<f64> = (0..repeats)
            .map(|_| {
                let start = Instant::now();
                gemm(MatMut::row_major(&mut c, m, n), a, b, false);
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let median = times[repeats / 2];
        total_flop += flop;
        total_time += median;
        println!(
            "{name:<14} {m:>5}×{n:>5}×{k:>5}  median {:6.1}  best {:6.1} GFLOP/s",
            flop / median * 1e-9,
            flop / times[0] * 1e-9
        );
    }
    println!("all {:.1} GFLOP/s", total_flop / total_time * 1e-9);
}
