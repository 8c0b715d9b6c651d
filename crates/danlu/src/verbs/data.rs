mod scenes;

use clap::Subcommand;
use danlu_data::corpus::{self, Corpus};
use danlu_data::source::Source;
use danlu_data::{AddOptions, HeldOut, add, catalogue};

use super::Context;
use crate::exit::{Outcome, bad_input};
use crate::life::corpora::{fetch, is_entry};
use crate::views::progress::Lines;
use crate::{human, views};

/// Gather text: read, clean and deduplicate it into a corpus, and see what was kept.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a corpus from files, folders, globs, an entry of the catalogue, or `crates` (the sources cargo keeps).
    #[command(
        after_help = "Examples:\n  danlu data add wiki-leads\n  danlu data add ~/texts \"notes/**/*.md\" --name mine\n  danlu data add crates"
    )]
    Add {
        /// What to read.
        #[arg(required = true)]
        sources: Vec<String>,
        /// The name of the corpus; with one catalogue entry or `crates`, that name.
        #[arg(long)]
        name: Option<String>,
        /// The share of documents to hold out for measuring.
        #[arg(long, default_value_t = 0.02)]
        held_out: f64,
        /// The seed of the held-out split.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The JSON key or parquet column that holds the text; can be given several times.
        #[arg(long, value_name = "KEY")]
        text_key: Vec<String>,
        /// The encoding of text that is not Unicode, such as gbk or windows-1252.
        #[arg(long)]
        encoding: Option<String>,
        /// Keep duplicates.
        #[arg(long)]
        keep_duplicates: bool,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the corpora there are, and the catalogue of those that can be fetched.
    #[command(after_help = "Example:\n  danlu data list")]
    List {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Show what a corpus is, and what each step of cleaning dropped, with examples.
    #[command(after_help = "Example:\n  danlu data show wiki-leads")]
    Show {
        /// The corpus.
        name: String,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Put pictures with transparency together to scenes with boxes, masks and keypoints, or look at a folder in COCO's format.
    #[command(
        after_help = "Examples:\n  danlu data scenes stamps\n  danlu data scenes emoji --count 1000 --coco scenes --held-out\n  danlu data scenes ~/coco --sheet coco.png"
    )]
    Scenes(scenes::Args),
}

pub fn run(context: &Context, args: Args) -> Outcome {
    match args.verb {
        Verb::Scenes(args) => scenes::run(context, args),
        Verb::Add { sources, name, held_out, seed, text_key, encoding, keep_duplicates, json } => {
            let mut progress = Lines::new();
            let name = match (name, sources.as_slice()) {
                (Some(name), _) => name,
                (None, [one]) if one == "crates" || is_entry(one)? => one.clone(),
                (None, _) => return Err(bad_input(anyhow::anyhow!("give the corpus a name with --name NAME"))),
            };
            let mut found = Vec::new();
            for source in sources {
                found.push(match source.as_str() {
                    "crates" => Source::Crates,
                    entry if is_entry(entry)? => fetch(&context.home, entry, &mut progress)?,
                    _ => Source::Path(source),
                });
            }
            let options = AddOptions {
                home: context.home.clone(),
                seed,
                text_keys: text_key,
                encoding,
                deduplicate: !keep_duplicates,
                held_out: HeldOut { fraction: held_out, ..HeldOut::default() },
                ..AddOptions::new(&name, found)?
            };
            let report = add(&options, &mut progress).map_err(bad_input)?;
            drop(progress);
            if json {
                return views::print_json(&report);
            }
            print!("{}", report.text());
            println!("{name} is ready; `danlu up --data {name}` makes a model of it");
            Ok(())
        }
        Verb::List { json } => list(context, json),
        Verb::Show { name, json } => {
            let corpus = Corpus::open_in(&context.home, &name).map_err(bad_input)?;
            let report = corpus.report()?;
            if json {
                return views::print_json(&serde_json::json!({ "manifest": corpus.manifest, "report": report }));
            }
            print!("{}", report.text());
            println!("hash    {}\nfolder  {}", corpus.manifest.hash, corpus.folder().display());
            Ok(())
        }
    }
}

fn list(context: &Context, json: bool) -> Outcome {
    let corpora = corpus::list(&context.home)?;
    if json {
        let manifests: Vec<_> = corpora.iter().map(|corpus| &corpus.manifest).collect();
        let entries = catalogue::entries()?;
        return views::print_json(&serde_json::json!({ "corpora": manifests, "catalogue": entries }));
    }
    let mut rows = vec![["CORPUS", "DOCUMENTS", "TEXT", "HELD OUT", "FROM"].map(str::to_string)];
    for corpus in &corpora {
        let manifest = &corpus.manifest;
        rows.push([
            manifest.name.clone(),
            human::thousands(manifest.train.documents + manifest.held_out.documents),
            human::bytes(manifest.train.bytes + manifest.held_out.bytes),
            human::bytes(manifest.held_out.bytes),
            manifest.sources.join(", "),
        ]);
    }
    if corpora.is_empty() {
        println!("There are no corpora yet; `danlu data add wiki-leads` makes one.");
    } else {
        print!("{}", views::table(&rows));
    }
    for (kind, heading) in [
        (catalogue::Kind::Text, "Can be added by name:"),
        (catalogue::Kind::Chat, "Can be named as `data.sources` of recipes that tune models:"),
        (catalogue::Kind::Labelled, "Can be named as `data.sources` of recipes that classify:"),
        (catalogue::Kind::Parallel, "Can be named as `data.sources` of recipes that translate, two languages together:"),
        (catalogue::Kind::Images, "Can be named as `data.sources` of recipes that read pictures:"),
        (catalogue::Kind::Stamps, "Can be put together to labelled scenes by `danlu data scenes`:"),
    ] {
        println!("\n{heading}");
        let mut rows = vec![["ENTRY", "TEXT", "LICENCE"].map(str::to_string)];
        for entry in catalogue::entries()?.into_iter().filter(|entry| entry.kind == kind) {
            rows.push([entry.name, entry.title, entry.licence]);
        }
        print!("{}", views::table(&rows));
    }
    Ok(())
}
