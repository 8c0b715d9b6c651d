//! How near a guess is to what is there, from 0 to 1.

use danlu_data::scenes::{Instance, Keypoint, Rle, Visibility};

/// Intersection over union of two boxes, each x, y, width and height; of a crowd over the guess alone, which may be anywhere in it.
pub fn box_overlap(guess: [f64; 4], truth: [f64; 4], crowd: bool) -> f64 {
    let common = |axis: usize| (guess[axis] + guess[axis + 2]).min(truth[axis] + truth[axis + 2]) - guess[axis].max(truth[axis]);
    let (wide, high) = (common(0), common(1));
    if wide <= 0.0 || high <= 0.0 {
        return 0.0;
    }
    let (both, of_guess) = (wide * high, guess[2] * guess[3]);
    both / if crowd { of_guess } else { of_guess + truth[2] * truth[3] - both }
}

/// [`box_overlap`] of masks.
///
/// # Panics
/// When they are of pictures of different sizes.
pub fn mask_overlap(guess: &Rle, truth: &Rle, crowd: bool) -> f64 {
    let (both, either) = guess.overlap(truth);
    if both == 0 { 0.0 } else { f64::from(both) / f64::from(if crowd { guess.area() } else { either }) }
}

/// Object keypoint similarity (<https://cocodataset.org/#keypoints-eval>): the mean over the points that are known of a Gaussian of how far the
/// guess is, by how large the thing is and how exactly people place such a point (`sigmas`). Of a thing with no known point, as in a crowd, how
/// far the guess is outside of twice its box.
///
/// # Panics
/// When there are not as many points as sigmas.
pub fn keypoint_similarity(guess: &[Keypoint], truth: &Instance, sigmas: &[f64]) -> f64 {
    assert!(guess.len() == sigmas.len() && truth.keypoints.len() == sigmas.len(), "a point for each sigma");
    let is_known = |point: &Keypoint| point.visibility != Visibility::Unknown;
    let any = truth.keypoints.iter().any(is_known);
    let [x, y, wide, high] = truth.bbox;
    let outside = |at: f64, low: f64, side: f64| (low - side - at).max(0.0) + (at - (low + 2.0 * side)).max(0.0);
    let (mut sum, mut count) = (0.0, 0);
    for ((guess, truth_point), sigma) in guess.iter().zip(&truth.keypoints).zip(sigmas) {
        if any && !is_known(truth_point) {
            continue;
        }
        let (dx, dy) = if any {
            (guess.x - truth_point.x, guess.y - truth_point.y)
        } else {
            (outside(guess.x, x, wide), outside(guess.y, y, high))
        };
        let variance = (2.0 * sigma).powi(2);
        sum += (-(dx * dx + dy * dy) / variance / (truth.area + f64::EPSILON) / 2.0).exp();
        count += 1;
    }
    sum / f64::from(count.max(1))
}
