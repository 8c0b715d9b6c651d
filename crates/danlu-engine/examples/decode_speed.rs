//! Tokens per second of reading a prompt and of writing, for a model with random weights, in floats and in blocks by turns.
//!
//! `decode_speed [HIDDEN [LAYERS [VOCABULARY [FORMAT]]]]`; the default has 10 M parameters, and FORMAT is one of Q8_0, Q4_0, Q4_1, Q4_K and
//! Q6_K. Prints also the rate at which weights are read, which is what bounds writing: each token reads each weight once.

use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_models::gguf::{self, Gguf};
use danlu_models::{Decoder, DecoderConfig, LlamaConfig, Sequence};
use danlu_ops::quantized::Format;

const PROMPT: usize = 256;
const WRITE: usize = 256;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| arguments.get(i).map_or(Ok(default), |n| n.parse());
    let (hidden, layers, vocabulary) = (number(0, 320)?, number(1, 6)?, number(2, 4096)?);
    let name = arguments.get(3).map_or("Q4_1", String::as_str);
    let format = Format::ALL.into_iter().find(|f| f.name() == name && f.has_products());
    let format = format.with_context(|| format!("{name} is no format of blocks"))?;
    let config = DecoderConfig::Llama(LlamaConfig::new(vocabulary, hidden, layers, 64, 1024));
    let floats = Decoder::new(&config, 0, &Device::flex())?;
    let file = std::env::temp_dir().join(format!("danlu-decode-speed-{}.gguf", std::process::id()));
    gguf::save(&floats, &config, &[], format, &file)?;
    let blocks = Gguf::open(&file).and_then(|gguf| gguf::decoder_in_blocks(&gguf));
    let bytes = std::fs::metadata(&file)?.len() as f64;
    std::fs::remove_file(&file)?;
    let parameters = config.parameters() as f64;
    println!("{:.2} M parameters, {:.1} MB as {name}", parameters / 1e6, bytes / 1e6);
    let prompt: Vec<u32> = (0..PROMPT).map(|i| (i * 31 % vocabulary) as u32).collect();
    let blocks = blocks?.0;
    for _ in 0..5 {
        for (what, decoder, bytes) in [("floats", &floats, parameters * 4.0), (name, &blocks, bytes)] {
            let mut sequence = Sequence::new(decoder, PROMPT + WRITE);
            let began = Instant::now();
            decoder.step_many(&[&prompt], &mut [&mut sequence]);
            let prefill = began.elapsed().as_secs_f64();
            let began = Instant::now();
            for i in 0..WRITE {
                decoder.step_many(&[&[(i % vocabulary) as u32]], &mut [&mut sequence]);
            }
            let decode = began.elapsed().as_secs_f64() / WRITE as f64;
            println!(
                "{what:6}  prompt {:7.0} tokens/s   writing {:6.0} tokens/s   {:5.1} GB/s of weights",
                PROMPT as f64 / prefill,
                1.0 / decode,
                bytes / decode / 1e9
            );
        }
    }
    Ok(())
}
