//! The speed of a training step, through the public models, operations and optimizer; `bench/training_step.py` sets it against PyTorch.
//!
//!     cargo run --release -p danlu-train --example step -- --shape llama-6x384 --steps 8
//!
//! `--device`, `--precision f32|bf16`, `--rows` and `--row-len` set it on a graphics card; `--moments int8` keeps AdamW's moments in eight bits.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use danlu_models::{Batch, Decoder, DecoderConfig, Gpt2Config, LlamaConfig};
use danlu_ops::{Precision, profile};
use danlu_train::recipe::{MomentsKind, OptimizerKind, OptimizerSpec};
use danlu_train::{Gradients, Optimizer};

fn main() -> Result<()> {
    let argument = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let shape = argument("--shape").unwrap_or("llama-6x384".into());
    let steps: usize = argument("--steps").map_or(Ok(8), |s| s.parse()).context("--steps is a number")?;
    let number =
        |name: &str, usual: usize| argument(name).map_or(Ok(usual), |n| n.parse().with_context(|| format!("{name} is a number")));
    let (config, rows, row_len, vocabulary) = match shape.as_str() {
        "llama-6x384" => {
            let (rows, row_len) = (number("--rows", 8)?, number("--row-len", 256)?);
            (DecoderConfig::Llama(LlamaConfig::new(4096, 384, 6, 64, row_len)), rows, row_len, 4096)
        }
        "gpt2-12x768" => {
            let (rows, row_len) = (number("--rows", 2)?, number("--row-len", 512)?);
            (DecoderConfig::Gpt2(Gpt2Config::new(50257, 768, 12, row_len)), rows, row_len, 50257)
        }
        _ => bail!("--shape is llama-6x384 or gpt2-12x768"),
    };
    danlu_ops::choose_device(&argument("--device").unwrap_or("cpu".into()))?;
    let precision = argument("--precision").unwrap_or("f32".into());
    danlu_ops::set_precision(if precision == "bf16" { Precision::Bf16 } else { Precision::F32 });
    let device = danlu_ops::device();
    // The tokens that bench/torch_step.py reads.
    let at = |i: usize, j: usize| ((i * 31 + j * 17 + (i * j) % 7) % vocabulary) as u32;
    let tokens = |shift: usize| (0..rows * row_len).map(|k| at(k / row_len, k % row_len + shift)).collect::<Vec<_>>();
    let batch = Batch::new(tokens(0), tokens(1), rows, row_len, vec![]);

    let mut model = Decoder::new(&config, 0, &device.clone().autodiff())?;
    let rate = Some(3e-4);
    let (who, moments) = match argument("--moments").as_deref() {
        None | Some("f32") => ("danlu", MomentsKind::F32),
        Some("int8") => ("danlu-int8", MomentsKind::Int8),
        Some(_) => bail!("--moments is f32 or int8"),
    };
    let spec = OptimizerSpec { kind: OptimizerKind::Adamw, rate, embedding_rate: rate, moments, ..OptimizerSpec::default() };
    let mut optimizer = Optimizer::new(&spec, &model);
    let (mut seconds, mut losses) = (vec![], vec![]);
    for step in 1..=steps as u64 + 2 {
        if step == 3 {
            profile::enable(true);
            profile::take();
        }
        let start = Instant::now();
        let mean = model.loss(&batch);
        let mut gradients = Gradients::new();
        gradients.add(&model, mean.clone())?;
        model = optimizer.step(model, &mut gradients, step, 1.0, 1.0);
        losses.push(mean.into_scalar::<f32>());
        if step > 2 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let total: f64 = seconds.iter().sum();
    let each = |seconds: f64| (1e4 * seconds / steps as f64).round() / 10.0;
    let mut parts: BTreeMap<String, f64> =
        profile::take().into_iter().map(|(part, time)| (format!("{part:?}").to_lowercase(), each(time.as_secs_f64()))).collect();
    let known: f64 = parts.values().sum();
    parts.insert("rest".into(), (10.0 * (each(total) - known)).round() / 10.0);
    seconds.sort_by(f64::total_cmp);
    let (median, best) = (seconds[seconds.len() / 2], seconds[0]);
    let row = serde_json::json!({
        "who": who, "shape": shape, "rows": rows, "row_len": row_len, "device": argument("--device"), "precision": precision,
        "losses": losses, "median_ms": 1e3 * median, "best_ms": 1e3 * best,
        "tokens_per_s": (rows * row_len) as f64 / median, "peak_mb": peak() >> 20, "parameters": config.parameters(),
        "pool_mb": { "used": danlu_ops::pool_bytes().0 >> 20, "free": danlu_ops::pool_bytes().1 >> 20 },
        "device_mb": device.memory_pool_usage().map(|usage| usage.bytes_reserved >> 20),
        "threads": danlu_ops::threads(), "parts_ms": parts,
    });
    println!("{row}");
    Ok(())
}

/// The most memory this process had, in bytes, as Linux tells it.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}
