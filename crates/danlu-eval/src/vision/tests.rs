use danlu_data::scenes::{Instance, Keypoint, Rle, Visibility};

use super::*;
use crate::Confusion;

fn thing(class: u32, bbox: [f64; 4]) -> Instance {
    let [left, top, wide, high] = bbox.map(|x| x as u32);
    let mask = Rle::of_bitmap(200, 200, |y, x| (top..top + high).contains(&y) && (left..left + wide).contains(&x));
    let corner = |x: f64, y: f64| Keypoint { x, y, visibility: Visibility::Visible };
    let keypoints = vec![corner(bbox[0], bbox[1]), corner(bbox[0] + bbox[2], bbox[1] + bbox[3])];
    Instance { class, bbox, area: bbox[2] * bbox[3], mask: Some(mask), keypoints, crowd: false, identity: None }
}

fn guess(class: u32, bbox: [f64; 4], score: f64) -> Guess {
    let Instance { mask, keypoints, .. } = thing(class, bbox);
    Guess { class, score, bbox, mask, keypoints }
}

fn all() -> [By; 3] {
    [By::Boxes, By::Masks, By::Keypoints { sigmas: vec![0.05; 2] }]
}

const A: [f64; 4] = [10.0, 10.0, 20.0, 20.0];
const B: [f64; 4] = [60.0, 60.0, 40.0, 40.0];
const C: [f64; 4] = [10.0, 80.0, 100.0, 100.0];

#[test]
fn what_is_all_right_is_one() {
    let picture = |shift: f64| {
        let boxes = [A, B, C].map(|[x, y, w, h]| [x + shift, y, w, h]);
        Judged {
            truths: (0..).zip(boxes).map(|(class, bbox)| thing(class % 2, bbox)).collect(),
            guesses: (0..).zip(boxes).map(|(class, bbox)| guess(class % 2, bbox, 0.9 - f64::from(class) / 10.0)).collect(),
        }
    };
    for by in all() {
        let scores = detection(&[picture(0.0), picture(5.0)], 3, &by).unwrap();
        assert!((scores.average_precision.unwrap() - 1.0).abs() < 1e-12, "{by:?} {scores:?}");
        assert_eq!((scores.recall, scores.recall_small, scores.recall_large), (Some(1.0), Some(1.0), Some(1.0)), "{by:?}");
        // Of the third class there is nothing to find.
        assert_eq!((scores.classes.len(), scores.classes[2]), (3, None));
    }
}

#[test]
fn precision_is_read_off_at_levels_of_recall() {
    // Two things; the surest guess is right, the next wrong, the third right. Precision 1 up to recall 0.5 (51 levels), then 2/3.
    let picture =
        Judged { truths: vec![thing(0, A), thing(0, B)], guesses: vec![guess(0, A, 0.9), guess(0, C, 0.8), guess(0, B, 0.7)] };
    let scores = detection(std::slice::from_ref(&picture), 1, &By::Boxes).unwrap();
    let expected = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
    assert!((scores.average_precision.unwrap() - expected).abs() < 1e-9, "{scores:?}");
    // The surest guess of the picture finds one of two.
    assert_eq!((scores.recall_of_1, scores.recall_of_10), (Some(0.5), Some(1.0)));
    // A is small; the guess at C is too large to be wrong about small things. B is of medium size.
    assert!((scores.small.unwrap() - 1.0).abs() < 1e-9 && (scores.medium.unwrap() - 1.0).abs() < 1e-9, "{scores:?}");
    assert_eq!(scores.large, None);
    // The second thing is found twice: that is one right guess and one wrong.
    let mut twice = picture;
    twice.guesses[1] = guess(0, A, 0.8);
    let again = detection(&[twice], 1, &By::Boxes).unwrap();
    assert!((again.average_precision.unwrap() - expected).abs() < 1e-9, "{again:?}");
}

#[test]
fn intervals_hold_what_is_measured_and_shrink_with_more_pictures() {
    // Of every three pictures one is seen rightly, one a little beside, one not at all.
    let picture = |i: usize| {
        let guesses = match i % 3 {
            0 => vec![guess(0, A, 0.9)],
            1 => vec![guess(0, [12.0, 10.0, 20.0, 20.0], 0.8)],
            _ => vec![],
        };
        Judged { truths: vec![thing(0, A)], guesses }
    };
    let widths = [30, 300].map(|count| {
        let pictures: Vec<Judged> = (0..count).map(picture).collect();
        let value = detection(&pictures, 2, &By::Boxes).unwrap().average_precision.unwrap();
        let (low, high) = precision_interval(&pictures, 2, &By::Boxes).unwrap();
        assert!(low < value && value < high && low > 0.2 && high < 0.9, "{low} {value} {high}");
        high - low
    });
    assert!(widths[1] < 0.5 * widths[0], "{widths:?}");
    assert_eq!(precision_interval(&[], 1, &By::Boxes).unwrap(), (0.0, 1.0));

    let pixels = |i: usize| {
        let mut confusion = Confusion::new(2);
        (0..100).for_each(|pixel| confusion.add(usize::from(pixel < 50), usize::from(pixel < 50 + i % 20)));
        confusion
    };
    let all: Vec<Confusion> = (0..60).map(pixels).collect();
    let (value, [low, high]) = mean_iou(&all);
    let mut sum = Confusion::new(2);
    all.iter().for_each(|one| sum.add_all(one));
    assert!(value == sum.mean_iou() && low < value && value < high && high - low < 0.1, "{low} {value} {high}");
    assert_eq!(mean_iou(&[Confusion::new(2)]), (0.0, [0.0, 1.0]));

    // A class of one picture, which many draws do not have, pulls neither interval away from what it is of: what is seen of it is all wrong.
    let mut rare: Vec<Confusion> = vec![Confusion::new(3); 30];
    rare.iter_mut().for_each(|one| (0..100).for_each(|pixel| one.add(usize::from(pixel < 50), usize::from(pixel < 55))));
    rare[7].add(2, 0);
    let (value, [low, high]) = mean_iou(&rare);
    assert!(low <= value && value <= high, "{low} {value} {high}");
    let mut pictures: Vec<Judged> = (0..30).map(picture).collect();
    pictures[7].truths.push(thing(1, B));
    let value = detection(&pictures, 2, &By::Boxes).unwrap().average_precision.unwrap();
    let (low, high) = precision_interval(&pictures, 2, &By::Boxes).unwrap();
    assert!(low <= value && value <= high, "{low} {value} {high}");
}

#[test]
fn a_nearer_guess_is_right_at_more_thresholds() {
    // 20×20 boxes moved by d overlap by (20 − d) / (20 + d).
    let scores = |d: f64| {
        let [x, y, w, h] = A;
        let picture = Judged { truths: vec![thing(0, A)], guesses: vec![guess(0, [x + d, y, w, h], 0.5)] };
        detection(&[picture], 1, &By::Boxes).unwrap()
    };
    // 18/22 = 0.818 is above seven of ten thresholds: 0.5 to 0.8.
    assert!((scores(2.0).average_precision.unwrap() - 0.7).abs() < 1e-9, "{:?}", scores(2.0));
    assert_eq!((scores(2.0).at_50, scores(2.0).recall), (scores(0.0).at_50, Some(0.7)));
    let all: Vec<f64> = (0..12).map(|d| scores(f64::from(d)).average_precision.unwrap()).collect();
    assert!(all.windows(2).all(|pair| pair[0] >= pair[1]) && all[11] == 0.0, "{all:?}");
}

#[test]
fn a_crowd_takes_in_guesses_and_is_not_asked_for() {
    let crowd = Instance { crowd: true, ..thing(0, C) };
    let inside = [20.0, 90.0, 20.0, 20.0];
    let picture = |truths: Vec<Instance>| Judged {
        truths,
        guesses: vec![guess(0, inside, 0.9), guess(0, [50.0, 100.0, 20.0, 20.0], 0.8), guess(0, A, 0.7)],
    };
    for by in [By::Boxes, By::Masks] {
        let with = detection(&[picture(vec![thing(0, A), crowd.clone()])], 1, &by).unwrap();
        assert!((with.average_precision.unwrap() - 1.0).abs() < 1e-9, "{with:?}");
        let without = detection(&[picture(vec![thing(0, A)])], 1, &by).unwrap();
        assert!((without.average_precision.unwrap() - 1.0 / 3.0).abs() < 1e-9, "{without:?}");
    }
    assert_eq!(detection(&[picture(vec![crowd])], 1, &By::Boxes).unwrap().average_precision, None);
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let with = |change: fn(&mut Guess)| {
        let mut wrong = guess(0, A, 0.5);
        change(&mut wrong);
        Judged { truths: vec![thing(0, A)], guesses: vec![wrong] }
    };
    let says = |picture: Judged, by: &By, what: &str| {
        let error = format!("{:#}", detection(&[picture], 1, by).unwrap_err());
        assert!(error.contains(what) && error.contains("picture 0"), "{error}");
    };
    says(with(|guess| guess.class = 1), &By::Boxes, "class 1 of 1");
    says(with(|guess| guess.score = f64::NAN), &By::Boxes, "no number");
    says(with(|guess| guess.mask = None), &By::Masks, "has none");
    says(with(|guess| guess.mask = Some(Rle::of_bitmap(2, 2, |_, _| true))), &By::Masks, "different sizes");
    says(
        with(|guess| {
            guess.keypoints.pop();
        }),
        &all()[2],
        "1 keypoints",
    );
}

#[test]
fn keypoints_are_near_by_the_size_of_the_thing() {
    let mut truth = thing(0, A);
    let similarity = |guess: &[Keypoint], truth: &Instance| keypoint_similarity(guess, truth, &[0.05, 0.1]);
    let mut moved = truth.keypoints.clone();
    moved[1].x += 4.0;
    // exp(−16 / (2 · 400 · 0.2²)) of the second.
    let expected = (1.0 + (-0.5f64).exp()) / 2.0;
    assert!((similarity(&moved, &truth) - expected).abs() < 1e-9);
    truth.keypoints[0].visibility = Visibility::Unknown;
    assert!((similarity(&moved, &truth) - (-0.5f64).exp()).abs() < 1e-9);
    // With no known point only what is beyond twice the box is far.
    truth.keypoints[1].visibility = Visibility::Unknown;
    assert_eq!(similarity(&moved, &truth), 1.0);
    assert_eq!(correct_keypoints(&truth.keypoints, &moved, 20.0, 0.2), (0, 0));
    let truth = thing(0, A);
    assert_eq!(correct_keypoints(&truth.keypoints, &moved, 20.0, 0.2), (2, 2));
    assert_eq!(correct_keypoints(&truth.keypoints, &moved, 20.0, 0.19), (1, 2));
}

#[test]
fn verification_is_counted_by_hand() {
    // Of four pairs of the same 0.9, 0.8, 0.6, 0.3; of four of others 0.7, 0.6, 0.2, 0.1.
    let pairs = [0.9, 0.8, 0.6, 0.3].map(|score| (score, true)).into_iter();
    let pairs: Vec<(f64, bool)> = pairs.chain([0.7, 0.6, 0.2, 0.1].map(|score| (score, false))).collect();
    let roc = Roc::of(&pairs).unwrap();
    // Of sixteen pairs of pairs: 4 + 4 + 2.5 + 2.
    assert!((roc.area() - 12.5 / 16.0).abs() < 1e-12, "{}", roc.area());
    // At 0.6 three of four are accepted, and two of four others: between (0.25, 0.5) and there the line has 1 - x at x = 0.375.
    assert!((roc.equal_error() - 0.375).abs() < 1e-12, "{}", roc.equal_error());
    assert_eq!(roc.at_false_accept(0.0), RocPoint { threshold: 0.8, false_accept: 0.0, true_accept: 0.5 });
    assert_eq!(roc.at_false_accept(0.5).true_accept, 1.0);
    assert_eq!(roc.at_false_accept(0.4), RocPoint { threshold: 0.7, false_accept: 0.25, true_accept: 0.5 });
    let apart = Roc::of(&[(2.0, true), (1.0, false)]).unwrap();
    assert_eq!((apart.area(), apart.equal_error(), apart.at_false_accept(0.0).true_accept), (1.0, 0.0, 1.0));
    let alike = Roc::of(&[(1.0, true), (1.0, false)]).unwrap();
    assert_eq!((alike.area(), alike.equal_error(), alike.at_false_accept(0.5).true_accept), (0.5, 0.5, 0.0));
    assert!(Roc::of(&[(1.0, true)]).is_err() && Roc::of(&[(f64::NAN, true), (0.0, false)]).is_err());
}

#[test]
fn thresholds_are_chosen_on_other_pairs() {
    let first = [(0.95, true), (0.5, true), (0.45, false), (0.2, false)];
    let second = [(0.8, true), (0.3, true), (0.6, false), (0.1, false)];
    // Of the first four a threshold between 0.5 and 0.45 judges all rightly; of the others one below 0.8 judges three, as does one at 0.3.
    assert!((best_threshold(&first) - 0.475).abs() < 1e-12 && (best_threshold(&second) - 0.7).abs() < 1e-12);
    assert_eq!(best_threshold(&[(0.5, false)]), f64::INFINITY);
    assert_eq!(best_threshold(&[(0.5, true)]), 0.5);
    // By 0.7 three of the first are judged rightly, by 0.475 two of the second.
    let dealt: Vec<(f64, bool)> = first.into_iter().zip(second).flat_map(|(a, b)| [a, b]).collect();
    assert!((accuracy_by_folds(&dealt, 2) - 5.0 / 8.0).abs() < 1e-12);
}

#[test]
fn the_interval_of_an_area_holds_it_and_shrinks_with_more_pairs() {
    // Scores of the same are higher by a third of their spread.
    let pairs = |count: usize| -> Vec<(f64, bool)> {
        let score = |i: usize| (i * 7919 % 1000) as f64 / 1000.0 + if i.is_multiple_of(2) { 0.3 } else { 0.0 };
        (0..count).map(|i| (score(i), i.is_multiple_of(2))).collect()
    };
    let widths = [100, 1600].map(|count| {
        let pairs = pairs(count);
        let (area, (low, high)) = (Roc::of(&pairs).unwrap().area(), area_interval(&pairs));
        assert!(low < area && area < high && low > 0.5 && high < 1.0, "{low} {area} {high}");
        high - low
    });
    assert!(widths[1] < 0.5 * widths[0], "{widths:?}");
    assert_eq!(area_interval(&[(1.0, true), (0.0, false), (0.0, false)]).1, 1.0);
    assert_eq!(area_interval(&[]), (0.0, 1.0));
}
