//! How well near-duplicates are found: real texts are planted again with some of their words edited, and `add` is asked to find them.
//! `cargo run --release -p danlu-data --example near_duplicates -- SOURCE…`. Found is measured against the true Jaccard similarity of
//! the pairs, from whole sets of three-word shingles.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use danlu_data::source::Source;
use danlu_data::{AddOptions, Corpus, Split, add};

/// Texts planted at each rate.
const PLANTED: usize = 5_000;

fn main() -> Result<()> {
    let sources: Vec<_> = std::env::args().skip(1).map(Source::Path).collect();
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let options = AddOptions { home: home.path().to_path_buf(), ..AddOptions::new("texts", sources)? };
    add(&options, &mut ())?;
    let originals: Vec<String> = kept(home.path(), "texts")?.into_iter().take(PLANTED).collect();
    println!(
        "{} distinct texts, {:.0} words on average",
        originals.len(),
        mean(originals.iter().map(|t| t.split_whitespace().count() as f64))
    );
    println!("edited  pairs J>=0.8  found of them  found of J<0.8  found of all  originals lost");
    let mut rng = common::rng(7);
    for rate in [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2] {
        let edited: Vec<String> = originals.iter().map(|text| common::edit(text, rate, &mut rng)).collect();
        let path = home.path().join("planted.jsonl");
        let mut file = BufWriter::new(File::create(&path)?);
        for text in originals.iter().chain(&edited) {
            serde_json::to_writer(&mut file, &serde_json::json!({ "text": text }))?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        let mut options = options.clone();
        options.name = "planted".to_owned();
        options.sources = vec![Source::Path(path.display().to_string())];
        options.clean.quality = false;
        add(&options, &mut ())?;
        let kept: HashSet<String> = kept(home.path(), "planted")?.into_iter().collect();
        // With no edits a text may be the same as its original, which stays.
        let (mut near, mut near_found, mut far, mut far_found) = (0, 0, 0, 0);
        for (original, edited) in originals.iter().zip(&edited) {
            let found = usize::from(edited == original || !kept.contains(edited));
            if jaccard(original, edited) >= 0.8 {
                near += 1;
                near_found += found;
            } else {
                far += 1;
                far_found += found;
            }
        }
        let lost = originals.iter().filter(|text| !kept.contains(*text)).count();
        let share = |part: usize, of: usize| if of == 0 { "-".to_owned() } else { format!("{:.4}", part as f64 / of as f64) };
        let all = share(near_found + far_found, near + far);
        println!("{rate:>6}  {near:>12}  {:>13}  {:>14}  {all:>12}  {lost:>14}", share(near_found, near), share(far_found, far));
    }
    Ok(())
}

fn kept(home: &Path, name: &str) -> Result<Vec<String>> {
    let corpus = Corpus::open_in(home, name)?;
    let all = corpus.documents(Split::Train).chain(corpus.documents(Split::HeldOut));
    all.map(|document| Ok(document?.text)).collect()
}

fn jaccard(a: &str, b: &str) -> f64 {
    let set = |text: &str| -> HashSet<String> {
        let lower = text.to_lowercase();
        let words: Vec<_> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        words.windows(3).map(|shingle| shingle.join(" ")).collect()
    };
    let (a, b) = (set(a), set(b));
    let shared = a.intersection(&b).count();
    shared as f64 / (a.len() + b.len() - shared).max(1) as f64
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f64::max(count, 1.0)
}
