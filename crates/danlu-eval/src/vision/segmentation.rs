use crate::Confusion;
use crate::bootstrap::resampled;

/// [`Confusion::mean_iou`] of the pixels of all pictures, with its 95 % interval over pictures drawn with replacement, from the counts of each.
/// Fewer than two pictures have an interval that says nothing.
///
/// # Panics
/// When pictures have different classes.
pub fn mean_iou(pictures: &[Confusion]) -> (f64, [f64; 2]) {
    let of = |places: &[usize]| {
        let Some((first, rest)) = places.split_first() else { return 0.0 };
        let mut sum = pictures[*first].clone();
        rest.iter().for_each(|&place| sum.add_all(&pictures[place]));
        sum.mean_iou()
    };
    let all: Vec<usize> = (0..pictures.len()).collect();
    let (low, high) = if all.len() < 2 { (0.0, 1.0) } else { resampled(all.len(), of) };
    (of(&all), [low, high])
}
