use std::{sync::OnceLock, time::Instant};

use burn::tensor::{Device, Distribution, Tensor};

use crate::buffer::Buffer;
use crate::kernels::{Mat, MatMut, gemm};
use crate::precision::activations;

/// Floating-point operations per second of a large matrix product on the chosen device, in the precision chosen for it, or on the CPU
/// with the threads in use: the ceiling a training step is held against. Measured on first call (a fraction of a second) and remembered.
pub fn gemm_rate() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(measured)
}

/// [`gemm_rate`] measured once more, and the better of both, since other work on the machine only ever slows a product down.
pub fn gemm_rate_again() -> f64 {
    gemm_rate().max(measured())
}

fn measured() -> f64 {
    let device = crate::device();
    if device == Device::flex() { cpu_rate() } else { rate_of(&device) }
}

fn rate_of(device: &Device) -> f64 {
    let (side, products) = (4096_usize, 4_u32);
    let [a, b] = [(); 2].map(|()| activations(Tensor::<2>::random([side, side], Distribution::Uniform(-1.0, 1.0), device)));
    let seconds = || {
        let start = Instant::now();
        let mut y = a.clone();
        for _ in 0..products {
            y = a.clone().matmul(b.clone());
        }
        // Reading a value waits for all that was asked before.
        y.slice([0..1, 0..1]).into_data();
        start.elapsed().as_secs_f64()
    };
    // The first pass finds the kernel.
    let best = (0..4).map(|_| seconds()).fold(f64::INFINITY, f64::min);
    2.0 * f64::from(products) * (side as f64).powi(3) / best
}

fn cpu_rate() -> f64 {
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
}
