//! Training steps of a decoder put together from the operations alone: tokens per second, where the time goes, peak memory.
//!
//!     cargo run --release -p danlu-ops --example ops_step -- [llama|gpt2] [steps]
//!
//! The shapes are those of `bench/README.md`: 6 layers × 384, context 256, batch 8, vocabulary 4,096; and GPT-2 small, context
//! 512, batch 2.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Gradients, Tensor};
use danlu_ops::optim::{AdamW, adamw_step, global_norm, square_sum};
use danlu_ops::{Heads, Ids, Rope, Segments, profile, read_scalars};

struct Shape {
    llama: bool,
    layers: usize,
    width: usize,
    heads: usize,
    inner: usize,
    row_len: usize,
    rows: usize,
    vocabulary: usize,
}

/// A trained tensor with AdamW's moments.
struct Weight<const D: usize> {
    value: Tensor<D>,
    moments: [Tensor<D>; 2],
}

impl<const D: usize> Weight<D> {
    fn new(value: Tensor<D>) -> Self {
        let zeros = || Tensor::zeros(value.dims(), &value.device()).inner();
        Self { moments: [zeros(), zeros()], value: value.require_grad() }
    }

    fn step(self, gradient: Tensor<D>, step: u64, scale: f64, options: &AdamW) -> Self {
        let (value, moments) = adamw_step(self.value, gradient, self.moments, step, scale, options);
        Self { value: value.autodiff().require_grad(), moments }
    }
}

/// Matrices and vectors in the order in which the forward pass takes them.
struct Model {
    shape: Shape,
    matrices: Vec<Weight<2>>,
    vectors: Vec<Weight<1>>,
}

impl Model {
    fn new(shape: Shape, device: &Device) -> Self {
        let Shape { llama, layers, width, inner, row_len, vocabulary, .. } = shape;
        let matrix = |out: usize, into: usize| Weight::new(Tensor::random([out, into], Distribution::Normal(0.0, 0.02), device));
        let vector = |length: usize, value: f32| Weight::new(Tensor::full([length], value, device));
        let mut matrices = vec![matrix(vocabulary, width)];
        matrices.push(if llama { matrix(vocabulary, width) } else { matrix(row_len, width) });
        let mut vectors = Vec::new();
        for _ in 0..layers {
            if llama {
                vectors.extend([vector(width, 1.0), vector(width, 1.0)]);
                matrices.extend([0; 4].map(|_| matrix(width, width)));
                matrices.extend([matrix(inner, width), matrix(inner, width), matrix(width, inner)]);
            } else {
                for (length, value) in [(width, 1.0), (width, 0.0), (3 * width, 0.0), (width, 0.0)] {
                    vectors.push(vector(length, value));
                }
                for (length, value) in [(width, 1.0), (width, 0.0), (inner, 0.0), (width, 0.0)] {
                    vectors.push(vector(length, value));
                }
                matrices.extend([matrix(3 * width, width), matrix(width, width), matrix(inner, width), matrix(width, inner)]);
            }
        }
        vectors.push(vector(width, 1.0));
        if !llama {
            vectors.push(vector(width, 0.0));
        }
        Self { shape, matrices, vectors }
    }

    fn loss(&self, ids: &Ids, targets: &Ids, segments: &Segments, rope: &Rope) -> Tensor<1> {
        let Shape { llama, layers, width, heads, .. } = self.shape;
        let heads = Heads { heads, kv_heads: heads, head_dim: width / heads };
        let mut matrices = self.matrices.iter().map(|weight| weight.value.clone());
        let mut vectors = self.vectors.iter().map(|weight| weight.value.clone());
        let mut m = || matrices.next().expect("as many as the model has");
        let mut v = || vectors.next().expect("as many as the model has");
        let (table, second) = (m(), m());
        let mut x = danlu_ops::embedding(table.clone(), ids);
        if llama {
            for _ in 0..layers {
                let h = danlu_ops::rms_norm(x.clone(), v(), 1e-5);
                let qkv = danlu_ops::project(h, &[m(), m(), m()], None);
                x = x + danlu_ops::linear(danlu_ops::attention(qkv, heads, Some(rope), segments), m(), None);
                let h = danlu_ops::rms_norm(x.clone(), v(), 1e-5);
                x = x + danlu_ops::linear(danlu_ops::swiglu(danlu_ops::project(h, &[m(), m()], None)), m(), None);
            }
            return danlu_ops::linear_cross_entropy(danlu_ops::rms_norm(x, v(), 1e-5), second, targets);
        }
        x = x + danlu_ops::embedding(second, &segments.positions());
        for _ in 0..layers {
            let h = danlu_ops::layer_norm(x.clone(), v(), v(), 1e-5);
            let qkv = danlu_ops::linear(h, m(), Some(v()));
            x = x + danlu_ops::linear(danlu_ops::attention(qkv, heads, None, segments), m(), Some(v()));
            let h = danlu_ops::layer_norm(x.clone(), v(), v(), 1e-5);
            let h = danlu_ops::gelu(danlu_ops::linear(h, m(), Some(v())));
            x = x + danlu_ops::linear(h, m(), Some(v()));
        }
        danlu_ops::linear_cross_entropy(danlu_ops::layer_norm(x, v(), v(), 1e-5), table, targets)
    }

    fn update(mut self, gradients: &mut Gradients, step: u64) -> Self {
        let options = AdamW { rate: 3e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
        let matrices: Vec<_> = self.matrices.iter().map(|w| w.value.grad_remove(gradients).expect("all are trained")).collect();
        let vectors: Vec<_> = self.vectors.iter().map(|w| w.value.grad_remove(gradients).expect("all are trained")).collect();
        let norm = global_norm(read_scalars(matrices.iter().map(square_sum).chain(vectors.iter().map(square_sum)).collect()));
        let scale = (1.0 / norm).min(1.0);
        let pairs = self.matrices.into_iter().zip(matrices);
        self.matrices = pairs.map(|(weight, gradient)| weight.step(gradient, step, scale, &options)).collect();
        let pairs = self.vectors.into_iter().zip(vectors);
        self.vectors = pairs.map(|(weight, gradient)| weight.step(gradient, step, scale, &options)).collect();
        self
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "llama".into());
    let steps: u64 = arguments.next().map_or(8, |steps| steps.parse().expect("the second argument is a number of steps"));
    let shape = match name.as_str() {
        "llama" => Shape { llama: true, layers: 6, width: 384, heads: 6, inner: 1024, row_len: 256, rows: 8, vocabulary: 4096 },
        "gpt2" => {
            Shape { llama: false, layers: 12, width: 768, heads: 12, inner: 3072, row_len: 512, rows: 2, vocabulary: 50257 }
        }
        other => panic!("the shape is llama or gpt2, not {other}"),
    };
    let (rows, row_len, vocabulary) = (shape.rows, shape.row_len, shape.vocabulary);
    let rope = Rope::new(shape.width / shape.heads, 10_000.0, row_len);
    let segments = Segments::rows(rows, row_len);
    let token = |i: usize, j: usize| ((i * 31 + j * 17 + i * j % 7) % vocabulary) as u32;
    let tokens = |shift: usize| -> Ids { (0..rows).flat_map(|i| (0..row_len).map(move |j| token(i, j + shift))).collect() };
    let (ids, targets) = (tokens(0), tokens(1));
    let mut model = Model::new(shape, &Device::flex().autodiff());
    let mut seconds = Vec::new();
    let mut last = 0.0f32;
    for step in 1..=steps + 2 {
        if step == 3 {
            profile::enable(true);
            profile::take();
        }
        let start = Instant::now();
        let loss = model.loss(&ids, &targets, &segments, &rope);
        let mut gradients = loss.backward();
        model = model.update(&mut gradients, step);
        last = loss.into_scalar();
        if step > 2 {
            seconds.push(start.elapsed().as_secs_f64());
        } else {
            println!("step {step} loss {last:.6}");
        }
    }
    let whole: f64 = seconds.iter().sum::<f64>() / steps as f64 * 1e3;
    let mut rest = whole;
    for (part, time) in profile::take() {
        let ms = time.as_secs_f64() / steps as f64 * 1e3;
        rest -= ms;
        println!("{:10} {ms:8.1} ms {:5.1} %", format!("{part:?}"), 100.0 * ms / whole);
    }
    println!("{:10} {rest:8.1} ms {:5.1} %", "Rest", 100.0 * rest / whole);
    seconds.sort_by(f64::total_cmp);
    let (median, best) = (seconds[seconds.len() / 2], seconds[0]);
    let speed = |seconds: f64| (rows * row_len) as f64 / seconds;
    let (used, free) = danlu_ops::pool_bytes();
    println!("pool: {} MB in use, {} MB kept; products at {:.0} GFLOP/s", used >> 20, free >> 20, danlu_ops::gemm_rate() / 1e9);
    println!(
        "RESULT ops-{name} loss {last:.4} med {:.0} ms best {:.0} ms tok/s med {:.0} best {:.0} peakRSS_MB {:.0}",
        median * 1e3,
        best * 1e3,
        speed(median),
        speed(best),
        peak_memory_mb()
    );
}

/// The most memory this process had resident, from the system's own account where it keeps one in a file.
fn peak_memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()).map_or(f64::NAN, |kb| kb / 1024.0)
}
