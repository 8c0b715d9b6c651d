//! Tokens per second of reading a prompt, of writing one answer after another, and of several at once, for a model's folder.
//!
//! `serve_speed FOLDER [STREAMS [TOKENS]]`: rounds of the plain generator, of the scheduler with one request, and with STREAMS, taking turns; in
//! floats, and from the blocks of the folder's `model.gguf` where it has one.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::serve::{Event, Options, Request, Scheduler, Sink};
use danlu_engine::{Generator, Sampling};
use danlu_models::folder;

/// Tokens of the prompt whose reading is timed, where the context has room for them.
const LONG: usize = 512;

struct Nowhere;

impl Sink for Nowhere {
    fn send(&self, _: Event) {}

    fn is_closed(&self) -> bool {
        false
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(arguments.first().context("a model's folder is needed")?);
    let number = |i: usize, default| arguments.get(i).map_or(Ok(default), |n| n.parse());
    let (streams, max_tokens) = (number(1, 8)?, number(2, 64)?);
    let device = Device::flex();
    let mut all = vec![("floats", folder::load(dir, &device)?)];
    if dir.join(folder::GGUF).is_file() {
        all.push(("blocks", folder::load_to_run(dir, &device)?));
    }
    let tokenizer = Tokenizer::load(dir)?;
    let generators: Vec<(&str, Generator)> = all
        .into_iter()
        .map(|(what, (decoder, config))| (what, Generator::new(decoder, tokenizer.clone()).with_config(&config)))
        .collect();
    for _ in 0..3 {
        for (what, generator) in &generators {
            println!("{what}  {}", round(generator, streams, max_tokens)?);
        }
    }
    Ok(())
}

fn round(generator: &Generator, streams: usize, max_tokens: usize) -> Result<String> {
    // Texts that do not end, so that all are of one length.
    let logit_bias = generator.ends().iter().map(|end| (*end, -100.0)).collect();
    let sampling = Sampling { max_tokens, logit_bias, ..Sampling::greedy() };
    let prompt = generator.encode("The furnace is lit in the evening, and by morning the elixir is ready. It is said that")?;
    let long: Vec<u32> = prompt.iter().copied().cycle().take(LONG.min(generator.decoder().context() - 1)).collect();
    let nothing = |_: &str| ControlFlow::Continue(());
    let read = generator.generate_from(&long, &Sampling { max_tokens: 1, ..sampling.clone() }, nothing)?;
    let plain = generator.generate_from(&prompt, &sampling, nothing)?.tokens_per_second;
    let at_once = |streams: usize| {
        let mut scheduler = Scheduler::new(generator, Options { kept_tokens: 0, ..Options::default() });
        for _ in 0..streams {
            let (prompt, sampling) = (prompt.clone(), sampling.clone());
            scheduler.push(Request { prompt, samples: 1, sampling, log_probs: None, grammar: None, sink: Arc::new(Nowhere) });
        }
        let (mut drawn, mut seconds) = (0, 0.0);
        while !scheduler.is_idle() {
            let began = Instant::now();
            let (read, written) = scheduler.step();
            // Steps that also read prompts are not steps of writing.
            if read == 0 {
                drawn += written;
                seconds += began.elapsed().as_secs_f64();
            }
        }
        drawn as f64 / seconds
    };
    let (one, many) = (at_once(1), at_once(streams));
    Ok(format!(
        "prompt {:6.0} tokens/s   plain generator {plain:6.1}   scheduler, one {one:6.1}   {streams} at once {many:6.1}, {:.2} times one",
        read.prompt_tokens as f64 / read.prompt_seconds,
        many / one
    ))
}
