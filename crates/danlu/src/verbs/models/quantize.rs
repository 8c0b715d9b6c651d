use std::borrow::Cow;
use std::path::Path;

use danlu_data::tokenizer::Tokenizer;
use danlu_eval::{Document, Scores, document_bits};
use danlu_models::folder;
use danlu_ops::quantized::Format;
use danlu_registry::{Measure, ModelRef, Registry};

use super::registered;
use crate::exit::{Exit, Outcome, bad_input};
use crate::human;
use crate::life::quantize::Quantized;
use crate::verbs::{Context, eval};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model, as NAME or NAME@VERSION.
    model: ModelRef,
    /// The format of the blocks: q8_0, q4_0, q4_1, q4_k or q6_k. Rows that its blocks of 256 do not divide are written as Q8_0.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    to: Format,
    /// The name to keep it under; without one, the model's with the format.
    #[arg(long)]
    name: Option<String>,
    /// The text that both are measured on: a corpus, of which the held-out documents are read, or files; without it, what the model was
    /// trained on, where that is known.
    #[arg(long)]
    data: Vec<String>,
    /// Read about this many bytes of each.
    #[arg(long, default_value_t = 50_000)]
    bytes: u64,
}

fn format(name: &str) -> Result<Format, String> {
    let known = || Format::ALL.into_iter().filter(|format| format.has_products());
    known().find(|format| format.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names: Vec<String> = known().map(|format| format.name().to_lowercase()).collect();
        format!("there are {}", names.join(", "))
    })
}

pub fn run(context: &Context, args: Args) -> Outcome {
    let registry = Registry::open(&context.home)?;
    let made = Quantized::write(&context.home, &args.model, args.to, args.name).map_err(bad_input)?;
    let [before, after] = made.bytes;
    println!("weights     {} of {}: {}", human::bytes(after), human::bytes(before), types(&made.types));
    println!("logits      differ by at most {:.2} on a sentence; the largest is {:.1}", made.gap, made.largest);
    if let Some(reason) = &made.only_here {
        println!("llama.cpp   cannot run it: {reason}");
    }
    let named = !args.data.is_empty();
    let trained_on =
        || Ok::<_, Exit>(registry.show(&args.model).map_err(bad_input)?.lineage.data.into_iter().map(|data| data.name));
    let sources = if named { args.data } else { trained_on()?.collect() };
    if sources.is_empty() {
        println!("measured    on nothing: what {} was trained on is not known here; say on what with --data", made.from);
    }
    let mut measured = None;
    for source in &sources {
        let documents = match eval::some_documents(context, &Tokenizer::load(&made.before)?, source, args.bytes) {
            // What a model was tuned on need not be text, or be here still.
            Err(Exit { error: Some(error), .. }) if !named => {
                println!("{source}: not measured: {error:#}");
                continue;
            }
            documents => documents?,
        };
        let [before, after] = [&made.before, &made.stage].map(|dir| scores(dir, &documents));
        let (before, after) = (before?, after?);
        let change = after.change_from(&before);
        println!(
            "{source}: {:.4} bits per byte before, {:.4} after: {:+.4} (95 % interval {:+.4} to {:+.4}; {} documents, {} bytes)",
            before.value(),
            after.value(),
            change.value,
            change.low,
            change.high,
            after.items.len(),
            after.bytes
        );
        let measure = after.measure();
        let end = |x: f64| x.is_finite().then_some(x);
        measured.get_or_insert(Measure { value: measure.value, low: end(measure.low), high: end(measure.high) });
    }
    let id = made.register(&context.home, measured)?;
    registered(&registry, &id)
}

/// Each model as it runs: from blocks where it has any.
fn scores(dir: &Path, documents: &[Document]) -> Outcome<Scores> {
    let (decoder, _) = folder::load_to_run(dir, &danlu_ops::device()).map_err(bad_input)?;
    let again = documents.iter().map(|one| Document { tokens: Cow::Borrowed(&one.tokens), bytes: one.bytes });
    document_bits(|batch| decoder.token_nll(batch), decoder.context(), again, None).map_err(bad_input)
}

/// `Q8_0 76 %, Q4_K 24 %`.
fn types(types: &[(&str, usize)]) -> String {
    let all: usize = types.iter().map(|(_, values)| values).sum();
    let parts: Vec<String> =
        types.iter().map(|(name, values)| format!("{name} {:.0} %", *values as f64 / all.max(1) as f64 * 100.0)).collect();
    parts.join(", ")
}
