//! What recipes read, very little of it, in files with the names that `table.rs` gives.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::place::Place;

/// Records of a file.
const RECORDS: usize = 120;
/// The side of a picture.
const SIDE: u32 = 16;

const WORDS: [[(&str, &str); 4]; 3] = [
    [("red", "红"), ("old", "旧"), ("small", "小"), ("quiet", "静")],
    [("car", "汽车"), ("house", "房子"), ("river", "河流"), ("garden", "花园")],
    [("waits", "等待"), ("sleeps", "睡觉"), ("sings", "唱歌"), ("changes", "变化")],
];

fn words(i: usize) -> [(&'static str, &'static str); 3] {
    [WORDS[0][i % 4], WORDS[1][i / 4 % 4], WORDS[2][i / 16 % 4]]
}

fn english(i: usize) -> String {
    let [adjective, noun, verb] = words(i);
    format!("the {} {} {} {i} times", adjective.0, noun.0, verb.0)
}

fn chinese(i: usize) -> String {
    let [adjective, noun, verb] = words(i);
    format!("{}的{}{}{i}次", adjective.1, noun.1, verb.1)
}

/// Writes all of it beside the home.
pub fn write(place: &Place) {
    // Texts that every checkout has.
    for (name, of) in [("texts", "tokenizer"), ("others", "clean")] {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../danlu-data/src").join(of);
        fs::create_dir(place.path(name)).unwrap();
        for file in fs::read_dir(sources).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
            fs::copy(&file, place.path(name).join(file.file_name().unwrap())).unwrap();
        }
    }
    let all = || 0..RECORDS;
    place.lines("talks.jsonl", all().map(|i| json!({"instruction": format!("What is {i}?"), "output": english(i)})));
    place.lines("more.jsonl", all().map(|i| json!({"instruction": format!("Who is {i}?"), "output": english(i + RECORDS)})));
    let pair = |i| json!({"prompt": format!("Is {i} nice?"), "chosen": english(i), "rejected": format!("no, {i}")});
    place.lines("pairs.jsonl", all().map(pair));
    place.lines("sums.jsonl", all().map(|i| json!({"prompt": format!("{i} + 1 = "), "answer": (i + 1).to_string()})));
    place.lines("labels.jsonl", all().map(|i| json!({"text": english(i), "label": words(i)[0].0})));
    place.lines("paragraphs.jsonl", all().map(|i| json!({"en": english(i), "zh": chinese(i)})));
    clothes(&place.path("clothes"));
    cutouts(&place.path("cutouts"));
}

/// Grey pictures of ten classes in IDX, one set to be divided.
fn clothes(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let head = |sizes: &[u32]| {
        let kind = [0, 0, 8, sizes.len() as u8];
        kind.into_iter().chain(sizes.iter().flat_map(|size| size.to_be_bytes())).collect::<Vec<u8>>()
    };
    let count = RECORDS as u32;
    let value = |i: u32, x: u32, y: u32| (i % 10 * 20 + (x * 7 + y * 13 + i * 29) % 50) as u8;
    let mut pictures = head(&[count, SIDE, SIDE]);
    pictures.extend((0..count).flat_map(|i| (0..SIDE * SIDE).map(move |place| value(i, place % SIDE, place / SIDE))));
    let mut labels = head(&[count]);
    labels.extend((0..count).map(|i| (i % 10) as u8));
    fs::write(folder.join("train-images-idx3-ubyte"), pictures).unwrap();
    fs::write(folder.join("train-labels-idx1-ubyte"), labels).unwrap();
}

/// Coloured things on nothing, in a folder for each class: what scenes are made of, and what is recognized.
fn cutouts(folder: &Path) {
    for (class, red) in [("cold", 20), ("warm", 230)] {
        fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..12u32 {
            let inside = |x: u32, y: u32| x.abs_diff(SIDE / 2) + y.abs_diff(SIDE / 2) < 7 + i % 2;
            let pixel = |x: u32, y: u32| image::Rgba([red, (x * 9) as u8, (20 * i) as u8, if inside(x, y) { 255 } else { 0 }]);
            image::RgbaImage::from_fn(SIDE, SIDE, pixel).save(folder.join(class).join(format!("{class}-{i}.png"))).unwrap();
        }
    }
}
