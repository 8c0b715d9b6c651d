use std::fs;
use std::io::Write;

use image::{GrayImage, Rgb, RgbImage};

use super::*;

fn idx(shape: &[u32], values: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|n| file.extend(n.to_be_bytes()));
    file.extend(values);
    file
}

fn wanted() -> Wanted {
    Wanted { held_out: 0.25, ..Wanted::default() }
}

/// Pictures that differ, of 2×3.
fn values(count: u8) -> Vec<u8> {
    (0..count).flat_map(|i| [i, 1, 2, 3, 4, 5]).collect()
}

#[test]
fn idx_files_are_read_with_their_own_test_set() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("train-images-idx3-ubyte", &idx(&[8, 2, 3], &values(8)));
    write("train-labels-idx1-ubyte", &idx(&[8], &[0, 1, 2, 0, 1, 2, 0, 1]));
    // The fourth of the test set is one that is trained on.
    let test: Vec<u8> = [100, 101, 102, 3].into_iter().flat_map(|i| [i, 1, 2, 3, 4, 5]).collect();
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(&idx(&[4, 2, 3], &test)).unwrap();
    write("t10k-images-idx3-ubyte.gz", &packed.finish().unwrap());
    write("t10k-labels-idx1-ubyte", &idx(&[4], &[0, 1, 2, 0]));
    let set = read(&[dir.path().to_path_buf()], &wanted()).unwrap();
    assert!(set.own_test && set.classes == ["0", "1", "2"]);
    assert_eq!((set.train.len(), set.held_out.len(), set.train.each()), (7, 4, 6));
    assert_eq!((set.held_out.picture(1), set.held_out.label(2)), (&[101, 1, 2, 3, 4, 5][..], 2));
    assert!((0..7).all(|i| set.train.picture(i)[0] != 3), "what is held out is not trained on");
    let [aside] = &set.set_aside[..] else { panic!("{:?}", set.set_aside) };
    assert!(aside.picture.ends_with("train-images-idx3-ubyte:3") && aside.reason.contains("held out"), "{aside:?}");
    // The same files by name, with names for the classes.
    let files = idx::in_folder(dir.path()).unwrap();
    let classes: Vec<String> = ["shirt", "shoe", "bag"].map(String::from).into();
    let again = read(&files, &Wanted { classes: classes.clone(), ..wanted() }).unwrap();
    assert_eq!((again.train == set.train, again.classes), (true, classes.clone()));
    let few = read(&files, &Wanted { classes: classes[..2].to_vec(), ..wanted() }).unwrap_err();
    assert!(format!("{few:#}").contains("names 2 classes"), "{few:#}");
    assert_ne!(set.hash(), read(&files, &Wanted { classes, ..wanted() }).unwrap().hash());
}

#[test]
fn without_a_test_set_some_of_every_class_are_held_out() {
    let dir = tempfile::tempdir().unwrap();
    let labels: Vec<u8> = (0..120).map(|i| i % 2).collect();
    fs::write(dir.path().join("images-idx3-ubyte"), idx(&[120, 2, 3], &values(120))).unwrap();
    fs::write(dir.path().join("labels-idx1-ubyte"), idx(&[120], &labels)).unwrap();
    let set = read(&[dir.path().to_path_buf()], &wanted()).unwrap();
    assert!(!set.own_test && set.set_aside.is_empty());
    assert_eq!(set.train.len() + set.held_out.len(), 120);
    for class in 0..2 {
        let count = |images: &Images| (0..images.len()).filter(|&i| images.label(i) == class).count();
        assert!(count(&set.held_out) >= 4 && count(&set.train) > count(&set.held_out), "{:?}", count(&set.held_out));
    }
    assert_eq!(read(&[dir.path().to_path_buf()], &wanted()).unwrap(), set);
    assert_ne!(read(&[dir.path().to_path_buf()], &Wanted { seed: 1, ..wanted() }).unwrap().held_out, set.held_out);
}

#[test]
fn what_idx_says_of_itself_is_not_believed() {
    let check = |file: &[u8], says: &str| {
        let error = format!("{:#}", idx::parse(file).unwrap_err());
        assert!(error.contains(says), "{error}");
    };
    let good = idx(&[2, 2, 2], &[7; 8]);
    assert_eq!(idx::parse(&good[..]).unwrap(), (vec![2, 2, 2], vec![7; 8]));
    check(&good[..good.len() - 1], "cut off");
    check(&[&good[..], &[0]].concat(), "longer than");
    check(&good[..9], "in its header");
    check(&idx(&[u32::MAX, u32::MAX, 3], &[]), "are more than");
    check(&idx(&[4_000_000_000], &[1]), "cut off");
    check(&[0, 0, 0x0d, 1, 0, 0, 0, 0], "0x0d");
    check(&[0, 0, 8, 9], "9 dimensions");
    check(b"\x89PNG", "two zero bytes");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("train-images-idx3-ubyte"), &good).unwrap();
    let alone = format!("{:#}", read(&[dir.path().to_path_buf()], &wanted()).unwrap_err());
    assert!(alone.contains("train-labels-idx1-ubyte"), "{alone}");
    fs::write(dir.path().join("train-labels-idx1-ubyte"), idx(&[3], &[0, 1, 0])).unwrap();
    let three = format!("{:#}", read(&[dir.path().to_path_buf()], &wanted()).unwrap_err());
    assert!(three.contains("2 pictures") && three.contains("3 labels"), "{three}");
}

#[test]
fn pictures_that_cannot_be_used_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for class in ["train/cat", "train/dog", "test/dog"] {
        fs::create_dir_all(path(class)).unwrap();
    }
    let plain = |name: &str, colour: [u8; 3]| RgbImage::from_pixel(4, 4, Rgb(colour)).save(path(name)).unwrap();
    for i in 0..8u8 {
        plain(&format!("train/cat/{i}.png"), [10 * i, 0, 0]);
        plain(&format!("train/dog/{i}.png"), [0, 10 * i + 5, 0]);
    }
    plain("test/dog/new.png", [0, 0, 99]);
    // Another size and no colour: brought to what the first one has.
    GrayImage::from_pixel(8, 4, image::Luma([200])).save(path("train/dog/grey.jpg")).unwrap();
    let good = fs::read(path("train/cat/1.png")).unwrap();
    fs::write(path("train/cat/cut.png"), &good[..good.len() / 2]).unwrap();
    fs::write(path("train/cat/text.png"), "no picture at all").unwrap();
    fs::write(path("train/cat/notes.txt"), "not looked at").unwrap();
    fs::write(path("test/dog/bomb.png"), bomb(&good)).unwrap();
    // One picture under two labels.
    plain("train/cat/both.png", [77, 77, 77]);
    plain("train/dog/both.png", [77, 77, 77]);
    let set = read(&[dir.path().to_path_buf()], &wanted()).unwrap();
    assert_eq!((set.train.channels, set.train.height, set.train.width), (3, 4, 4));
    assert_eq!((set.train.len(), set.held_out.len(), set.own_test), (17, 1, true), "{:?}", set.set_aside);
    assert_eq!((&set.classes[..], set.held_out.label(0)), (&["cat".to_owned(), "dog".to_owned()][..], 1));
    assert_eq!(set.held_out.picture(0), [[0; 32].as_slice(), &[99; 16]].concat());
    assert_eq!(set.set_aside.len(), 5, "{:?}", set.set_aside);
    let check = |name: &str, says: &str| {
        let found = set.set_aside.iter().find(|one| one.picture.ends_with(name));
        let found = found.unwrap_or_else(|| panic!("{name} is used: {:?}", set.set_aside));
        assert!(found.reason.contains(says), "{found:?}");
    };
    check("train/cat/cut.png", "it ");
    check("train/cat/text.png", "no picture in PNG or JPEG");
    check("test/dog/bomb.png", "60000×60000");
    check("train/cat/both.png", "\"cat\" and \"dog\"");
    check("train/dog/both.png", "\"cat\" and \"dog\"");
    let small = Wanted { size: Some((2, 2)), channels: Some(3), ..wanted() };
    assert_eq!(read(&[dir.path().to_path_buf()], &small).unwrap().train.each(), 12);
    // Brightness is 0.299 of red.
    assert_eq!(Images::of_file(&path("train/cat/7.png"), 1, 2, 2).unwrap().picture(0), [21; 4]);
}

/// A picture that says it is 60000×60000, with its header's checksum made right.
fn bomb(png: &[u8]) -> Vec<u8> {
    let mut bomb = png.to_vec();
    // The first chunk: its length at 8, its name at 12, width and height at 16 and 20, the checksum of name and contents at 29.
    bomb[16..24].copy_from_slice(&[60_000u32.to_be_bytes(), 60_000u32.to_be_bytes()].concat());
    let mut sum = flate2::Crc::new();
    sum.update(&bomb[12..29]);
    let sum = sum.sum();
    bomb[29..33].copy_from_slice(&sum.to_be_bytes());
    bomb
}

#[test]
fn a_source_without_pictures_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = format!("{:#}", read(&[dir.path().to_path_buf()], &wanted()).unwrap_err());
    assert!(error.contains("no folder with pictures"), "{error}");
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/x.png"), "nothing").unwrap();
    let error = format!("{:#}", read(&[dir.path().to_path_buf()], &wanted()).unwrap_err());
    assert!(error.contains("can be decoded"), "{error}");
    let error = format!("{:#}", read(&[dir.path().join("a/x.png")], &wanted()).unwrap_err());
    assert!(error.contains("IDX files"), "{error}");
}

#[test]
fn a_few_of_many_are_as_many_of_each_class() {
    let dir = tempfile::tempdir().unwrap();
    let labels: Vec<u8> = (0..120).map(|i| u8::from(i % 4 == 0)).collect();
    fs::write(dir.path().join("images-idx3-ubyte"), idx(&[120, 2, 3], &values(120))).unwrap();
    fs::write(dir.path().join("labels-idx1-ubyte"), idx(&[120], &labels)).unwrap();
    let with = |limit: Option<usize>| read(&[dir.path().to_path_buf()], &Wanted { limit, ..wanted() }).unwrap();
    let firsts = |set: &ImageSet| -> Vec<u8> { (0..set.train.len()).map(|i| set.train.picture(i)[0]).collect() };
    let (all, ten, eleven) = (with(None), with(Some(10)), with(Some(11)));
    let rare = |set: &ImageSet| (0..set.train.len()).filter(|&i| set.train.label(i) == 1).count();
    assert_eq!((ten.train.len(), rare(&ten), eleven.train.len()), (10, 5, 11));
    assert!(firsts(&ten).iter().all(|picture| firsts(&eleven).contains(picture)), "fewer are some of more");
    assert_eq!(ten.held_out, all.held_out);
    // Of a class that has no more, the others stand in.
    let most = with(Some(all.train.len() - 1));
    assert_eq!((most.train.len(), rare(&most)), (all.train.len() - 1, rare(&all)));
    assert_eq!(with(Some(1000)).train, all.train);
}
