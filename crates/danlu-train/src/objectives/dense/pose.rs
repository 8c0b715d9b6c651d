//! A heatmap for each point of the one thing in a picture, as in ViTPose ([Xu et al. 2022](https://arxiv.org/abs/2204.12484)), taught as in Mask
//! R-CNN ([He et al. 2017](https://arxiv.org/abs/1703.06870), 5): by the cross-entropy of the cell in which the point lies among all cells.

use burn::tensor::Tensor;
use danlu_data::scenes::{Instance, Keypoint, Visibility};
use danlu_eval::vision::Guess;
use danlu_models::DenseConfig;
use danlu_ops::IGNORE;

/// The cell of each point; a point that nobody knows carries no loss.
pub(super) fn cells(instances: &[Instance], config: &DenseConfig) -> Vec<u32> {
    let ([rows, columns], stride) = (config.cells(), config.stride as f64);
    let cell = |point: usize| {
        let known = instances.first().and_then(|one| one.keypoints.get(point));
        let known = known.filter(|point| point.visibility != Visibility::Unknown);
        known.map_or(IGNORE, |point| {
            let place = |at: f64, most: usize| ((at / stride).floor().max(0.0) as usize).min(most - 1);
            (place(point.y, rows) * columns + place(point.x, columns)) as u32
        })
    };
    (0..config.keypoints.len()).map(cell).collect()
}

/// The logits of all cells of `pictures` as a row for each point: `[pictures × cells, points]` to `[pictures × points, cells]`.
pub(super) fn rows(maps: Tensor<2>, pictures: usize) -> Tensor<2> {
    let [all, points] = maps.dims();
    let cells = all / pictures.max(1);
    maps.reshape([pictures, cells, points]).swap_dims(1, 2).reshape([pictures * points, cells])
}

/// Where the outputs of a picture's cells say that each point is: in the middle of the likeliest cell and those that touch it, weighed by how
/// likely they are, so that it is found within a cell; and how sure that is on average. Its box
/// is round the cells of all points.
pub(super) fn guess(config: &DenseConfig, values: &[f32]) -> Guess {
    let ([rows, columns], stride) = (config.cells(), config.stride as f64);
    let points = config.keypoints.len();
    let mut score = 0.0;
    let point = |point: usize| {
        let logits: Vec<f32> = values.iter().skip(point).step_by(points).copied().collect();
        let (best, most) = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or((0, 0.0), |(at, x)| (at, *x));
        let weight = |cell: usize| f64::from(logits[cell] - most).exp();
        let all: f64 = (0..logits.len()).map(weight).sum();
        let near = |at: usize, end: usize| at.saturating_sub(1)..(at + 2).min(end);
        let (row, column) = (best / columns, best % columns);
        let (mut x, mut y, mut sum) = (0.0, 0.0, 0.0);
        for (row, column) in near(row, rows).flat_map(|row| near(column, columns).map(move |column| (row, column))) {
            let weight = weight(row * columns + column);
            (x, y, sum) = (x + weight * (column as f64 + 0.5), y + weight * (row as f64 + 0.5), sum + weight);
        }
        score += sum / all / points as f64;
        Keypoint { x: x / sum * stride, y: y / sum * stride, visibility: Visibility::Visible }
    };
    let keypoints: Vec<Keypoint> = (0..points).map(point).collect();
    let ends = |at: fn(&Keypoint) -> f64| {
        let (low, high) = keypoints.iter().map(at).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        (low - stride / 2.0, high - low + stride)
    };
    let ((left, wide), (top, high)) = (ends(|point| point.x), ends(|point| point.y));
    Guess { class: 0, score, bbox: [left, top, wide, high], mask: None, keypoints }
}
