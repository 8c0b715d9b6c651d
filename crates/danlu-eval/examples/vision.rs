//! Reads a folder in COCO's format, and from the standard input guesses of what is in it; writes what each measure of seeing says of them. See
//! `tests/peers/vision_scores.py`.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use danlu_data::scenes::coco::{self, Dataset};
use danlu_data::scenes::{Keypoint, Rle, Visibility};
use danlu_eval::Confusion;
use danlu_eval::vision::{By, Guess, Judged, Roc, accuracy_by_folds, correct_keypoints, detection};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Asked {
    boxes: Vec<Found>,
    masks: Vec<Found>,
    keypoints: Vec<Found>,
    sigmas: Vec<f64>,
    /// Of annotations by their number, where their points are guessed, and the share of a box's longer side that is near enough.
    points: HashMap<u64, Vec<f64>>,
    share: f64,
    /// The class of some pixels, and what was guessed.
    labels: Vec<(usize, usize)>,
    classes: usize,
    pairs: Vec<(f64, bool)>,
    false_accepts: Vec<f64>,
}

/// A guess in COCO's format of results.
#[derive(Deserialize)]
struct Found {
    image_id: u64,
    category_id: u64,
    score: f64,
    #[serde(default)]
    bbox: [f64; 4],
    segmentation: Option<Runs>,
    #[serde(default)]
    keypoints: Vec<f64>,
}

#[derive(Deserialize)]
struct Runs {
    size: [u32; 2],
    counts: String,
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("give a folder in COCO's format")?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let asked: Asked = serde_json::from_str(&input)?;
    let found = coco::in_folder(Path::new(&folder))?;
    let (instances, images) = found.first().context("it holds no file of instances")?;
    let dataset = coco::read(instances, images)?;
    let scores = |found: &[Found], by: By| -> Result<Value> {
        let scores = detection(&judged(&dataset, found)?, dataset.classes.len(), &by)?;
        Ok(json!({
            "AP": scores.average_precision, "AP50": scores.at_50, "AP75": scores.at_75,
            "APs": scores.small, "APm": scores.medium, "APl": scores.large,
            "AR1": scores.recall_of_1, "AR10": scores.recall_of_10, "AR": scores.recall,
            "AR50": scores.recall_at_50, "AR75": scores.recall_at_75,
            "ARs": scores.recall_small, "ARm": scores.recall_medium, "ARl": scores.recall_large,
            "classes": scores.classes,
        }))
    };
    let mut confusion = Confusion::new(asked.classes);
    asked.labels.iter().for_each(|(is, guessed)| confusion.add(*is, *guessed));
    let roc = Roc::of(&asked.pairs)?;
    let said = json!({
        "set_aside": dataset.set_aside,
        "masks": masks(&dataset),
        "scores": {
            "bbox": scores(&asked.boxes, By::Boxes)?,
            "segm": scores(&asked.masks, By::Masks)?,
            "keypoints": scores(&asked.keypoints, By::Keypoints { sigmas: asked.sigmas.clone() })?,
        },
        "pck": pck(&dataset, &asked),
        "iou": (0..asked.classes).map(|class| confusion.iou(class)).collect::<Vec<_>>(),
        "mean_iou": confusion.mean_iou(),
        "auc": roc.area(),
        "eer": roc.equal_error(),
        "accuracy": accuracy_by_folds(&asked.pairs, 10),
        "true_accepts": asked.false_accepts.iter().map(|most| roc.at_false_accept(*most).true_accept).collect::<Vec<_>>(),
    });
    println!("{said}");
    Ok(())
}

/// Each annotation's mask as text.
fn masks(dataset: &Dataset) -> HashMap<String, Option<String>> {
    let each = dataset.pictures.iter().flat_map(|entry| entry.ids.iter().zip(&entry.instances));
    each.map(|(id, instance)| (id.to_string(), instance.mask.as_ref().map(Rle::text))).collect()
}

fn judged(dataset: &Dataset, found: &[Found]) -> Result<Vec<Judged>> {
    let mut all: Vec<Judged> =
        dataset.pictures.iter().map(|entry| Judged { truths: entry.instances.clone(), guesses: vec![] }).collect();
    for one in found {
        let picture = dataset.pictures.iter().position(|entry| entry.id == one.image_id).context("no such image")?;
        let class = dataset.classes.iter().position(|class| class.id == one.category_id).context("no such category")?;
        let mask = one.segmentation.as_ref().map(|runs| Rle::of_text(runs.size[0], runs.size[1], &runs.counts)).transpose()?;
        let keypoints = points(&one.keypoints);
        all[picture].guesses.push(Guess { class: class as u32, score: one.score, bbox: one.bbox, mask, keypoints });
    }
    Ok(all)
}

fn points(numbers: &[f64]) -> Vec<Keypoint> {
    let point = |[x, y, _]: &[f64; 3]| Keypoint { x: *x, y: *y, visibility: Visibility::Visible };
    numbers.as_chunks::<3>().0.iter().map(point).collect()
}

fn pck(dataset: &Dataset, asked: &Asked) -> f64 {
    let (mut right, mut all) = (0, 0);
    for (id, truth) in dataset.pictures.iter().flat_map(|entry| entry.ids.iter().zip(&entry.instances)) {
        let Some(guess) = asked.points.get(id) else { continue };
        let (some, of) = correct_keypoints(&truth.keypoints, &points(guess), truth.bbox[2].max(truth.bbox[3]), asked.share);
        (right, all) = (right + some, all + of);
    }
    right as f64 / all as f64
}
