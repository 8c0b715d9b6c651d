//! Prints labelled texts as training sees them, for comparison with other programs: `labelled FILE SHORTEST LONGEST LIMIT [SHARE]`. The first
//! line lists the features; each other line is a text with its label, its side and its features that are not zero.

use anyhow::{Context, Result};
use danlu_data::labelled::{Columns, Example, FeatureSpec, Features, Label, Labels, held_out, read};
use danlu_data::source::Source;
use serde_json::json;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "labelled FILE SHORTEST LONGEST LIMIT [SHARE]";
    let [file, low, high, limit, rest @ ..] = &arguments[..] else { anyhow::bail!(usage) };
    let share = rest.first().map_or(Ok(0.1), |share| share.parse()).context(usage)?;
    let examples = read(&[Source::Path(file.clone())], &Columns::default(), Labels::Classes)?.examples;
    let out = held_out(&examples, share, 0);
    let train: Vec<&Example> = examples.iter().zip(&out).filter(|(_, out)| !**out).map(|(example, _)| example).collect();
    let spec = FeatureSpec { ngrams: Some((low.parse()?, high.parse()?)), ngram_limit: limit.parse()?, ..FeatureSpec::default() };
    let features = Features::fit(&spec, &train)?;
    println!("{}", json!(features.names().collect::<Vec<_>>()));
    for (example, out) in examples.iter().zip(out) {
        let Label::Class(label) = &example.label else { continue };
        println!("{}", json!({"text": example.text, "label": label, "held_out": out, "features": features.of(example)}));
    }
    Ok(())
}
