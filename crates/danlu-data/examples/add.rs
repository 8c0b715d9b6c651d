//! Adds a corpus from the command line and prints its report and speed: `cargo run --release -p danlu-data --example add -- HOME NAME
//! SOURCE…`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use danlu_data::source::Source;
use danlu_data::{AddOptions, add};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let home = arguments.next().context("usage: add HOME NAME SOURCE…")?;
    let name = arguments.next().context("usage: add HOME NAME SOURCE…")?;
    let sources = arguments.map(|source| if source == "crates" { Source::Crates } else { Source::Path(source) }).collect();
    let options = AddOptions { home: PathBuf::from(home), ..AddOptions::new(name, sources)? };
    let report = add(&options, &mut ())?;
    print!("{}", report.text());
    let (megabytes, documents) = (report.files.bytes as f64 / 1e6, report.read.documents as f64);
    println!("{:.1} s, {:.1} MB/s, {:.0} documents/s", report.seconds, megabytes / report.seconds, documents / report.seconds);
    Ok(())
}
