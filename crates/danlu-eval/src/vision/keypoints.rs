use danlu_data::scenes::{Keypoint, Visibility};

/// The percentage of correct keypoints ([Yang and Ramanan 2013](https://doi.org/10.1109/TPAMI.2012.261)) of one thing, as two counts whose sums
/// over all things have the measure as their ratio: of the points that are known, those whose guess is no farther than `share` times
/// `reference` pixels from them, and all. The reference is the longer side of the thing's box (PCK), or of a person's head (PCKh).
///
/// # Panics
/// When there are not as many guesses as points.
pub fn correct_keypoints(truth: &[Keypoint], guess: &[Keypoint], reference: f64, share: f64) -> (u64, u64) {
    assert_eq!(truth.len(), guess.len(), "a guess for each point");
    let known = truth.iter().zip(guess).filter(|(truth, _)| truth.visibility != Visibility::Unknown);
    known.fold((0, 0), |(right, all), (truth, guess)| {
        let distance = (truth.x - guess.x).hypot(truth.y - guess.y);
        (right + u64::from(distance <= share * reference), all + 1)
    })
}
