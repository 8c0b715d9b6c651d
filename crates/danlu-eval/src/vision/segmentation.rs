use crate::Confusion;
use crate::bootstrap::resampled;

/// [`Confusion::mean_iou`] of the pixels of all pictures, with its 95 % interval over pictures drawn with replacement, from the counts of each.
/// Fewer than two pictures have an interval that says nothing.
///
/// # Panics
/// When pictures have different classes.
pub fn mean_iou(pictures: &[Confusion]) -> (f64, [f64; 2]) {
    let sum = |places: &[usize]| {
        let (first, rest) = places.split_first()?;
        let mut sum = pictures[*first].clone();
        rest.iter().for_each(|&place| sum.add_all(&pictures[place]));
        Some(sum)
    };
    let all: Vec<usize> = (0..pictures.len()).collect();
    let Some(whole) = sum(&all) else { return (0.0, [0.0, 1.0]) };
    if all.len() < 2 {
        return (whole.mean_iou(), [0.0, 1.0]);
    }
    let classes = whole.seen();
    // A class that no picture of a draw has counts as it does in all of them: without it the mean would be of other classes.
    let of_draw = |drawn: &[usize]| {
        let drawn = sum(drawn).unwrap_or_else(|| whole.clone());
        let seen = drawn.seen();
        let iou = |class: &usize| if seen.contains(class) { drawn.iou(*class) } else { whole.iou(*class) };
        classes.iter().map(iou).sum::<f64>() / classes.len().max(1) as f64
    };
    let (low, high) = resampled(all.len(), of_draw);
    (whole.mean_iou(), [low, high])
}
