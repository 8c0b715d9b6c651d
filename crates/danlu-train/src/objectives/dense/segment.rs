//! The class of every cell ([Long et al. 2015](https://arxiv.org/abs/1411.4038)), by cross-entropy; 0 is nothing.

use danlu_data::scenes::{Rle, Scene, class_map};
use danlu_eval::vision::Guess;
use danlu_models::DenseConfig;

/// What the cells of a scene are: the class of what is seen in their middle, from 1.
pub(super) fn classes(scene: &Scene, config: &DenseConfig) -> Vec<u32> {
    let (height, width) = (scene.picture.height, scene.picture.width);
    let (map, [rows, columns], stride) = (class_map(&scene.instances, height, width), config.cells(), config.stride);
    let middle = |cell: usize| cell * stride + stride / 2;
    (0..rows * columns).map(|cell| map[middle(cell / columns) * width + middle(cell % columns)]).collect()
}

/// The class of each pixel that the outputs of a picture's cells say, row after row.
pub(super) fn map(config: &DenseConfig, values: &[f32]) -> Vec<u32> {
    let ([_, columns], [height, width], stride) = (config.cells(), config.vit.image_size, config.stride);
    let best = |said: &[f32]| (0..).zip(said).max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
    let cells: Vec<u32> = values.chunks_exact(config.outputs()).map(best).collect();
    (0..height * width).map(|pixel| cells[pixel / width / stride * columns + pixel % width / stride]).collect()
}

/// All of each class that is seen as one thing, with how sure of it its cells are on average.
pub(super) fn guesses(config: &DenseConfig, values: &[f32]) -> Vec<Guess> {
    let (map, [height, width]) = (map(config, values), config.vit.image_size);
    let mut sure = vec![(0.0, 0u32); config.outputs()];
    for said in values.chunks_exact(config.outputs()) {
        let most = said.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = said.iter().map(|x| (x - most).exp()).sum();
        let class = said.iter().position(|x| *x == most).unwrap_or(0);
        sure[class] = (sure[class].0 + f64::from(1.0 / sum), sure[class].1 + 1);
    }
    let classes = (1..).zip(&sure[1..]).filter(|(_, (_, cells))| *cells > 0);
    let guess = |(class, (sum, cells)): (u32, &(f64, u32))| {
        let mask = Rle::of_bitmap(height as u32, width as u32, |y, x| map[y as usize * width + x as usize] == class);
        Guess { class: class - 1, score: sum / f64::from(*cells), bbox: mask.bbox(), mask: Some(mask), keypoints: vec![] }
    };
    let mut all: Vec<Guess> = classes.map(guess).filter(|guess| guess.bbox[2] > 0.0).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}
