use std::{sync::OnceLock, time::Instant};

use burn::tensor::{Device, Distribution, Tensor};

/// Floating-point operations per second of a large matrix product on this machine with the threads in use: the ceiling a
/// training step is held against. Measured on first call (a fraction of a second) and remembered.
pub fn gemm_rate() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (rows, inner, columns) = (1024, 512, 1024);
        let device = Device::flex();
        let a = Tensor::<2>::random([rows, inner], Distribution::Default, &device);
        let b = Tensor::<2>::random([inner, columns], Distribution::Default, &device);
        // The best of several, since noise only ever slows a product down.
        let best = (0..6)
            .map(|_| {
                let start = Instant::now();
                let _ = a.clone().matmul(b.clone());
                start.elapsed().as_secs_f64()
            })
            .fold(f64::INFINITY, f64::min);
        2.0 * (rows * inner * columns) as f64 / best
    })
}
