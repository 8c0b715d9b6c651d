//! What detectors say, and what it is compared with.

use anyhow::{Context, Result, ensure};
use danlu_data::scenes::{Instance, Keypoint, Rle};

use super::overlap::{box_overlap, keypoint_similarity, mask_overlap};

/// A thing that a model sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guess {
    pub class: u32,
    /// How sure it is: only the order counts.
    pub score: f64,
    /// x, y, width and height.
    pub bbox: [f64; 4],
    pub mask: Option<Rle>,
    pub keypoints: Vec<Keypoint>,
}

/// A picture: what is there, and what is seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    pub truths: Vec<Instance>,
    pub guesses: Vec<Guess>,
}

/// What of things is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    Boxes,
    Masks,
    /// How exactly people place each point, as a share of the square root of the thing's area.
    Keypoints {
        sigmas: Vec<f64>,
    },
}

/// Sigmas of COCO's seventeen points of a person, from the nose to the ankles.
pub const PERSON_SIGMAS: [f64; 17] =
    [0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089];

impl By {
    /// Whether guesses and truths have what is compared.
    pub(super) fn check(&self, picture: &Judged, classes: usize) -> Result<()> {
        let of_class = |class: u32| (class as usize) < classes;
        for guess in &picture.guesses {
            ensure!(of_class(guess.class), "a guess is of class {} of {classes}", guess.class);
            ensure!(
                !guess.score.is_nan() && guess.bbox.iter().all(|x| x.is_finite()),
                "a guess has a score or box that is no number"
            );
        }
        ensure!(picture.truths.iter().all(|truth| of_class(truth.class)), "a thing is of a class that is none of {classes}");
        match self {
            Self::Boxes => {}
            Self::Masks => {
                let mut size = None;
                let masks = picture.guesses.iter().map(|guess| &guess.mask).chain(picture.truths.iter().map(|truth| &truth.mask));
                for mask in masks {
                    let mask = mask.as_ref().context("masks are compared, and a guess or a thing has none")?;
                    let other = *size.get_or_insert((mask.height(), mask.width()));
                    ensure!(other == (mask.height(), mask.width()), "masks of one picture are of different sizes");
                }
            }
            Self::Keypoints { sigmas } => {
                let counts = picture.guesses.iter().map(|guess| guess.keypoints.len());
                let counts = counts.chain(picture.truths.iter().map(|truth| truth.keypoints.len()));
                for count in counts {
                    ensure!(
                        count == sigmas.len(),
                        "a guess or a thing has {count} keypoints, and there are {} sigmas",
                        sigmas.len()
                    );
                }
                ensure!(sigmas.iter().all(|sigma| *sigma > 0.0), "a sigma is not above 0");
            }
        }
        Ok(())
    }

    /// How near a guess is to a thing.
    pub(super) fn overlap(&self, guess: &Guess, truth: &Instance) -> f64 {
        match self {
            Self::Boxes => box_overlap(guess.bbox, truth.bbox, truth.crowd),
            Self::Masks => match (&guess.mask, &truth.mask) {
                (Some(guess), Some(mask)) => mask_overlap(guess, mask, truth.crowd),
                _ => 0.0,
            },
            Self::Keypoints { sigmas } => keypoint_similarity(&guess.keypoints, truth, sigmas),
        }
    }

    /// How large what is guessed is, in pixels.
    pub(super) fn area(&self, guess: &Guess) -> f64 {
        match self {
            Self::Boxes => guess.bbox[2] * guess.bbox[3],
            Self::Masks => guess.mask.as_ref().map_or(0.0, |mask| f64::from(mask.area())),
            Self::Keypoints { .. } => {
                let side = |at: fn(&Keypoint) -> f64| {
                    let (low, high) = guess
                        .keypoints
                        .iter()
                        .map(at)
                        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
                    high - low
                };
                side(|point| point.x) * side(|point| point.y)
            }
        }
    }
}
