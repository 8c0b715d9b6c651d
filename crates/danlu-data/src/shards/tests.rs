use std::fs;
use std::path::Path;

use anyhow::Result;
use proptest::prelude::*;

use super::write::build_in_files_of;
use super::*;
use crate::tokenizer::tests::{texts, tiny};

/// A token set in files of at least `file_tokens` tokens.
fn build(folder: &Path, file_tokens: u64, train: &[String], held_out: &[String]) -> Result<TokenSet> {
    let (train, held_out) = (train.iter().cloned().map(Ok), held_out.iter().cloned().map(Ok));
    build_in_files_of(file_tokens, folder, "source", tiny(), train, held_out, &mut ())
}

fn check_split(split: &TokenSplit, texts: &[String]) {
    let texts: Vec<_> = texts.iter().filter(|text| !text.is_empty()).collect();
    assert_eq!(split.documents(), texts.len());
    assert_eq!(split.bytes(), texts.iter().map(|text| text.len() as u64).sum::<u64>());
    let mut all = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let document = split.document(i).unwrap();
        assert_eq!(document[0], tiny().end_of_text());
        assert_eq!(document[1..], tiny().encode(text).unwrap());
        assert_eq!(split.document_bytes(i), text.len() as u64);
        assert_eq!(split.starts_in(split.document_range(i)).collect::<Vec<_>>(), [all.len() as u64]);
        all.extend(document);
    }
    assert_eq!(split.len(), all.len() as u64);
    let mut read = vec![0; all.len()];
    split.read(0, &mut read).unwrap();
    assert_eq!(read, all);
    let mut counts = vec![0; split.vocab_size()];
    all.iter().for_each(|&id| counts[id as usize] += 1);
    assert_eq!(split.counts().unwrap(), counts);
    for start in 0..all.len() {
        let mut some = vec![0; (all.len() - start).min(7)];
        split.read(start as u64, &mut some).unwrap();
        assert_eq!(some, all[start..start + some.len()]);
    }
    assert!(split.read(split.len(), &mut [0]).is_err());
    assert!(split.read(u64::MAX, &mut [0, 0]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_written_is_read(
        train in proptest::collection::vec("[ -~\\p{Han}]{0,40}", 0..12),
        held_out in proptest::collection::vec("[ -~]{0,20}", 0..3),
        file_tokens in 1u64..60,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let set = build(&dir.path().join("tokens"), file_tokens, &train, &held_out).unwrap();
        check_split(&set.train, &train);
        check_split(&set.held_out, &held_out);
        set.verify().unwrap();
        prop_assert!(set.tokenizer().unwrap().hash() == tiny().hash());
    }

    #[test]
    fn no_header_is_trusted(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in any::<u64>()) {
        for contents in [Contents::Tokens, Contents::Documents] {
            prop_assert!(Header::parse(&bytes, size, contents).is_err());
        }
        let _ = check_index(&bytes, size);
    }
}

#[test]
fn building_twice_gives_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| {
        let set = build(&dir.path().join(name), 500, &texts(), &texts()[..2]).unwrap();
        assert!(set.manifest.train.files.len() > 2);
        let mut files: Vec<_> = fs::read_dir(&set.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    assert!(read("a") == read("b"));
}

#[test]
fn damage_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tokens");
    let whole = || build(&folder, 500, &texts(), &texts()[..2]).unwrap();
    let check = |name: &str, what: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        drop(whole());
        let path = folder.join(name);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let message = format!("{:#}", TokenSet::open(&folder).err().unwrap_or_else(|| panic!("{what} of {name} went unnoticed")));
        assert!(message.contains(name) && message.contains("built again"), "{what} of {name}: {message}");
    };
    for name in ["train-00000.tokens", "train-00001.tokens", "train.index", "held_out-00000.tokens", "held_out.index"] {
        let size = {
            whole();
            fs::metadata(folder.join(name)).unwrap().len() as usize
        };
        for at in (0..128).step_by(5).chain([128, size / 2, size - 1]) {
            // The padding at the end of the header means nothing.
            if !(112..128).contains(&at) {
                check(name, &format!("a flipped bit in byte {at}"), &|bytes| bytes[at] ^= 1 << (at % 8));
            }
        }
        for length in [0, 1, 127, 128, size - 1] {
            check(name, &format!("the first {length} bytes"), &|bytes| bytes.truncate(length));
        }
        check(name, "more bytes", &|bytes| bytes.push(0));
        check(name, "other contents", &|bytes| *bytes = b"PAR1".repeat(100));
    }
    check("manifest.json", "half", &|bytes| bytes.truncate(bytes.len() / 2));
    check("manifest.json", "another layout", &|bytes| {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace("\"layout\": 1", "\"layout\": 2").into_bytes();
    });
    check("manifest.json", "a name outside", &|bytes| {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace("train.index", "../train.index").into_bytes();
    });
}

#[test]
fn a_token_outside_the_vocabulary_is_never_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tokens");
    let set = build(&folder, 500, &texts(), &[]).unwrap();
    // As if the disk had changed beneath an open map: the entries only, through the same file.
    let path = folder.join("train-00000.tokens");
    let mut bytes = fs::read(&path).unwrap();
    bytes[130..132].copy_from_slice(&[0xff, 0xff]);
    fs::write(&path, bytes).unwrap();
    let message = set.train.read(0, &mut [0; 4]).unwrap_err().to_string();
    assert!(message.contains("65535") && message.contains("train-00000.tokens"), "{message}");
    assert!(set.verify().is_err());
}

#[test]
fn an_index_out_of_order_is_refused() {
    let entries = |starts: &[u64]| starts.iter().flat_map(|&start| Document { start, bytes: 1 }.to_bytes()).collect::<Vec<_>>();
    for (starts, tokens, right) in [
        (&[0, 3, 9][..], 10, true),
        (&[], 0, true),
        (&[], 1, false),
        (&[0], 0, false),
        (&[1, 3], 10, false),
        (&[0, 3, 3], 10, false),
        (&[0, 5, 3], 10, false),
        (&[0, 3, 10], 10, false),
        (&[0, u64::MAX], u64::MAX, false),
    ] {
        assert_eq!(check_index(&entries(starts), tokens).is_ok(), right, "{starts:?} in {tokens}");
    }
    assert!(check_index(&entries(&[0])[..15], 10).is_err());
}

#[test]
fn a_failing_source_leaves_the_old_set() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tokens");
    build(&folder, 500, &texts(), &[]).unwrap();
    let failing = texts().into_iter().map(Ok).chain([Err(anyhow::anyhow!("the disk is gone"))]);
    let error = build_from(&folder, "source", tiny(), failing, std::iter::empty(), &mut ()).err().unwrap();
    assert!(format!("{error:#}").contains("the disk is gone"));
    check_split(&TokenSet::open(&folder).unwrap().train, &texts());
}
