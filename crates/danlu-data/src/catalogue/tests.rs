use std::fs;
use std::io::Read;

use super::*;
use crate::source::Source;

#[test]
fn the_catalogue_is_well_formed() {
    let entries = entries().unwrap();
    let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), entries.len(), "a name twice");
    for entry in &entries {
        let made_here = matches!(entry.shape, Shape::Crates | Shape::Arithmetic { .. } | Shape::Copying);
        assert!(made_here || !(entry.sources.is_empty() || entry.files.is_empty()), "{}", entry.name);
        for place in &entry.sources {
            if let Place::Pip { file, blake3, .. } | Place::Npm { file, blake3, .. } = place {
                assert!(blake3.len() == 64 && file.contains('.'), "{}", entry.name);
            }
        }
    }
    let message = find("wiki-lead").unwrap_err().to_string();
    assert!(message.contains("wiki-leads"), "{message}");
}

fn entry(sources: Vec<Place>, shape: Shape) -> Entry {
    Entry {
        name: "test".into(),
        kind: Kind::Text,
        title: "a test".into(),
        language: "en".into(),
        licence: "MIT".into(),
        files: vec!["texts/**/*.json".into()],
        shape,
        sources,
    }
}

#[test]
fn the_first_place_that_can_be_reached_is_used_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let texts = dir.path().join("here/texts");
    fs::create_dir_all(&texts).unwrap();
    fs::write(texts.join("a.json"), r#"[{"text":"one"},{"text":"two"}]"#).unwrap();
    let path = |name: &str| Place::Path { path: dir.path().join(name).display().to_string() };
    let cache = dir.path().join("cache");
    let records = Shape::Records { fields: vec!["text".into()] };

    let error = fetch_in(&cache, &entry(vec![path("nowhere"), path("cache")], records.clone()), &mut ()).unwrap_err();
    assert!(format!("{error:#}").contains("nowhere"), "{error:#}");

    let found = entry(vec![path("nowhere"), path("here")], records);
    let fetched = fetch_in(&cache, &found, &mut ()).unwrap();
    assert!(fetched.from.ends_with("here"));
    let Source::Files { files, .. } = &fetched.source else { panic!("{:?}", fetched.source) };
    let mut text = String::new();
    zstd::Decoder::new(fs::File::open(&files[0]).unwrap()).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "{\"text\":\"one\"}\n{\"text\":\"two\"}\n");

    // Once fetched, no place is needed; another definition is fetched anew.
    fs::remove_dir_all(dir.path().join("here")).unwrap();
    assert_eq!(fetch_in(&cache, &found, &mut ()).unwrap(), fetched);
    assert!(fetch_in(&cache, &entry(found.sources.clone(), Shape::Files), &mut ()).is_err());
}

#[test]
fn a_package_with_another_checksum_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let packages = dir.path().join("packages");
    fs::create_dir_all(&packages).unwrap();
    fs::write(packages.join("x-1.whl"), "not the package").unwrap();
    // A client that cannot find the package fails, and the file that lies there is not taken for it.
    let place =
        Place::Pip { package: "no such package".into(), version: "1".into(), file: "x-1.whl".into(), blake3: "0".repeat(64) };
    let error = fetch_in(dir.path(), &entry(vec![place], Shape::Lines), &mut ()).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains("pip no such package==1") && message.contains("by hand"), "{message}");
}

#[test]
fn what_is_made_here_needs_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let fetched = fetch_in(dir.path(), &find("arithmetic-1").unwrap(), &mut ()).unwrap();
    let prompts = crate::prompts::read(std::slice::from_ref(&fetched.source)).unwrap().records;
    assert!(prompts.len() > 1000 && prompts.iter().all(|one| one.reference.answer.is_some()));
    assert_eq!(fetch_in(dir.path(), &find("arithmetic-1").unwrap(), &mut ()).unwrap(), fetched);
}
