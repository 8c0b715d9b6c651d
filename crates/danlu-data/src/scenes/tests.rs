use std::collections::HashSet;
use std::fs;
use std::path::Path;

use image::{Rgba, RgbaImage};

use super::*;

/// A stamp of a colour whose pixels are opaque where `inside` says, with a transparent edge round it.
fn stamp(path: &Path, [height, width]: [u32; 2], color: [u8; 3], inside: impl Fn(u32, u32) -> bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let [red, green, blue] = color;
    let picture = RgbaImage::from_fn(width, height, |x, y| Rgba([red, green, blue, if inside(y, x) { 255 } else { 0 }]));
    picture.save(path).unwrap();
}

/// Twelve stamps in two classes.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..6u8 {
        let round = dir.path().join(format!("round/{i}.png"));
        let reach = i32::from(14 + i);
        stamp(&round, [40, 44], [200, 30 * i, 40], |y, x| (y as i32 - 20).pow(2) + (x as i32 - 22).pow(2) < reach * reach);
        let pointed = dir.path().join(format!("pointed/{i}.png"));
        stamp(&pointed, [50, 30], [30 * i, 60, 220], |y, x| y > 2 && y < 40 + u32::from(i) && x.abs_diff(15) * 3 < y);
    }
    dir
}

fn scenes(options: Options, seed: u64) -> Scenes {
    Scenes::new(Stamps::read(&[folder().path().to_path_buf()], 64).unwrap(), options, seed).unwrap()
}

#[test]
fn stamps_are_read_by_class_and_cut() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    // Of these none can be used.
    stamp(&at("round/none.png"), [20, 20], [1, 2, 3], |_, _| false);
    stamp(&at("round/few.png"), [20, 20], [1, 2, 3], |y, x| y == 3 && x < 9);
    stamp(&at("round/same.png"), [52, 32], [0, 60, 220], |y, x| (4..41).contains(&y) && x.abs_diff(16) * 3 < y - 1);
    image::RgbImage::new(20, 20).save(at("round/opaque.png")).unwrap();
    fs::write(at("round/broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    fs::write(at("round/text.txt"), "a stamp's name").unwrap();
    let stamps = Stamps::read(&[dir.path().to_path_buf()], 64).unwrap();
    assert_eq!((stamps.len(), stamps.classes.as_slice()), (12, &["pointed".to_owned(), "round".to_owned()][..]));
    let reasons: Vec<(&str, &str)> = stamps.set_aside.iter().map(|one| (one.picture.as_str(), one.reason.as_str())).collect();
    for (picture, reason) in [
        ("none", "nothing of it"),
        ("few", "9 of its pixels"),
        ("same", "same picture as"),
        ("opaque", "no transp"),
        ("broken", ""),
    ] {
        assert!(reasons.iter().any(|(name, why)| name.contains(picture) && why.contains(reason)), "{picture}: {reasons:?}");
    }
    assert_eq!(reasons.len(), 5);
    // The first one that is pointed: rows 3 to 39, and columns less than 13 from 15.
    let first = stamps.get(0);
    assert_eq!((first.name.as_str(), first.pixels.height(), first.pixels.width()), ("pointed/0.png", 37, 25));
    let [top, right, bottom, left] = first.points;
    assert_eq!((top, bottom), ([12.5, 0.5], [12.5, 36.5]));
    assert!(right[0] == 24.5 && left[0] == 0.5 && right[1] > 30.0, "{:?}", first.points);
    // Halved where it is larger than wanted.
    let small = Stamps::read(&[dir.path().to_path_buf()], 25).unwrap();
    assert!(small.len() == 12 && (0..12).all(|i| small.get(i).pixels.height() <= 25), "halved");
    assert!(Stamps::read(&[at("round/text.txt")], 64).is_err());
}

#[test]
fn emoji_have_the_category_of_their_list() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (i, name) in ["img/a.png", "img/b.png", "img/c.png"].into_iter().enumerate() {
        stamp(&at(name), [20, 20], [9, 9, i as u8], |y, x| y > i as u32 && x > 2);
    }
    let list = r#"[{"image": "a.png", "category": "Food", "skin_variations": {"1F3FB": {"image": "b.png"}}, "x": null}]"#;
    fs::write(at("emoji.json"), list).unwrap();
    let stamps = Stamps::read(&[dir.path().to_path_buf()], 64).unwrap();
    assert_eq!((stamps.len(), stamps.classes.as_slice()), (2, &["Food".to_owned()][..]));
    assert!(stamps.set_aside[0].reason.contains("does not say what it is"), "{:?}", stamps.set_aside);
}

#[test]
fn a_scene_follows_from_its_seed_and_index() {
    let (one, two) = (scenes(Options::default(), 7), scenes(Options::default(), 7));
    let all: Vec<Scene> = (0..20).map(|index| one.scene(Side::Train, index)).collect();
    for index in [13, 2, 19, 2] {
        assert_eq!(two.scene(Side::Train, index), all[index as usize]);
    }
    let others = scenes(Options::default(), 8);
    for index in 0..20 {
        assert_ne!(one.scene(Side::HeldOut, index).picture, all[index as usize].picture);
        assert_ne!(others.scene(Side::Train, index).picture, all[index as usize].picture);
    }
    let different: HashSet<Vec<u8>> = all.iter().map(|scene| scene.picture.pixels.clone()).collect();
    assert_eq!(different.len(), 20);
    let count = all.iter().map(|scene| scene.instances.len()).sum::<usize>();
    assert!((30..=120).contains(&count) && all.iter().all(|scene| scene.instances.len() <= 6), "{count} things");
}

#[test]
fn what_is_said_of_a_thing_is_what_is_seen() {
    let options = Options { height: 96, width: 120, things: (4, 8), rotation: 180.0, ..Options::default() };
    let scenes = scenes(options, 3);
    let (mut visible, mut hidden, mut outside) = (0, 0, 0);
    for index in 0..60 {
        let Scene { picture, instances } = scenes.scene(Side::Train, index);
        assert_eq!((picture.height, picture.width, picture.pixels.len()), (96, 120, 3 * 96 * 120));
        let mut taken = vec![false; 96 * 120];
        for instance in &instances {
            let mask = instance.mask.as_ref().unwrap();
            assert_eq!((mask.bbox(), f64::from(mask.area())), (instance.bbox, instance.area));
            assert!(mask.area() >= 24);
            for (y, x) in mask.pixels() {
                // A pixel has one thing on top.
                assert!(!std::mem::replace(&mut taken[(y * 120 + x) as usize], true));
            }
            assert_eq!(instance.keypoints.len(), POINTS.len());
            for point in &instance.keypoints {
                let [x, y, wide, high] = instance.bbox;
                match point.visibility {
                    Visibility::Visible => {
                        visible += 1;
                        let near = (x - 1.5..=x + wide + 1.5).contains(&point.x) && (y - 1.5..=y + high + 1.5).contains(&point.y);
                        assert!(near, "{point:?} of {:?}", instance.bbox);
                    }
                    Visibility::Hidden => hidden += 1,
                    Visibility::Unknown => outside += 1,
                }
            }
        }
        let map = class_map(&instances, 96, 120);
        assert!(map.iter().zip(&taken).all(|(class, taken)| (*class > 0) == *taken));
    }
    assert!(visible > hidden + outside && hidden > 0 && outside > 0, "{visible} {hidden} {outside}");
}

#[test]
fn a_thing_that_is_not_turned_is_where_its_pixels_are() {
    // One thing, drawn as large as it is, on its own: its mask has its pixels, its points are its farthest ones.
    let options =
        Options { things: (1, 1), size: (0.2890625, 0.2890625), rotation: 0.0, least_visible: 1.0, ..Options::default() };
    let scenes = scenes(options, 1);
    let mut checked = 0;
    for index in 0..200 {
        let scene = scenes.scene(Side::Train, index);
        let whole = |one: &&Instance| one.keypoints.iter().all(|point| point.visibility == Visibility::Visible);
        let Some(instance) = scene.instances.first().filter(|one| one.identity == Some(0)).filter(whole) else { continue };
        checked += 1;
        let [left, top, wide, high] = instance.bbox;
        assert!((wide - 25.0).abs() <= 1.0 && (high - 37.0).abs() <= 1.0, "{:?}", instance.bbox);
        let [up, right, down, far_left] = [0, 1, 2, 3].map(|i| instance.keypoints[i]);
        assert!((up.y - top).abs() <= 1.5 && (down.y - top - high).abs() <= 1.5 && (far_left.x - left).abs() <= 1.5);
        assert!((right.x - left - wide).abs() <= 1.5 && (down.y - up.y - 36.0).abs() < 1e-9, "{:?}", instance.keypoints);
        // Its colour, whatever the light: of 0, 60, 220 the blue is most.
        let [red, _, blue] = scene.picture.pixel((top + high / 2.0) as usize, (left + wide / 2.0) as usize);
        assert!(blue > red, "{red} {blue}");
    }
    assert!(checked > 0);
}

#[test]
fn sides_of_stamps_share_none() {
    let stamps = Stamps::read(&[folder().path().to_path_buf()], 64).unwrap();
    let (train, held_out) = stamps.divide(0.3, 5);
    let identities = |stamps: &Stamps| (0..stamps.len()).map(|i| stamps.get(i).identity).collect::<HashSet<u32>>();
    assert_eq!(train.len() + held_out.len(), 12);
    assert!(identities(&train).is_disjoint(&identities(&held_out)) && !held_out.is_empty());
    for class in 0..2 {
        assert!(
            (0..train.len()).any(|i| train.get(i).class == class) && (0..held_out.len()).any(|i| held_out.get(i).class == class)
        );
    }
    assert_eq!(identities(&stamps.divide(0.3, 5).1), identities(&held_out));
    assert!(stamps.hash() == stamps.clone().hash() && stamps.hash() != train.hash());
    let of_two = Scenes::new(held_out, Options { height: 48, width: 48, ..Options::default() }, 2).unwrap();
    let pairs: Vec<Pair> = (0..100).map(|index| of_two.pair(index)).collect();
    let same = pairs.iter().filter(|pair| pair.is_same()).count();
    assert!((30..=70).contains(&same), "{same} of 100");
    assert!(pairs.iter().all(|pair| pair.first.picture != pair.second.picture));
    assert_eq!(of_two.pair(31), pairs[31]);
}

#[test]
fn options_that_make_no_scene_are_errors() {
    let stamps = Stamps::read(&[folder().path().to_path_buf()], 64).unwrap();
    let with = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        Scenes::new(stamps.clone(), options, 0).is_err()
    };
    assert!(with(|o| o.height = 8) && with(|o| o.width = 1 << 20) && with(|o| o.things = (3, 2)) && with(|o| o.things = (0, 0)));
    assert!(with(|o| o.size = (0.0, 0.5)) && with(|o| o.size = (0.5, f64::NAN)) && with(|o| o.rotation = f64::NAN));
    assert!(with(|o| o.least_visible = 1.1) && Scenes::new(Stamps::default(), Options::default(), 0).is_err());
}

/// What a recipe learns from follows from its seed and position, made or kept, and what is kept of a folder is what was written to it.
#[test]
fn a_set_is_made_or_read_and_says_the_same_each_time() {
    let stamps = Stamps::read(&[folder().path().to_path_buf()], 64).unwrap();
    let options = Options { height: 48, width: 64, ..Options::default() };
    let made = |seed| SceneSet::made(stamps.clone(), options.clone(), seed, [100, 10]).unwrap();
    let set = made(3);
    assert_eq!((set.count(Side::Train), set.count(Side::HeldOut), set.classes.len()), (100, 10, 2));
    assert_eq!((set.train(1_000_000, 3), set.held_out(7)), (made(3).train(1_000_000, 3), made(9).held_out(7)));
    assert!(set.train(0, 3) != set.train(100, 3) && set.train(0, 3) != made(4).train(0, 4), "none comes again");
    assert!(set.hash() == made(3).hash() && set.hash() != made(4).hash());

    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("coco");
    let scenes = Scenes::new(stamps.clone(), options, 3).unwrap();
    scenes.export(&root, Side::Train, 30).unwrap();
    let kept = |alone| {
        let wanted = Kept { height: 48, width: 64, alone, held_out: 0.3, seed: 0 };
        SceneSet::kept(coco::in_folder(&root).unwrap(), &wanted).unwrap()
    };
    let whole = kept(false);
    let (train, held_out) = (whole.count(Side::Train), whole.count(Side::HeldOut));
    assert!(train + held_out == 30 && held_out >= 1 && whole.hash() == kept(false).hash(), "{train} {held_out}");
    // Each is one of those that were written, and every epoch has all of them.
    let written: Vec<Scene> = (0..30).map(|index| scenes.scene(Side::Train, index)).collect();
    let boxes = |scene: &Scene| scene.instances.iter().map(|one| one.bbox).collect::<Vec<_>>();
    let same = |a: &Scene, b: &Scene| a.picture == b.picture && boxes(a) == boxes(b);
    let place = |scene: Scene| written.iter().position(|one| same(one, &scene)).unwrap();
    let mut epoch: Vec<usize> = (train..2 * train).map(|position| place(whole.train(position, 5))).collect();
    epoch.extend((0..held_out).map(|index| place(whole.held_out(index))));
    epoch.sort_unstable();
    assert_eq!(epoch, (0..30).collect::<Vec<_>>());
    // Alone, each thing fills its picture as far as its shape lets it.
    let alone = kept(true);
    for position in 0..alone.count(Side::Train) {
        let scene = alone.train(position, 0);
        let [one] = &scene.instances[..] else { panic!("{} things", scene.instances.len()) };
        assert!(one.bbox[2] > 0.5 * 64.0 || one.bbox[3] > 0.5 * 48.0, "{:?}", one.bbox);
    }

    // What is no such folder is said with its place.
    let json = root.join("instances.json");
    let says = |text: &str, what: &str| {
        fs::write(&json, text).unwrap();
        let wanted = Kept { height: 48, width: 64, alone: false, held_out: 0.3, seed: 0 };
        let error = format!("{:#}", SceneSet::kept(coco::in_folder(&root).unwrap(), &wanted).err().expect(what));
        assert!(error.contains(what) && error.contains("instances.json"), "{error}");
    };
    says("{\"images\": 4", "no file of instances");
    says(r#"{"images": [{"id": 1, "file_name": "../x.png", "height": 1, "width": 1}], "categories": []}"#, "no place below");
    says(r#"{"images": [{"id": 1, "file_name": "gone.png", "height": 9, "width": 9}], "categories": []}"#, "missing");
}
