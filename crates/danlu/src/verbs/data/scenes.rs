use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use danlu_data::images::SetAside;
use danlu_data::scenes::coco::{self, Dataset, Labelled};
use danlu_data::scenes::{Options, Scene, Scenes, Side, Stamps, sheet};
use danlu_data::source::Source;
use danlu_data::{Progress, catalogue};

use crate::exit::{Outcome, bad_input};
use crate::human;
use crate::life::corpora::fetch;
use crate::verbs::Context;
use crate::views::progress::Lines;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stamps of the catalogue, a folder of pictures with transparency in a folder for each class, or a folder in COCO's format.
    source: String,
    /// Where to draw the pictures with their boxes, the edges of their masks and their keypoints (PNG).
    #[arg(long, value_name = "FILE", default_value = "scenes.png")]
    sheet: PathBuf,
    /// Also write the scenes as a folder in COCO's format.
    #[arg(long, value_name = "FOLDER")]
    coco: Option<PathBuf>,
    /// How many are drawn, and written with --coco.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Height and width of a scene, in pixels.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// The most things in a scene.
    #[arg(long, default_value_t = 6)]
    things: usize,
    /// The seed of the scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The scenes that are held out instead of those to train on.
    #[arg(long)]
    held_out: bool,
    /// Print what there is as JSON, a line for each file of instances.
    #[arg(long)]
    json: bool,
}

/// Pictures on a sheet: more of them would be small.
const ON_SHEET: u64 = 48;
/// Reasons that are printed; `--json` has them all.
const REASONS: usize = 5;

pub fn run(context: &Context, args: Args) -> Outcome {
    let folder = Path::new(&args.source);
    let found = if folder.is_dir() { coco::in_folder(folder).map_err(bad_input)? } else { vec![] };
    if found.is_empty() {
        return composite(context, &args);
    }
    if args.coco.is_some() {
        return Err(bad_input(anyhow::anyhow!("{} is in COCO's format already", folder.display())));
    }
    let (count, mut drawn) = (args.count.min(ON_SHEET) as usize, vec![]);
    for (instances, images) in found {
        let dataset = coco::read(&instances, &images).map_err(bad_input)?;
        tell(&args, &instances.display().to_string(), &dataset)?;
        for entry in dataset.pictures.iter().take(count - drawn.len()) {
            drawn.push((entry.picture().map_err(bad_input)?, entry.instances.clone()));
        }
    }
    finish(&args, &drawn)
}

/// Says what a folder in COCO's format holds.
fn tell(args: &Args, name: &str, dataset: &Dataset) -> Result<()> {
    let things: usize = dataset.pictures.iter().map(|entry| entry.instances.len()).sum();
    let classes: Vec<&str> = dataset.classes.iter().map(|class| class.name.as_str()).collect();
    let what = format!("{name}: {} pictures with {} things", dataset.pictures.len(), human::thousands(things as u64));
    say(args, &what, &classes, &dataset.set_aside)
}

fn say(args: &Args, what: &str, classes: &[&str], set_aside: &[SetAside]) -> Result<()> {
    if args.json {
        println!("{}", serde_json::json!({ "what": what, "classes": classes, "set_aside": set_aside }));
        return Ok(());
    }
    println!("{what} in {} classes: {}", classes.len(), classes.join(", "));
    for one in set_aside.iter().take(REASONS) {
        println!("  set aside: {}: {}", one.picture, one.reason);
    }
    if let Some(more) = set_aside.len().checked_sub(REASONS).filter(|more| *more > 0) {
        println!("  and {more} more; --json lists them");
    }
    Ok(())
}

/// Draws and writes scenes that are put together of stamps.
fn composite(context: &Context, args: &Args) -> Outcome {
    let mut progress = Lines::new();
    let files = stamps(&context.home, &args.source, &mut progress)?;
    progress.start("read the stamps", None, "stamps");
    let stamps = Stamps::read(&files, args.size).with_context(|| format!("in {}", args.source)).map_err(bad_input)?;
    drop(progress);
    let classes: Vec<&str> = stamps.classes.iter().map(String::as_str).collect();
    say(args, &format!("{}: {} stamps", args.source, human::thousands(stamps.len() as u64)), &classes, &stamps.set_aside)?;
    let options = Options { height: args.size, width: args.size, things: (1, args.things), ..Options::default() };
    let scenes = Scenes::new(stamps, options, args.seed).map_err(bad_input)?;
    let side = if args.held_out { Side::HeldOut } else { Side::Train };
    if let Some(folder) = &args.coco {
        scenes.export(folder, side, args.count)?;
        note(args, &format!("{} scenes are in {}", human::thousands(args.count), folder.display()));
    }
    let drawn: Vec<Labelled> = (0..args.count.min(ON_SHEET))
        .map(|index| {
            let Scene { picture, instances } = scenes.scene(side, index);
            (picture, instances)
        })
        .collect();
    finish(args, &drawn)
}

fn finish(args: &Args, drawn: &[Labelled]) -> Outcome {
    let pictures = drawn.iter().map(|(picture, instances)| (picture, &instances[..]));
    danlu_files::write_atomic_bytes(&args.sheet, &sheet(pictures)?)?;
    note(args, &format!("{} of them are drawn in {}", drawn.len(), args.sheet.display()));
    Ok(())
}

/// What is said to a person only.
fn note(args: &Args, what: &str) {
    if !args.json {
        println!("{what}");
    }
}

/// The files of an entry of the catalogue, or of a folder.
fn stamps(home: &Path, source: &str, progress: &mut dyn Progress) -> Outcome<Vec<PathBuf>> {
    let entries = catalogue::entries()?;
    let is_stamps = |entry: &&catalogue::Entry| entry.kind == catalogue::Kind::Stamps;
    if entries.iter().filter(is_stamps).any(|entry| entry.name == source)
        && let Source::Files { files, .. } = fetch(home, source, progress)?
    {
        return Ok(files);
    }
    if !Path::new(source).is_dir() {
        let names: Vec<&str> = entries.iter().filter(is_stamps).map(|entry| entry.name.as_str()).collect();
        let known = names.join(", ");
        return Err(bad_input(anyhow::anyhow!("{source} is no folder; of the catalogue's entries {known} are stamps")));
    }
    Ok(vec![PathBuf::from(source)])
}
