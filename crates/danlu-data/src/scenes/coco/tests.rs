use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::scenes::{Keypoint, Rle, Visibility};

fn image(id: u64) -> Value {
    json!({ "id": id, "file_name": format!("{id}.png"), "height": 8, "width": 10 })
}

fn file(images: Vec<Value>, annotations: Vec<Value>) -> Vec<u8> {
    let categories =
        json!([{ "id": 7, "name": "cat", "keypoints": ["nose", "tail"] }, { "id": 3, "name": "dog", "supercategory": "animal" }]);
    json!({ "info": {}, "images": images, "annotations": annotations, "categories": categories }).to_string().into_bytes()
}

/// A record with some keys changed.
fn with(change: Value) -> Value {
    let mut record = json!({ "id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 11.5, "iscrowd": 0 });
    let (Value::Object(record_map), Value::Object(change)) = (&mut record, change) else { panic!("objects") };
    record_map.extend(change);
    record
}

#[test]
fn boxes_masks_and_points_are_read() {
    let annotations = vec![
        with(json!({ "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]], "keypoints": [2, 3, 2, 0, 0, 0], "num_keypoints": 1 })),
        with(json!({ "id": 2, "category_id": 3, "segmentation": { "size": [8, 10], "counts": [9, 3, 68] }, "iscrowd": 1 })),
        with(
            json!({ "id": 3, "image_id": 2, "segmentation": { "size": [8, 10], "counts": "93T2" }, "area": null, "bbox": null }),
        ),
        with(json!({ "id": 4, "image_id": 2, "segmentation": [], "keypoints": [1.5, 2.5, 1, 3, 3, 2] })),
    ];
    let dataset = parse(&file(vec![image(2), image(1)], annotations)).unwrap();
    assert!(dataset.set_aside.is_empty(), "{:?}", dataset.set_aside);
    let names: Vec<(u64, &str)> = dataset.classes.iter().map(|class| (class.id, class.name.as_str())).collect();
    assert_eq!(names, [(3, "dog"), (7, "cat")]);
    let [one, two] = &dataset.pictures[..] else { panic!("two pictures") };
    assert_eq!((one.id, two.id, &one.ids[..], &two.ids[..]), (1, 2, &[1, 2][..], &[3, 4][..]));
    let [cat, dogs] = &one.instances[..] else { panic!("two things") };
    assert_eq!((cat.class, cat.bbox, cat.area, cat.crowd), (1, [1.0, 2.0, 3.0, 4.0], 11.5, false));
    assert_eq!((cat.mask.as_ref().unwrap().area(), cat.mask.as_ref().unwrap().bbox()), (12, cat.bbox));
    let nose = Keypoint { x: 2.0, y: 3.0, visibility: Visibility::Visible };
    assert_eq!(cat.keypoints, [nose, Keypoint::default()]);
    assert!(dogs.crowd && dogs.class == 0 && dogs.mask.as_ref().unwrap().counts() == [9, 3, 68]);
    // What a record leaves out follows from its mask.
    assert_eq!((two.instances[0].bbox, two.instances[0].area), ([1.0, 1.0, 1.0, 3.0], 3.0));
    assert_eq!(two.instances[0].mask, dogs.mask);
    assert_eq!((two.instances[1].keypoints[0].visibility, &two.instances[1].mask), (Visibility::Hidden, &None));
}

#[test]
fn bad_records_are_set_aside_with_their_reasons() {
    let bad = [
        (json!({ "image_id": 9 }), "no image 9"),
        (json!({ "category_id": 1 }), "no category 1"),
        (json!({ "bbox": [1, 2, 3] }), "invalid length 3"),
        (json!({ "bbox": "all" }), "invalid type"),
        (json!({ "bbox": [8, 2, 5, 4] }), "outside its picture of 10×8"),
        (json!({ "bbox": [-3, 2, 5, 4] }), "outside its picture"),
        (json!({ "bbox": [1, 2, 0, 4] }), "0 wide"),
        (json!({ "bbox": null }), "neither a box nor a mask"),
        (json!({ "area": -1 }), "its area is -1"),
        (json!({ "iscrowd": 2 }), "`iscrowd` is 2"),
        (json!({ "segmentation": [[1, 2, 4, 2, 4]] }), "odd count"),
        (json!({ "segmentation": [[1, 2, 4, 2]] }), "needs three"),
        (json!({ "segmentation": [[1, 2, 1e12, 2, 4, 6]] }), "outside its picture"),
        (json!({ "segmentation": [1, 2, 4, 2, 4, 6] }), "did not match"),
        (json!({ "segmentation": { "size": [8, 10], "counts": [9, 4_000_000_000u32] } }), "4000000009 pixels"),
        (json!({ "segmentation": { "size": [8, 10], "counts": [9, 72, 1] } }), "come to 82 pixels"),
        (json!({ "segmentation": { "size": [8, 10], "counts": [-9, 89] } }), "did not match"),
        (json!({ "segmentation": { "size": [80_000, 80_000], "counts": [9] } }), "its mask is of 80000×80000"),
        (json!({ "segmentation": { "size": [8, 10], "counts": "\u{1}" } }), "no part of one"),
        (json!({ "segmentation": { "size": [8, 10], "counts": [80] } }), "no pixel"),
        (json!({ "keypoints": [1, 1, 2] }), "3 numbers for keypoints"),
        (json!({ "keypoints": [1, 1, 3, 1, 1, 2] }), "visibility 3"),
        (json!({ "keypoints": [100, 1, 2, 1, 1, 2] }), "keypoint 0 at 100, 1"),
        (json!({ "id": 100 }), "twice"),
    ];
    let good = (0..bad.len() as u64 + 10).map(|i| with(json!({ "id": 100 + i })));
    let mut ids = 1..;
    let of_bad = bad.iter().map(|(change, _)| {
        let mut record = json!({ "id": ids.next() });
        record.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        with(record)
    });
    let annotations: Vec<Value> = good.chain(of_bad).chain([json!("none")]).collect();
    let long = json!({ "id": 5, "file_name": "../../etc/passwd", "height": 8, "width": 10 });
    let large = json!({ "id": 6, "file_name": "6.png", "height": 4_000_000_000u32, "width": 4_000_000_000u32 });
    let dataset = parse(&file(vec![image(1), long, large, image(1), json!({ "id": 9 })], annotations)).unwrap();
    assert_eq!((dataset.pictures.len(), dataset.pictures[0].instances.len()), (1, bad.len() + 10));
    let reasons: Vec<&SetAside> = dataset.set_aside.iter().collect();
    assert_eq!(reasons.len(), bad.len() + 5, "{reasons:#?}");
    for (change, reason) in &bad {
        assert!(reasons.iter().any(|one| one.reason.contains(reason)), "{reason} of {change}: {reasons:#?}");
    }
    for reason in ["no place below", "a picture may have 1 to 16384", "its number is there twice", "missing field"] {
        assert!(
            reasons.iter().any(|one| one.picture.starts_with("image") && one.reason.contains(reason)),
            "{reason}: {reasons:#?}"
        );
    }
}

#[test]
fn a_file_of_bad_records_is_an_error() {
    let says = |json: &[u8], what: &str| {
        let error = format!("{:#}", parse(json).unwrap_err());
        assert!(error.contains(what), "{error}");
    };
    says(
        &file(vec![image(1)], vec![with(json!({ "image_id": 2 })), with(json!({ "image_id": 3 }))]),
        "2 of its records cannot be used and 1 can",
    );
    says(&file(vec![], vec![]), "no picture");
    says(b"[]", "no file of instances");
    says(br#"{"images": {}, "categories": []}"#, "no file of instances");
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let classes = vec![
        Class { id: 1, name: "a".into(), keypoints: vec!["top".into()] },
        Class { id: 2, name: "b".into(), keypoints: vec!["top".into()] },
    ];
    let labelled = |index: u64| -> Labelled {
        let mask = Rle::of_bitmap(4, 6, |y, x| y > 0 && u64::from(x) > index);
        let point = Keypoint { x: 2.5, y: 1.5, visibility: Visibility::Visible };
        let one = Instance {
            class: (index % 2) as u32,
            bbox: mask.bbox(),
            area: f64::from(mask.area()),
            mask: Some(mask),
            keypoints: vec![point],
            crowd: index == 2,
            identity: Some(40 + index as u32),
        };
        let pixels = (0..72).map(|i| (i * 3 + index) as u8).collect();
        (Picture { height: 4, width: 6, pixels }, vec![one; 2])
    };
    write(&root, &classes, 4, labelled).unwrap();
    let found = in_folder(&root).unwrap();
    let [(instances, images)] = &found[..] else { panic!("{found:?}") };
    let dataset = read(instances, images).unwrap();
    assert_eq!((dataset.classes, dataset.set_aside, dataset.pictures.len()), (classes, vec![], 4));
    for (index, entry) in (0..).zip(&dataset.pictures) {
        assert_eq!((entry.picture().unwrap(), entry.instances.clone()), labelled(index));
        assert_eq!(entry.ids, [2 * index + 1, 2 * index + 2]);
    }

    // Files that are not what their records say.
    let at = |name: &str| images.join(name);
    fs::remove_file(at("00000001.png")).unwrap();
    let whole = fs::read(at("00000002.png")).unwrap();
    fs::write(at("00000002.png"), &whole[..whole.len() - 30]).unwrap();
    let again = read(instances, images).unwrap();
    let reasons: Vec<&str> = again.set_aside.iter().map(|one| one.reason.as_str()).collect();
    assert!(
        again.pictures.len() == 2 && reasons[0].contains("missing") && reasons[1].contains("cannot be decoded"),
        "{reasons:?}"
    );
    image::RgbImage::new(5, 4).save(at("00000003.png")).unwrap();
    let error = format!("{:#}", read(instances, images).unwrap_err());
    assert!(error.contains("3 cannot be used and 1 can"), "{error}");
}

#[test]
fn a_jpeg_that_is_cut_off_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let picture = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8]));
    let mut whole = std::io::Cursor::new(vec![]);
    picture.write_to(&mut whole, image::ImageFormat::Jpeg).unwrap();
    let whole = whole.into_inner();
    let names = ["a.jpg", "b.jpg", "c.jpg"];
    let images: Vec<Value> =
        (1..).zip(names).map(|(id, name)| json!({ "id": id, "file_name": name, "height": 30, "width": 40 })).collect();
    for (name, length) in names.into_iter().zip([whole.len(), whole.len() - 40, whole.len()]) {
        fs::write(dir.path().join(name), &whole[..length]).unwrap();
    }
    let annotations = dir.path().join("annotations");
    fs::create_dir(&annotations).unwrap();
    fs::write(annotations.join("instances_val.json"), file(images, vec![])).unwrap();
    let found = in_folder(dir.path()).unwrap();
    assert_eq!(found, [(annotations.join("instances_val.json"), dir.path().to_path_buf())]);
    let dataset = read(&found[0].0, &found[0].1).unwrap();
    assert_eq!(dataset.pictures.len(), 2);
    assert_eq!(Path::new(&dataset.set_aside[0].picture), Path::new("b.jpg"));
    assert!(dataset.set_aside[0].reason.contains("cut off"), "{:?}", dataset.set_aside);
}
