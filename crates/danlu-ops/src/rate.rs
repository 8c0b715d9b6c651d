use std::{sync::OnceLock, time::Instant};

use crate::buffer::Buffer;
use crate::kernels::{Mat, MatMut, gemm};

/// Floating-point operations per second of a large matrix product on this machine with the threads in use: the ceiling a
/// training step is held against. Measured on first call (a fraction of a second) and remembered.
pub fn gemm_rate() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (rows, inner, columns) = (1024, 512, 1024);
        let [mut a, mut b, mut c] = [rows * inner, inner * columns, rows * columns].map(Buffer::new);
        for x in [&mut a, &mut b] {
            x.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 7) as f32 - 3.0);
        }
        // The best of several, since noise only ever slows a product down.
        let best = (0..6)
            .map(|_| {
                let start = Instant::now();
                let (a, b) = (Mat::row_major(&a, rows, inner), Mat::row_major(&b, inner, columns));
                gemm(MatMut::row_major(&mut c, rows, columns), a, b, false);
                start.elapsed().as_secs_f64()
            })
            .fold(f64::INFINITY, f64::min);
        2.0 * (rows * inner * columns) as f64 / best
    })
}
