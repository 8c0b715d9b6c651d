use std::fs;
use std::path::Path;

use super::*;
use crate::sampler::IGNORE;
use crate::source::Source;
use crate::tokenizer::{Kind, TrainSpec, train};

fn file(dir: &Path, name: &str, text: &str) -> Vec<Source> {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    vec![Source::Path(path.display().to_string())]
}

fn class(text: &str, label: &str) -> Example {
    Example { text: text.into(), pair: None, label: Label::Class(label.into()), numbers: vec![] }
}

#[test]
fn every_form_gives_the_same_texts() {
    let dir = tempfile::tempdir().unwrap();
    let forms = [
        ("a.jsonl", "{\"text\":\"good, really\",\"label\":\"pos\"}\n{\"text\":\"bad \\\"thing\\\"\",\"label\":0}\n"),
        ("a.json", "[{\"review\":\"good, really\",\"class\":\"pos\"},{\"review\":\"bad \\\"thing\\\"\",\"class\":0}]"),
        ("a.csv", "\u{feff}label,text\npos,\"good, really\"\n0,\"bad \"\"thing\"\"\"\n"),
        ("a.tsv", "text\tid\tsentiment\ngood, really\t1\tpos\n\"bad \"\"thing\"\"\"\t2\t0\n"),
    ];
    let expected = [class("good, really", "pos"), class("bad \"thing\"", "0")];
    for (name, text) in forms {
        let found = read(&file(dir.path(), name, text), &Columns::default(), Labels::Classes).unwrap();
        assert_eq!((found.examples.as_slice(), found.bad.len()), (&expected[..], 0), "{name}");
    }
    let columns = Columns { pair: Some("other".into()), numbers: vec!["price".into()], ..Columns::default() };
    let table = "text,other,label,price\na,b,3.5,7\nc,d,4,1e2\n";
    let found = read(&file(dir.path(), "n.csv", table), &columns, Labels::Numbers).unwrap();
    let first = Example { text: "a".into(), pair: Some("b".into()), label: Label::Number(3.5), numbers: vec![7.0] };
    assert_eq!(found.examples[0], first);
    assert_eq!(found.examples[1].numbers, [100.0]);
}

#[test]
fn words_and_tags_are_read_from_lines_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    let conll = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\n我 r O\n们 k O\n";
    let lists = "{\"tokens\":[\"EU\",\"rejects\"],\"ner_tags\":[\"B-ORG\",\"O\"]}\n{\"words\":\"我 们\",\"tags\":\"O O\"}\n";
    let expected = [("EU rejects", vec![("EU", "B-ORG"), ("rejects", "O")]), ("我们", vec![("我", "O"), ("们", "O")])];
    for (name, text) in [("a.conll", conll), ("a.txt", conll), ("a.jsonl", lists)] {
        let found = read(&file(dir.path(), name, text), &Columns::default(), Labels::Tags).unwrap().examples;
        assert_eq!(found.len(), 2, "{name}");
        for (example, (text, words)) in found.iter().zip(&expected) {
            let words = words.iter().map(|(word, tag)| (word.to_string(), tag.to_string())).collect();
            assert_eq!((example.text.as_str(), &example.label), (*text, &Label::Tags(words)), "{name}");
        }
    }
}

#[test]
fn repeats_are_read_once_and_contradictions_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [("a", "x"), ("b", "x"), ("a", "x"), (" a ", "x"), ("b", "y"), ("b", "x"), ("c  d", "y"), ("c d", "y")];
    let text: String = lines.iter().map(|(text, label)| format!("{{\"text\":\"{text}\",\"label\":\"{label}\"}}\n")).collect();
    let found = read(&file(dir.path(), "a.jsonl", &text), &Columns::default(), Labels::Classes).unwrap();
    assert_eq!(found.examples, [class("a", "x"), class("c  d", "y")]);
    // What is left out is not among what is read once.
    assert_eq!((found.repeats, found.contradictions), (3, 1), "{}", found.summary());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let columns = Columns::default();
    let good: String = (0..200).map(|i| format!("{{\"text\":\"t{i}\",\"label\":\"x\"}}\n")).collect();
    let bad = ["{\"text\":\"\",\"label\":\"x\"}", "{\"text\":\"a\"}", "{\"text\":\"a\",\"label\":[1]}", "not json", "3"];
    let found = read(&file(dir.path(), "a.jsonl", &format!("{good}{}\n", bad.join("\n"))), &columns, Labels::Classes).unwrap();
    let reasons: Vec<String> = found.bad.iter().map(|bad| format!("{} {}", bad.origin, bad.reason)).collect();
    for (reason, part) in reasons.iter().zip([
        "a.jsonl:201 has an empty \"text\"",
        "202 has no label",
        "203 has \"label\" = [1]",
        "204 ",
        "205 is no object",
    ]) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
    let refused = |name: &str, text: &str, labels, parts: &[&str]| {
        let error = read(&file(dir.path(), name, text), &columns, labels).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
    };
    refused("a.csv", "body,label\na,x\n", Labels::Classes, &["a.csv:2", "none of text, sentence", "body, label"]);
    refused("b.csv", "text,label\na,x,y\n", Labels::Classes, &["b.csv:2", "no row of this table"]);
    refused("c.csv", "text,label\na,many\n", Labels::Numbers, &["\"label\" = \"many\"", "not a number"]);
    refused("d.conll", "word\n", Labels::Tags, &["d.conll:1", "\"word\" without a tag"]);
    refused("e.md", "# no labels\n", Labels::Classes, &["e.md", "labelled texts are read from those"]);
}

#[test]
fn equal_texts_are_held_out_together_and_every_class_is_on_both_sides() {
    let examples: Vec<Example> =
        (0..1000).map(|i| class(&format!("text {}", i % 400), if i % 400 < 3 { "rare" } else { "usual" })).collect();
    let out = held_out(&examples, 0.1, 7);
    for i in 0..600 {
        assert_eq!(out[i], out[i + 400], "text {i} lies on both sides");
    }
    let share = out.iter().filter(|out| **out).count() as f64 / 1000.0;
    assert!((0.06..0.14).contains(&share), "{share}");
    let rare: Vec<bool> = (0..3).map(|i| out[i]).collect();
    assert!(rare.contains(&true) && rare.contains(&false), "{rare:?}");
    assert_eq!(out, held_out(&examples, 0.1, 7));
    assert_ne!(out, held_out(&examples, 0.1, 8));
}

fn tokenizer(kind: Kind) -> crate::tokenizer::Tokenizer {
    let texts = ["the cat sat on the mat", "a cat and a dog", "我 们 在 家"].map(|text| Ok(text.to_owned()));
    train(&TrainSpec { kind, vocab_size: 320, min_frequency: 1, ..TrainSpec::default() }, texts.into_iter()).unwrap()
}

#[test]
fn frames_stand_around_texts_and_what_is_long_is_cut_inside() {
    // As BERT's own file, in which [SEP] ends a text.
    let json = tokenizer(Kind::WordPiece).to_json().unwrap();
    let bert = crate::tokenizer::Tokenizer::from_json(json.as_bytes(), Some("[SEP]")).unwrap();
    let frame = Frame::new(bert, 10).unwrap();
    let id = |name: &str| frame.tokenizer().token_to_id(name).unwrap();
    let (cls, sep) = (id("[CLS]"), id("[SEP]"));
    let one = frame.encode("the cat", None).unwrap();
    assert_eq!((one.ids[0], *one.ids.last().unwrap(), one.cut), (cls, sep, false));
    assert!(one.kinds.iter().all(|kind| *kind == 0));
    let two = frame.encode("the cat sat on the mat and the mat", Some("a dog")).unwrap();
    assert_eq!((two.ids.len(), two.cut), (10, true));
    let seps = two.ids.iter().filter(|id| **id == sep).count();
    assert_eq!((seps, two.kinds.iter().filter(|kind| **kind == 1).count()), (2, 3), "{two:?}");
    // Other programs get the same tokens from the file that is written.
    let library = tokenizers::Tokenizer::from_bytes(frame.framed().unwrap().to_json().unwrap()).unwrap();
    let theirs = library.encode(("the cat", "a dog"), true).unwrap();
    let ours = frame.encode("the cat", Some("a dog")).unwrap();
    assert_eq!((theirs.get_ids(), theirs.get_type_ids()), (&ours.ids[..], &ours.kinds[..]));
    let bytes = Frame::new(tokenizer(Kind::Bpe), 10).unwrap();
    let end = bytes.tokenizer().end_of_text();
    let turn_end = bytes.tokenizer().token_to_id("<|im_end|>").unwrap();
    let one = bytes.encode("the cat", None).unwrap();
    assert_eq!((one.ids[0], *one.ids.last().unwrap()), (end, turn_end));
    assert!(bytes.padding().is_some_and(|pad| pad != end && pad != turn_end));
    assert!(Frame::new(tokenizer(Kind::Bpe), 4).is_err());
}

#[test]
fn the_first_token_of_a_word_carries_its_tag() {
    for kind in [Kind::WordPiece, Kind::Bpe] {
        let frame = Frame::new(tokenizer(kind), 64).unwrap();
        let words =
            [("the", "D"), ("catdog", "N"), ("我", "P"), ("们", "P")].map(|(word, tag)| (word.to_string(), tag.to_string()));
        let label = Label::Tags(words.to_vec());
        let example = Example { text: String::new(), pair: None, label, numbers: vec![] };
        let tag = |name: &str| ["D", "N", "P"].iter().position(|known| *known == name).map(|place| place as u32);
        let encoded = frame.example(&example, tag).unwrap();
        let counted: Vec<u32> = encoded.tags.iter().copied().filter(|tag| *tag != IGNORE).collect();
        assert_eq!(counted, [0, 1, 2, 2], "{kind:?}");
        assert_eq!((encoded.tags[0], *encoded.tags.last().unwrap()), (IGNORE, IGNORE));
        assert_eq!(encoded.ids.len(), encoded.tags.len());
    }
}

#[test]
fn features_are_those_of_scikit_learn() {
    // TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=2) on these three, sklearn 1.8: see tests/peers/classify_parity.py.
    let texts = ["ab ab", "abc", "b  c"].map(|text| class(text, "x"));
    let train: Vec<&Example> = texts.iter().collect();
    let spec = FeatureSpec { ngrams: Some((1, 2)), ngram_limit: 100, ..FeatureSpec::default() };
    let features = Features::fit(&spec, &train).unwrap();
    let names: Vec<&str> = features.names().collect();
    assert_eq!(names, [" ", "a", "ab", "b", "b ", "c"]);
    let row = features.of(&texts[0]);
    let length: f32 = row.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() < 1e-6);
    // Rarity: in two of three texts ln(4/3) + 1, in all three 1. The counts in "ab ab" are 1, 2, 2, 2, 1.
    let rare = (4.0_f32 / 3.0).ln() + 1.0;
    let raw = [rare, 2.0 * rare, 2.0 * rare, 2.0, rare];
    let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    for ((place, value), (expected, at)) in row.iter().zip(raw.iter().zip([0, 1, 2, 3, 4])) {
        assert!(*place == at && (value - expected / norm).abs() < 1e-6, "{place} {value}");
    }
}

#[test]
fn numbers_are_standardized_and_survive_the_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("words.tsv"), "good\tpraise\nBad\tblame\n").unwrap();
    let lexicon = Lexicon::load(&dir.path().join("words.tsv")).unwrap();
    let mut texts = ["good good", "bad", "neither!"].map(|text| class(text, "x"));
    texts.iter_mut().zip([1.0, 2.0, 6.0]).for_each(|(text, number)| text.numbers = vec![number]);
    let train: Vec<&Example> = texts.iter().collect();
    let spec = FeatureSpec {
        counts: true,
        lexicon: Some(lexicon),
        columns: vec!["price".into()],
        ngram_limit: 1,
        ..FeatureSpec::default()
    };
    let features = Features::fit(&spec, &train).unwrap();
    let names: Vec<&str> = features.names().collect();
    assert_eq!((names.len(), &names[9..]), (12, &["hits of praise", "hits of blame", "price"][..]));
    let rows: Vec<Vec<(u32, f32)>> = texts.iter().map(|text| features.of(text)).collect();
    for i in 0..12 {
        let (sum, squares) = rows.iter().fold((0.0, 0.0), |(a, b), row| (a + row[i].1, b + row[i].1 * row[i].1));
        assert!(sum.abs() < 1e-5 && (squares < 1e-9 || (squares - 3.0).abs() < 1e-4), "{}: {sum} {squares}", names[i]);
    }
    assert!(rows[0][9].1 > rows[1][9].1 && rows[1][10].1 > rows[0][10].1);
    features.save(&dir.path().join("features.json")).unwrap();
    assert_eq!(Features::load(&dir.path().join("features.json")).unwrap(), features);
    fs::write(
        dir.path().join("features.json"),
        "{\"numbers\":[[\"a\",0,1]],\"counts\":false,\"lexicon\":null,\"columns\":0,\"ngrams\":null,\"vocabulary\":[]}",
    )
    .unwrap();
    assert!(Features::load(&dir.path().join("features.json")).is_err());
    assert!(Features::fit(&FeatureSpec::default(), &train).unwrap_err().to_string().contains("no feature is asked for"));
}
