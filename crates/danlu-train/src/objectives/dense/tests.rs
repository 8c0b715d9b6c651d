use burn::tensor::Device;
use danlu_data::scenes::{Keypoint, Rle, Visibility};
use danlu_models::VitConfig;

use super::*;

fn config(task: DenseTask, stride: usize) -> DenseConfig {
    let labels = vec!["a".into(), "b".into()];
    let keypoints = if task == DenseTask::Pose { vec!["top".into(), "end".into()] } else { vec![] };
    DenseConfig { vit: VitConfig { labels, ..VitConfig::new([3, 16, 24], 8, 32, 1) }, task, keypoints, stride }
}

fn scene() -> Scene {
    let mask = Rle::of_bitmap(16, 24, |y, x| (4..10).contains(&y) && (6..20).contains(&x));
    let at = |x: f64, y: f64, visibility| Keypoint { x, y, visibility };
    let keypoints = vec![at(12.5, 4.0, Visibility::Visible), Keypoint::default()];
    let bbox = mask.bbox();
    let thing = Instance { class: 1, bbox, area: 84.0, mask: Some(mask), keypoints, crowd: false, identity: None };
    Scene { picture: Picture { height: 16, width: 24, pixels: vec![0; 3 * 16 * 24] }, instances: vec![thing] }
}

#[test]
fn pixels_that_are_told_rightly_are_the_mask() {
    for stride in [1, 2] {
        let (config, scene) = (config(DenseTask::Segment, stride), scene());
        let classes = segment::classes(&scene, &config);
        assert_eq!(classes.iter().filter(|class| **class == 2).count(), 84 / stride / stride);
        let said: Vec<f32> =
            classes.iter().flat_map(|&is| (0..3).map(move |class| if class == is { 2.0 } else { 0.0 })).collect();
        assert_eq!(segment::map(&config, &said), class_map_of(&scene));
        let found = segment::guesses(&config, &said);
        let [one] = &found[..] else { panic!("{found:?}") };
        assert_eq!((one.class, one.bbox, &one.mask), (1, scene.instances[0].bbox, &scene.instances[0].mask));
        assert!((one.score - 1.0 / (1.0 + 2.0 * (-2f64).exp())).abs() < 1e-5, "{}", one.score);
    }
}

fn class_map_of(scene: &Scene) -> Vec<u32> {
    danlu_data::scenes::class_map(&scene.instances, scene.picture.height, scene.picture.width)
}

#[test]
fn a_point_is_found_within_its_cell_and_an_unknown_one_is_not_learned() {
    let config = config(DenseTask::Pose, 4);
    // 12.5, 4.0 is in the fourth column and the second row of 4×6 cells.
    assert_eq!(pose::cells(&scene().instances, &config), [6 + 3, IGNORE]);
    assert_eq!(pose::cells(&[], &config), [IGNORE; 2]);
    // The first point is as likely in that cell as in the one to the left; the second is at the corner for sure.
    let mut said = vec![-30.0f32; 24 * 2];
    (said[9 * 2], said[8 * 2], said[23 * 2 + 1]) = (5.0, 5.0, 9.0);
    let found = pose::guess(&config, &said);
    let [first, second] = &found.keypoints[..] else { panic!("{found:?}") };
    let near = |point: &Keypoint, x: f64, y: f64| (point.x - x).abs() < 1e-6 && (point.y - y).abs() < 1e-6;
    assert!(near(first, 12.0, 6.0) && near(second, 22.0, 14.0), "{found:?}");
    assert!((found.score - 1.0).abs() < 1e-6, "all of it is near where it is likeliest");
    // What the loss sees: a row for each point of each picture, its cells in their order.
    let maps: Vec<f32> = (0..2 * 24 * 2).map(|x| x as f32).collect();
    let maps = Tensor::<2>::from_data(TensorData::new(maps, [48, 2]), &Device::flex());
    let rows: Vec<f32> = pose::rows(maps, 2).into_data().iter::<f32>().collect();
    let expected = (0..2)
        .flat_map(|picture| (0..2).flat_map(move |point| (0..24).map(move |cell| (48 * picture + 2 * cell + point) as f32)));
    assert_eq!(rows, expected.collect::<Vec<f32>>());
}
