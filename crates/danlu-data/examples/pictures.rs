//! Writes what a recipe of scenes or of identities learns from and is asked, for other programs to learn from the same:
//! `pictures RECIPE STAMPS COUNT FOLDER [SEED]`, where STAMPS is a folder of pictures with transparency and COUNT how many are learned from.
//!
//! `learned.pixels` and `asked.pixels` hold planes of bytes, picture after picture in the order of the run. Of scenes `learned.jsonl` and
//! `asked.jsonl` have a line for each picture, its things, and `learned.classes` and `asked.classes` the class of each pixel, 0 for nothing; of
//! identities `learned.jsonl` has a label a line, and `asked.jsonl` a pair a line: the places of two pictures and whether they show the same.
//! `about.json` says the rest.

use std::fs::{File, create_dir_all, read_to_string, write};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use danlu_data::images::{Augment, Identities, Scale};
use danlu_data::scenes::{Instance, Options, Scene, SceneSet, Side, Stamps, Visibility, class_map};
use serde_json::{Value, json};
use toml::Table;

/// Pictures that are made at once.
const TOGETHER: u64 = 1000;
/// Of each stamp, as a recipe reads it.
const MOST_SIDE: usize = 128;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, stamps, count, folder, rest @ ..] = &arguments[..] else { bail!("pictures RECIPE STAMPS COUNT FOLDER [SEED]") };
    let recipe: Table = read_to_string(recipe)?.parse()?;
    let (stamps, count, folder) = ([PathBuf::from(stamps)], count.parse()?, Path::new(folder));
    let seed = rest.first().map_or(Ok(0), |seed| seed.parse())?;
    create_dir_all(folder)?;
    let size: [usize; 2] =
        table(&recipe, "image").and_then(|image| list(image, "size")).context("`image.size` is not two numbers")?;
    let kind = table(&recipe, "objective").and_then(|objective| objective.get("kind")?.as_str());
    let about = match kind {
        Some("detect" | "segment" | "pose") => scenes(&recipe, &stamps, count, size, folder, seed)?,
        Some("image-embed") => identities(&recipe, &stamps, count, size, folder, seed)?,
        other => bail!("the objective is {other:?}; this is for scenes and identities"),
    };
    Ok(write(folder.join("about.json"), about.to_string())?)
}

fn table<'a>(recipe: &'a Table, name: &str) -> Option<&'a Table> {
    recipe.get(name)?.as_table()
}

fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| Some(value.as_integer()? as f64))
}

fn list(table: &Table, key: &str) -> Option<[usize; 2]> {
    let [a, b] = &table.get(key)?.as_array()?[..] else { return None };
    Some([a.as_integer()? as usize, b.as_integer()? as usize])
}

fn scenes(
    recipe: &Table,
    stamps: &[PathBuf],
    count: u64,
    [height, width]: [usize; 2],
    folder: &Path,
    seed: u64,
) -> Result<Value> {
    // What a recipe leaves out is as `SceneSpec` has it.
    let empty = Table::new();
    let scene = table(recipe, "scene").unwrap_or(&empty);
    let or = |key: &str, usual: f64| scene.get(key).and_then(number).unwrap_or(usual);
    let [fewest, most] = list(scene, "things").unwrap_or([1, 3]);
    let size: Vec<f64> =
        scene.get("size").and_then(|size| size.as_array()?.iter().map(number).collect()).unwrap_or(vec![0.3, 0.7]);
    let [low, high] = size[..] else { bail!("`scene.size` is not two numbers") };
    let options = Options {
        height,
        width,
        things: (fewest, most),
        size: (low, high),
        rotation: or("rotation", 30.0),
        least_visible: or("visible", 0.4),
    };
    let held_out = or("held_out", 300.0) as u64;
    let set = SceneSet::made(Stamps::read(stamps, MOST_SIDE)?, options, seed, [count, held_out])?;
    let classes: Vec<&str> = set.classes.iter().map(|class| class.name.as_str()).collect();
    for (name, side) in [("learned", Side::Train), ("asked", Side::HeldOut)] {
        let file =
            |end: &str| -> Result<BufWriter<File>> { Ok(BufWriter::new(File::create(folder.join(format!("{name}.{end}")))?)) };
        let (mut pixels, mut lines, mut maps) = (file("pixels")?, file("jsonl")?, file("classes")?);
        for from in (0..set.count(side)).step_by(TOGETHER as usize) {
            let range = from..(from + TOGETHER).min(set.count(side));
            let made = match side {
                Side::Train => set.train_all(range, seed),
                Side::HeldOut => range.map(|index| set.held_out(index)).collect(),
            };
            for Scene { picture, instances } in made {
                pixels.write_all(&picture.pixels)?;
                let map: Vec<u8> = class_map(&instances, height, width).into_iter().map(|class| class as u8).collect();
                maps.write_all(&map)?;
                writeln!(lines, "{}", json!(instances.iter().map(thing).collect::<Vec<Value>>()))?;
            }
        }
    }
    Ok(json!({ "shape": [3, height, width], "classes": classes, "learned": count, "asked": held_out }))
}

fn thing(instance: &Instance) -> Value {
    let points = instance.keypoints.iter().map(|point| json!([point.x, point.y, point.visibility != Visibility::Unknown]));
    json!({ "class": instance.class, "bbox": instance.bbox, "points": points.collect::<Vec<Value>>() })
}

fn identities(
    recipe: &Table,
    stamps: &[PathBuf],
    count: u64,
    [height, width]: [usize; 2],
    folder: &Path,
    seed: u64,
) -> Result<Value> {
    let share =
        table(recipe, "data").and_then(|data| number(data.get("held_out")?)).context("`data.held_out` is not a number")?;
    let set = Identities::of_stamps(stamps, (height, width), share, seed)?;
    let (scale, augment) =
        (Scale { mean: vec![0.0; 3], deviation: vec![1.0 / 255.0; 3] }, Augment { seed, ..Augment::default() });
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().map(|value| value.round() as u8).collect() };
    let (mut pixels, mut lines) = (
        BufWriter::new(File::create(folder.join("learned.pixels"))?),
        BufWriter::new(File::create(folder.join("learned.jsonl"))?),
    );
    for from in (0..count).step_by(TOGETHER as usize) {
        let mut values = vec![0.0; (TOGETHER.min(count - from)) as usize * 3 * height * width];
        for label in set.write(from, &augment, &scale, &mut values) {
            writeln!(lines, "{label}")?;
        }
        pixels.write_all(&bytes(&values))?;
    }
    let (asked, pairs) = (&set.pairs.pictures, &set.pairs.places);
    let mut values = vec![0.0; asked.each()];
    let mut file = BufWriter::new(File::create(folder.join("asked.pixels"))?);
    for place in 0..asked.len() {
        asked.write(place, &scale, &mut values);
        file.write_all(&bytes(&values))?;
    }
    let pairs = pairs.iter().enumerate().map(|(i, [a, b])| format!("{}\n", json!([a, b, set.pairs.is_same(i)])));
    write(folder.join("asked.jsonl"), pairs.collect::<String>())?;
    Ok(json!({
        "shape": [3, height, width],
        "identities": set.names.len(),
        "asked_of": set.held_out_names.len(),
        "learned": count,
        "asked": asked.len(),
    }))
}
