//! Measures of seeing, each equal to its public definition: `tests/peers/vision_scores.py` holds them to pycocotools and scikit-learn.

mod average_precision;
mod detection;
mod keypoints;
mod matching;
mod overlap;
mod segmentation;
#[cfg(test)]
mod tests;
mod verification;

pub use average_precision::{Detection, detection, precision_interval};
pub use detection::{By, Guess, Judged, PERSON_SIGMAS};
pub use keypoints::correct_keypoints;
pub use overlap::{box_overlap, keypoint_similarity, mask_overlap};
pub use segmentation::mean_iou;
pub use verification::{Roc, RocPoint, accuracy_by_folds, area_interval, best_threshold};
