//! Boxes without anchors ([Tian et al. 2019](https://arxiv.org/abs/1904.01355), with its later sampling round the middle).

use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};
use danlu_data::scenes::Instance;
use danlu_eval::vision::{Guess, box_overlap};
use danlu_models::DenseConfig;
use danlu_ops::Ids;

use crate::objectives::{Loss, Report};

/// A cell learns a thing when its middle is in the thing's box and no farther from the box's middle than this many cells, across and down.
const NEAR: f64 = 1.5;
/// How much a cell with a thing weighs against one without, and how much less what is known well already does
/// ([Lin et al. 2017](https://arxiv.org/abs/1708.02002)).
const ALPHA: f64 = 0.25;
/// Logarithms of a box's sides, in cells, are held within this: beyond it is no picture.
const FARTHEST: f32 = 8.0;
/// A class that is less likely than this is not guessed.
const LEAST: f32 = 0.05;
/// Guesses of one class that overlap by more than this are of one thing, of which the surest is kept.
const SAME: f64 = 0.6;
/// Guesses that are looked at, and those that are left, of a picture; COCO counts a hundred.
const LOOKED_AT: usize = 1000;
const MOST: usize = 100;

/// What the cells of some pictures learn.
#[derive(Debug, Clone, Default)]
pub(super) struct Boxes {
    /// Cells of all pictures.
    count: usize,
    /// The cells that have a thing, and its class.
    cells: Vec<u32>,
    classes: Vec<u32>,
    /// Of each of them how far the left, top, right and bottom of the box are, in cells.
    sides: Vec<f32>,
    /// How near the cell is to the middle of the box, from 0 to 1.
    nearness: Vec<f32>,
}

impl Boxes {
    /// Adds a picture. Of several things that a cell could have it learns the smallest; crowds are nothing, and a thing in whose box no cell
    /// has its middle is not learned.
    pub fn push(&mut self, instances: &[Instance], config: &DenseConfig) {
        let ([rows, columns], stride) = (config.cells(), config.stride as f64);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let [x, y] = [column, row].map(|at| (at as f64 + 0.5) * stride);
            let has = |one: &&Instance| {
                let [left, top, wide, high] = one.bbox;
                let inside = x > left && y > top && x < left + wide && y < top + high;
                let near = |at: f64, low: f64, long: f64| (at - low - long / 2.0).abs() <= NEAR * stride;
                !one.crowd && inside && near(x, left, wide) && near(y, top, high)
            };
            let area = |one: &&Instance| one.bbox[2] * one.bbox[3];
            if let Some(thing) = instances.iter().filter(has).min_by(|a, b| area(a).total_cmp(&area(b))) {
                let [left, top, wide, high] = thing.bbox;
                let sides = [x - left, y - top, left + wide - x, top + high - y].map(|side| side / stride);
                let ratio = |a: f64, b: f64| a.min(b) / a.max(b);
                self.cells.push((self.count + row * columns + column) as u32);
                self.classes.push(thing.class);
                self.sides.extend(sides.map(|side| side as f32));
                self.nearness.push((ratio(sides[0], sides[2]) * ratio(sides[1], sides[3])).sqrt() as f32);
            }
        }
        self.count += rows * columns;
    }

    /// Cells with a thing, by which losses are divided.
    pub fn targets(&self) -> usize {
        self.cells.len().max(1)
    }

    /// The loss of the outputs of all cells, `[cells, classes + 5]`: the focal loss of every class in every cell, one less the generalized
    /// overlap of boxes ([Rezatofighi et al. 2019](https://arxiv.org/abs/1902.09630)), and the cross-entropy of nearness; sums over cells, each
    /// divided by the cells that have a thing.
    pub fn loss(&self, maps: Tensor<2>, classes: usize) -> Loss {
        let device = maps.device();
        let focal = self.focal(maps.clone().narrow(1, 0, classes), &device) / self.targets() as f64;
        if self.cells.is_empty() {
            let report = vec![("class_loss", number(&focal))];
            return Loss { value: focal, report };
        }
        let chosen = danlu_ops::embedding(maps, &Ids::from(&self.cells[..]));
        let of = |values: &[f32], width: usize| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [values.len() / width, width]), &device)
        };
        let sides = chosen.clone().narrow(1, classes, 4).clamp(-FARTHEST, FARTHEST).exp();
        let apart = (generalized_overlap(sides, of(&self.sides, 4)) - 1.0).mean().neg();
        let (logits, nearness) = (chosen.narrow(1, classes + 4, 1), of(&self.nearness, 1));
        let near = log_sigmoid(logits.clone()) * nearness.clone() + log_sigmoid(-logits) * (-nearness + 1.0);
        let near = near.mean().neg();
        let report: Report = vec![("class_loss", number(&focal)), ("box_loss", number(&apart)), ("middle_loss", number(&near))];
        Loss { value: focal + apart + near, report }
    }

    fn focal(&self, logits: Tensor<2>, device: &Device) -> Tensor<1> {
        let [cells, classes] = logits.dims();
        let mut is = vec![0f32; cells * classes];
        self.cells.iter().zip(&self.classes).for_each(|(&cell, &class)| is[cell as usize * classes + class as usize] = 1.0);
        let is = Tensor::<2>::from_data(TensorData::new(is, [cells, classes]), device);
        let sure = sigmoid(logits.clone());
        let unsure = -sure.clone() + 1.0;
        let right = log_sigmoid(logits.clone()) * unsure.clone() * unsure * is.clone() * ALPHA;
        let wrong = log_sigmoid(-logits) * sure.clone() * sure * (-is + 1.0) * (1.0 - ALPHA);
        (right + wrong).sum().neg()
    }
}

fn number(x: &Tensor<1>) -> f64 {
    f64::from(x.clone().inner().into_scalar::<f32>())
}

/// Of pairs of boxes that are given by how far their sides are from one place inside both, `[pairs, 4]` each: intersection over union, less the
/// share of their hull that is in neither, `[pairs, 1]`.
fn generalized_overlap(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let area = |sides: Tensor<2>| {
        let side = |at: usize| sides.clone().narrow(1, at, 1);
        (side(0) + side(2)) * (side(1) + side(3))
    };
    let both = area(a.clone().min_pair(b.clone()));
    let hull = area(a.clone().max_pair(b.clone()));
    let either = area(a) + area(b) - both.clone();
    both / either.clone() + either / hull - 1.0
}

/// The things that the outputs of a picture's cells say are there, the surest first: of each cell and class the root of how likely it is times
/// how near the middle, and of those that overlap the surest ("non-maximum suppression").
pub(super) fn guesses(config: &DenseConfig, values: &[f32]) -> Vec<Guess> {
    let (classes, [_, columns], stride) = (config.vit.labels.len(), config.cells(), config.stride as f64);
    let [height, width] = config.vit.image_size.map(|side| side as f64);
    let likely = |x: f32| 1.0 / (1.0 + (-x).exp());
    let mut all: Vec<Guess> = vec![];
    for (cell, said) in values.chunks_exact(classes + 5).enumerate() {
        let [x, y] = [cell % columns, cell / columns].map(|at| (at as f64 + 0.5) * stride);
        let side = |at: usize| f64::from(said[classes + at].clamp(-FARTHEST, FARTHEST).exp()) * stride;
        let (left, top) = ((x - side(0)).max(0.0), (y - side(1)).max(0.0));
        let (right, bottom) = ((x + side(2)).min(width), (y + side(3)).min(height));
        let near = likely(said[classes + 4]);
        for (class, &logit) in (0..).zip(&said[..classes]) {
            if likely(logit) >= LEAST {
                let score = f64::from((likely(logit) * near).sqrt());
                all.push(Guess { class, score, bbox: [left, top, right - left, bottom - top], ..Guess::default() });
            }
        }
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all.truncate(LOOKED_AT);
    let mut kept: Vec<Guess> = vec![];
    for guess in all {
        let same = |one: &Guess| one.class == guess.class && box_overlap(guess.bbox, one.bbox, false) > SAME;
        if kept.len() < MOST && !kept.iter().any(same) {
            kept.push(guess);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use danlu_models::{DenseTask, VitConfig};

    use super::*;

    fn config() -> DenseConfig {
        let labels = vec!["a".into(), "b".into()];
        let vit = VitConfig { labels, ..VitConfig::new([3, 32, 32], 8, 32, 1) };
        DenseConfig { vit, task: DenseTask::Detect, keypoints: vec![], stride: 4 }
    }

    fn thing(class: u32, bbox: [f64; 4], crowd: bool) -> Instance {
        Instance { class, bbox, area: bbox[2] * bbox[3], mask: None, keypoints: vec![], crowd, identity: None }
    }

    fn learned(things: &[Instance]) -> Boxes {
        let mut boxes = Boxes::default();
        boxes.push(things, &config());
        boxes
    }

    #[test]
    fn cells_near_the_middle_of_a_box_learn_it_and_the_smaller_box_wins() {
        // The middle is at (14, 14), the middle of cell (3, 3); those up to 6 pixels away are two to four.
        let large = thing(0, [4.0, 6.0, 20.0, 16.0], false);
        let boxes = learned(std::slice::from_ref(&large));
        let places = [2, 3, 4].iter().flat_map(|row| [2, 3, 4].map(|column| row * 8 + column)).collect::<Vec<u32>>();
        assert_eq!((&boxes.cells, boxes.count, boxes.targets()), (&places, 64, 9));
        assert_eq!((&boxes.sides[16..20], boxes.nearness[4]), (&[2.5, 2.0, 2.5, 2.0][..], 1.0));
        // Up and to the left: 6 of 14 pixels across and 4 of 12 down.
        assert_eq!(boxes.sides[..4], [1.5, 1.0, 3.5, 3.0]);
        assert!((boxes.nearness[0] - (6.0f32 / 14.0 * 4.0 / 12.0).sqrt()).abs() < 1e-6);
        let small = thing(1, [12.0, 12.0, 4.0, 4.0], false);
        let boxes = learned(&[large.clone(), small]);
        assert_eq!((boxes.cells.len(), boxes.classes[4], boxes.classes.iter().sum::<u32>()), (9, 1, 1));
        // Crowds, and what holds no cell's middle, are not learned.
        assert!(learned(&[thing(0, [4.0, 4.0, 20.0, 20.0], true), thing(0, [0.0, 0.0, 2.0, 30.0], false)]).cells.is_empty());
    }

    #[test]
    fn the_loss_is_that_of_the_papers() {
        let device = Device::flex();
        let of = |values: &[f32], width: usize| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [values.len() / width, width]), &device)
        };
        // A box of 4×4 and one of 2×2 in its middle: a quarter in common and the hull is the larger one. One beside: 2×2 in common of a
        // union of 4×2 + 2×4 − 4, in a hull of 4×4.
        let overlaps = |a: [f32; 4], b: [f32; 4]| f64::from(generalized_overlap(of(&a, 4), of(&b, 4)).into_scalar::<f32>());
        assert!((overlaps([2.0; 4], [1.0; 4]) - 0.25).abs() < 1e-6);
        let expected = 4.0 / 12.0 - (16.0 - 12.0) / 16.0;
        assert!((overlaps([2.0, 1.0, 2.0, 1.0], [1.0, 2.0, 1.0, 2.0]) - expected).abs() < 1e-6);
        // One thing of class 1 in a cell that says ln 2 of it and of where it is all that is right; all other logits are zero, where the loss
        // is ln 2 times a quarter, weighed. Three quarters for what is not there.
        let mut boxes = Boxes { count: 2, cells: vec![1], classes: vec![1], sides: vec![1.0; 4], nearness: vec![1.0] };
        let two = 2f32.ln();
        let maps = of(&[0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.0, two, 0.0, 0.0, 0.0, 0.0, 20.0], 7);
        let nothing = 3.0 * 0.75 * 0.25 * f64::from(two);
        let something = 0.25 * (1.0f64 / 3.0).powi(2) * 1.5f64.ln();
        let found = |boxes: &Boxes| number(&boxes.loss(maps.clone(), 2).value);
        assert!((found(&boxes) - nothing - something).abs() < 1e-5, "{} is not {}", found(&boxes), nothing + something);
        // Half as near: the cross-entropy of a half of a logit of 20.
        boxes.nearness = vec![0.5];
        assert!((found(&boxes) - nothing - something - 10.0).abs() < 1e-4);
    }

    #[test]
    fn a_thing_is_guessed_once() {
        let config = config();
        let mut values = [-9.0f32; 64 * 7];
        // Two cells say the same box, 4 to 24 across and 6 to 22 down, one surer; a third says another class of it, a fourth a small thing.
        let mut say = |cell: usize, class: usize, logit: f32, sides: [f32; 4]| {
            values[cell * 7 + class] = logit;
            values[cell * 7 + 2..][..4].iter_mut().zip(sides).for_each(|(to, side)| *to = side.ln());
            values[cell * 7 + 6] = 9.0;
        };
        say(27, 0, 3.0, [2.5, 2.0, 2.5, 2.0]);
        say(28, 0, 2.0, [3.5, 2.0, 1.5, 2.0]);
        say(19, 1, 1.0, [2.5, 1.0, 2.5, 3.0]);
        say(63, 0, 0.0, [0.5, 0.5, 9.0, 9.0]);
        let found = guesses(&config, &values);
        let classes: Vec<u32> = found.iter().map(|guess| guess.class).collect();
        assert_eq!(classes, [0, 1, 0], "{found:?}");
        let near = |a: [f64; 4], b: [f64; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near(found[0].bbox, [4.0, 6.0, 20.0, 16.0]) && near(found[1].bbox, found[0].bbox), "{found:?}");
        // What is said to be outside ends at the edge.
        assert!(near(found[2].bbox, [28.0, 28.0, 4.0, 4.0]), "{found:?}");
        assert!((found[0].score - (1.0 / (1.0 + (-3f64).exp())).sqrt()).abs() < 1e-3);
    }
}
