//! Times training and encoding on text files: `tokenizer_speed OUT TEXT...`; a `.zst` file holds JSON lines with a `text`. The last
//! tenth of the documents is held out. Writes `OUT/tokenizer-<size>.json`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use danlu_data::tokenizer::{TrainSpec, bytes_per_token, train};

fn documents(path: &str) -> Result<Vec<String>> {
    if !path.ends_with(".zst") {
        return Ok(std::fs::read_to_string(path)?.split("\n\n\n").map(str::to_owned).collect());
    }
    let text = |line: std::io::Result<String>| -> Result<String> {
        let record: serde_json::Value = serde_json::from_str(&line?)?;
        Ok(record["text"].as_str().unwrap_or_default().to_owned())
    };
    BufReader::new(zstd::Decoder::new(std::fs::File::open(path)?)?).lines().map(text).collect()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (out, files) = arguments.split_first().context("tokenizer_speed OUT TEXT...")?;
    let mut documents: Vec<String> = files.iter().map(|file| documents(file)).collect::<Result<Vec<_>>>()?.concat();
    let held_out = documents.split_off(documents.len() * 9 / 10);
    let megabytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    for vocab_size in [4096, 16384] {
        let spec = TrainSpec { vocab_size, ..TrainSpec::default() };
        let start = Instant::now();
        let tokenizer = train(&spec, documents.iter().cloned().map(Ok))?;
        let seconds = start.elapsed().as_secs_f64();
        tokenizer.save(&Path::new(out).join(format!("tokenizer-{vocab_size}.json")))?;
        let start = Instant::now();
        documents.iter().try_for_each(|text| tokenizer.encode(text).map(drop))?;
        let one = megabytes(&documents) / start.elapsed().as_secs_f64();
        let start = Instant::now();
        tokenizer.encode_batch(&documents)?;
        let all = megabytes(&documents) / start.elapsed().as_secs_f64();
        let ratio = bytes_per_token(&tokenizer, &held_out, u64::MAX)?.ratio();
        println!(
            "vocabulary {vocab_size}: trained on {:.1} MB in {seconds:.2} s, encodes {one:.1} MB/s on one thread and {all:.1} on all, {ratio:.3} bytes per token held out, {}",
            megabytes(&documents),
            tokenizer.hash()
        );
    }
    Ok(())
}
