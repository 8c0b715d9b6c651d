//! Tokens per second of reading a prompt and of writing, for a model with random weights.
//!
//! `decode_speed [HIDDEN [LAYERS [VOCABULARY]]]`; the default has 10 M parameters. Prints also the rate at which weights are read, which is
//! what bounds writing: each token reads each weight once.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use danlu_models::{Cache, Decoder, DecoderConfig, LlamaConfig};

fn main() -> Result<()> {
    let numbers = std::env::args().skip(1).map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [hidden, layers, vocabulary] =
        [(0, 320), (1, 6), (2, 4096)].map(|(i, default)| numbers.get(i).copied().unwrap_or(default));
    let config = DecoderConfig::Llama(LlamaConfig::new(vocabulary, hidden, layers, 64, 1024));
    let decoder = Decoder::new(&config, 0, &Device::flex())?;
    let prompt: Vec<u32> = (0..256).map(|i| (i * 31 % vocabulary) as u32).collect();
    println!("{:.2} M parameters", config.parameters() as f64 / 1e6);
    for _ in 0..5 {
        let mut cache = Cache::new(&decoder, 512);
        let began = Instant::now();
        decoder.step(&prompt, &mut cache);
        let prefill = began.elapsed().as_secs_f64();
        let began = Instant::now();
        for i in 0..256 {
            decoder.step(&[i % vocabulary as u32], &mut cache);
        }
        let decode = began.elapsed().as_secs_f64();
        let read = config.flops_per_token(0) / 6.0 * 4.0 * 256.0 / decode;
        println!(
            "prompt {:7.0} tokens/s   writing {:6.0} tokens/s   {:5.1} GB/s of weights",
            256.0 / prefill,
            256.0 / decode,
            read / 1e9
        );
    }
    Ok(())
}
