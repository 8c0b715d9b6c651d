//! `add` as a whole: hostile files, copies, the split, determinism and interruption.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use common::{edit, prose, rng};
use danlu_data::clean::CleanOptions;
use danlu_data::report::Report;
use danlu_data::source::{BadRecord, Source};
use danlu_data::{AddOptions, Corpus, HeldOut, Progress, Split, add};

fn options(home: &Path, source: &Path) -> AddOptions {
    AddOptions {
        home: home.to_path_buf(),
        name: "c".to_owned(),
        sources: vec![Source::Path(source.display().to_string())],
        seed: 1,
        text_keys: Vec::new(),
        encoding: None,
        clean: CleanOptions::default(),
        deduplicate: true,
        held_out: HeldOut::default(),
    }
}

fn texts(home: &Path, split: Split) -> Vec<(String, String)> {
    let corpus = Corpus::open_in(home, "c").unwrap();
    corpus.verify().unwrap();
    corpus.documents(split).map(|document| document.map(|d| (d.origin, d.text)).unwrap()).collect()
}

fn write_jsonl(path: &Path, texts: impl IntoIterator<Item = String>) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for text in texts {
        writeln!(file, "{}", serde_json::json!({ "text": text })).unwrap();
    }
    file.flush().unwrap();
}

fn dropped(report: &Report, step: &str) -> u64 {
    report.dropped.iter().find(|(name, _)| name == step).map_or(0, |(_, dropped)| dropped.count.documents)
}

/// Every file of a folder with its contents.
fn contents(folder: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn every_hostile_file_is_a_line_in_the_report_and_the_rest_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("in");
    fs::create_dir(&source).unwrap();
    let mut rng = rng(1);
    for i in 0..40 {
        fs::write(source.join(format!("good-{i:02}.txt")), prose(&mut rng, 150)).unwrap();
    }
    let good = prose(&mut rng, 120);
    fs::write(source.join("binary.txt"), b"\x7fELF\0\0\0").unwrap();
    fs::write(source.join("broken.parquet"), b"PAR1 this is not a parquet file PAR1").unwrap();
    fs::write(source.join("empty.parquet"), b"").unwrap();
    fs::write(source.join("latin.txt"), b"a caf\xe9 in the text").unwrap();
    fs::write(source.join("truncated.jsonl.gz"), b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03").unwrap();
    fs::write(source.join("truncated.jsonl.zst"), b"\x28\xb5\x2f\xfd\x24").unwrap();
    let lines = [
        "{\"text\": \"short\"",
        "{\"body\": 1}",
        "",
        "[1]",
        &serde_json::json!({ "text": good }).to_string(),
        "{\"text\": \"\\ud800\"}",
    ];
    fs::write(source.join("lines.jsonl"), lines.join("\n")).unwrap();
    // A line of 2 GB: sparse on disk, and of letters at its start so that it does not look binary.
    let long = File::create(source.join("long.jsonl")).unwrap();
    (&long).write_all(&[b'a'; 10_000]).unwrap();
    long.set_len(2 << 30).unwrap();
    // 1 GB that packs to almost nothing.
    let mut bomb = zstd::Encoder::new(File::create(source.join("bomb.txt.zst")).unwrap(), 1).unwrap();
    for _ in 0..1024 {
        bomb.write_all(&[b'a'; 1 << 20]).unwrap();
    }
    bomb.finish().unwrap();

    let report = add(&options(home.path(), &source), &mut ()).unwrap();
    let kept = report.train.documents + report.held_out.documents;
    assert_eq!(kept, 41, "{}", report.text());
    let corpus = home.path().join("data/c");
    let quarantine: HashMap<String, String> = fs::read_to_string(corpus.join("quarantine.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<BadRecord>(line).unwrap())
        .map(|bad| (bad.origin.strip_prefix(&format!("{}/", source.display())).unwrap().to_owned(), bad.reason))
        .collect();
    assert_eq!(report.quarantined.count.documents as usize, quarantine.len());
    for (origin, reason) in [
        ("binary.txt", "is binary: a zero byte at offset 4"),
        ("broken.parquet", "is not a readable parquet file"),
        ("empty.parquet", "is not a readable parquet file"),
        ("latin.txt", "is not UTF-8: byte 0xe9 at offset 5"),
        ("truncated.jsonl.gz", ""),
        ("truncated.jsonl.zst", ""),
        ("lines.jsonl:1", "is not a JSON record"),
        ("lines.jsonl:2", "its keys are: body"),
        ("lines.jsonl:4", "is not a JSON record"),
        ("lines.jsonl:6", "is not a JSON record"),
        ("long.jsonl:1", "the line has 2147483648 bytes; at most 16777216"),
        ("bomb.txt.zst:1", "the line has 1073741824 bytes; at most 16777216"),
    ] {
        let found = quarantine.get(origin).unwrap_or_else(|| panic!("{origin} is not in {quarantine:#?}"));
        assert!(found.contains(reason), "{origin}: {found}");
    }
    assert_eq!(quarantine.len(), 12, "{quarantine:#?}");
    assert!(report.text().contains("quarantined"));
}

#[test]
fn planted_copies_are_found_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("in.jsonl");
    let mut rng = rng(2);
    let originals: Vec<String> = (0..2_000).map(|i| prose(&mut rng, 80 + i % 200)).collect();
    let mut lines = originals.clone();
    lines.extend(originals[..300].iter().cloned());
    // Up to one word in a hundred is changed: a similarity of 0.94 and more.
    let edited: Vec<String> = originals[300..600].iter().map(|text| edit(text, 0.01, &mut rng)).collect();
    let unchanged = originals[300..600].iter().zip(&edited).filter(|(old, new)| old.trim() == *new).count() as u64;
    lines.extend(edited);
    // Half of the words are changed: another text.
    lines.extend(originals[600..900].iter().map(|text| edit(text, 0.5, &mut rng)));
    write_jsonl(&path, lines);
    let report = add(&options(home.path(), &path), &mut ()).unwrap();
    assert_eq!(dropped(&report, "exact duplicate"), 300 + unchanged, "{}", report.text());
    let near = dropped(&report, "near-duplicate");
    assert!((297 - unchanged..=300 - unchanged).contains(&near), "{near} near-duplicates of {}", 300 - unchanged);
    let kept: HashSet<String> =
        [Split::Train, Split::HeldOut].into_iter().flat_map(|split| texts(home.path(), split)).map(|(_, text)| text).collect();
    assert!(originals.iter().all(|text| kept.contains(text.trim())), "the first of each cluster stays");
    let example = &report.dropped.iter().find(|(step, _)| step == "near-duplicate").unwrap().1.examples[0];
    assert!(example.why.starts_with("copy of ") && example.why.contains("in.jsonl:"), "{example:?}");
}

#[test]
fn no_cluster_is_on_both_sides_even_when_copies_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("in.jsonl");
    let mut rng = rng(3);
    let mut lines = Vec::new();
    for i in 0..600 {
        let text = format!("{} the marker m{i}m. ", prose(&mut rng, 200));
        for _ in 0..4 {
            lines.push(edit(&text, 0.004, &mut rng));
        }
        lines.push(text);
    }
    write_jsonl(&path, lines);
    let mut options = options(home.path(), &path);
    options.held_out.fraction = 0.2;
    for deduplicate in [false, true] {
        options.deduplicate = deduplicate;
        let report = add(&options, &mut ()).unwrap();
        let markers = |split| -> HashSet<String> {
            let marker = |text: &str| Some(text.split(' ').find(|w| w.starts_with('m') && w.ends_with("m."))?.to_owned());
            texts(home.path(), split).iter().filter_map(|(_, text)| marker(text)).collect()
        };
        let (train, held_out) = (markers(Split::Train), markers(Split::HeldOut));
        assert!(train.is_disjoint(&held_out), "a cluster is on both sides");
        assert!((60..180).contains(&held_out.len()), "{} of 600 held out", held_out.len());
        if !deduplicate {
            assert_eq!(report.train.documents + report.held_out.documents, 3_000);
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes_on_any_number_of_threads() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("in.jsonl");
    let mut rng = rng(4);
    let mut lines: Vec<String> = (0..3_000).map(|i| prose(&mut rng, 60 + i % 900)).collect();
    lines.extend(lines[..50].to_vec());
    write_jsonl(&path, lines);
    let options = options(home.path(), &path);
    let run = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| add(&options, &mut ()).unwrap());
        contents(&home.path().join("data/c"))
    };
    let first = run(1);
    assert!(first.len() >= 6);
    assert!(first == run(3), "a run with three threads differs");
    let other = add(&AddOptions { seed: 2, ..options.clone() }, &mut ()).unwrap();
    assert_eq!(other.train.documents + other.held_out.documents, 3_000);
    assert!(first != contents(&home.path().join("data/c")), "the seed decides the split");
}

#[test]
fn an_interrupted_add_leaves_the_old_corpus() {
    struct Stop;
    impl Progress for Stop {
        fn start(&mut self, stage: &str, _: Option<u64>, _: &'static str) {
            assert!(stage != "write documents", "interrupted");
        }
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("in.jsonl");
    let mut rng = rng(5);
    write_jsonl(&path, (0..100).map(|_| prose(&mut rng, 100)));
    let options = options(home.path(), &path);
    add(&options, &mut ()).unwrap();
    let before = contents(&home.path().join("data/c"));
    write_jsonl(&path, (0..100).map(|_| prose(&mut rng, 100)));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| add(&options, &mut Stop)));
    assert!(unwound.is_err());
    assert!(before == contents(&home.path().join("data/c")));
    // What a killed process leaves has another process id.
    let left = home.path().join("data/.c.4000000000.tmp");
    fs::create_dir(&left).unwrap();
    add(&options, &mut ()).unwrap();
    assert!(!left.exists());
    assert!(before != contents(&home.path().join("data/c")));
    // Killed between the two renames: the old corpus is put back.
    fs::rename(home.path().join("data/c"), home.path().join("data/.c.4000000000.old")).unwrap();
    write_jsonl(&path, []);
    let error = format!("{:#}", add(&options, &mut ()).unwrap_err());
    assert!(error.contains("no document is left"), "{error}");
    assert_eq!(texts(home.path(), Split::Train).len() + texts(home.path(), Split::HeldOut).len(), 100);
}
