use std::sync::OnceLock;

use proptest::prelude::*;
use tokenizers::Trainer;
use tokenizers::models::bpe::{BPE, BpeTrainer};

use super::*;

/// Text in two scripts and code, with numbers, line ends and an emoji.
pub(crate) fn texts() -> Vec<String> {
    let english = "The furnace is lit in the evening. It's warm, isn't it? In 1998 there were 60,000 pictures of digits.";
    let chinese = "丹炉在傍晚点燃。炼丹的人守着火，等待天明。炼丹炼丹，丹炉丹炉。";
    let code = "fn main() {\n    let x = vec![1, 2, 3];\n    for i in x.iter() {\n        println!(\"{i}\");\n    }\n}\n";
    let other = "Ελληνικά, हिन्दी में लिखा, emoji 👩‍🔬🔥 and\ttabs\r\n\r\nlines   spaces  ";
    (0..40).map(|i| format!("{english} {i}\n{chinese}\n\n{code}{other}{}", i * 7919)).collect()
}

fn train_kind(kind: Kind, vocab_size: usize) -> Tokenizer {
    let spec = TrainSpec { kind, vocab_size, ..TrainSpec::default() };
    train(&spec, texts().into_iter().map(Ok)).unwrap()
}

/// A small byte-level BPE tokenizer for tests.
pub(crate) fn tiny() -> &'static Tokenizer {
    static TINY: OnceLock<Tokenizer> = OnceLock::new();
    TINY.get_or_init(|| train_kind(Kind::Bpe, 400))
}

fn unigram() -> &'static Tokenizer {
    static UNIGRAM: OnceLock<Tokenizer> = OnceLock::new();
    UNIGRAM.get_or_init(|| train_kind(Kind::Unigram, 400))
}

#[test]
fn training_twice_gives_the_same_bytes_whatever_the_threads() {
    for (kind, vocab_size) in [(Kind::Bpe, 500), (Kind::Unigram, 400), (Kind::WordPiece, 300), (Kind::Words, 300)] {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train_kind(kind, vocab_size).to_json().unwrap())
        };
        let first = with(1);
        for threads in [1, 2, 3] {
            assert!(first == with(threads), "{kind:?} with {threads} threads");
        }
    }
}

#[test]
fn the_vocabulary_has_the_size_asked_for_and_begins_with_the_special_tokens() {
    for (kind, size) in [(Kind::Bpe, 400), (Kind::Unigram, 290), (Kind::WordPiece, 200)] {
        let tokenizer = train_kind(kind, size);
        // Few words make few merges, and WordPiece splits at punctuation too.
        assert!(tokenizer.vocab_size() == size || (kind == Kind::WordPiece && tokenizer.vocab_size() < size), "{kind:?}");
        for (id, name) in [END_OF_TEXT, TURN_START, TURN_END, PAD].iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(name), Some(id as u32), "{kind:?}");
        }
        assert_eq!(tokenizer.end_of_text(), 0);
    }
}

/// The vocabulary is the words by how often they occur, and what is no word of it is unknown or nothing.
#[test]
fn words_are_whole_and_in_small_letters() {
    let texts = ["The cat's hat. THE hat, the Émile 42!", "a hat: émile – 42?? <|endoftext|> zebra"];
    let spec = TrainSpec { kind: Kind::Words, vocab_size: 7, min_frequency: 2, ..TrainSpec::default() };
    let words = train(&spec, texts.iter().map(|text| Ok(text.to_string()))).unwrap();
    let known: Vec<String> = (0..words.vocab_size() as u32).map(|id| words.id_to_token(id).unwrap()).collect();
    assert_eq!(known, [END_OF_TEXT, "[UNK]", "hat", "the", "42", "émile"]);
    assert_eq!(words.end_of_text(), 0);
    assert!(words.is_special(0) && words.is_special(1) && !words.is_special(2));
    assert_eq!(words.encode("The HAT?! cat's 42nd <|endoftext|>").unwrap(), [3, 2, 1, 4, 1, 1]);
    assert!(words.encode(" …!").unwrap().is_empty());
    assert_eq!(words.decode(&[3, 2]).unwrap(), "the hat");
    let dir = tempfile::tempdir().unwrap();
    words.export(dir.path(), 0).unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().hash(), words.hash());
    let rare = TrainSpec { min_frequency: 9, ..spec };
    assert!(train(&rare, texts.iter().map(|text| Ok(text.to_string()))).is_err());
}

#[test]
fn merges_are_those_of_the_library() {
    // Where the library's result does not depend on its hash seed, ours must be the same.
    let words: Vec<(String, u64)> =
        [("roses", 3), ("are", 7), ("red", 2), ("violets", 4), ("blue", 5), ("is", 9), ("aaaaa", 6), ("rose", 1)]
            .map(|(word, count)| (word.to_owned(), count))
            .to_vec();
    let mut trainer = BpeTrainer::builder().vocab_size(40).min_frequency(2).show_progress(false).build();
    let repeated = words.iter().flat_map(|(word, count)| std::iter::repeat_n(word.as_str(), *count as usize));
    trainer.feed(repeated.collect::<Vec<_>>().into_iter(), |word| Ok(vec![word.to_owned()])).unwrap();
    let mut library = BPE::default();
    trainer.train(&mut library).unwrap();
    let mut alphabet: Vec<String> = words.iter().flat_map(|(word, _)| word.chars().map(String::from)).collect();
    alphabet.sort_unstable();
    alphabet.dedup();
    let ours = merges::learn(alphabet, &words, "", 40, 2);
    let mut theirs: Vec<_> = library.get_vocab().into_iter().collect();
    theirs.sort_by_key(|(_, id)| *id);
    assert_eq!(ours.vocab, theirs.into_iter().map(|(token, _)| token).collect::<Vec<_>>());
}

#[test]
fn no_token_crosses_a_line_or_a_group_of_digits() {
    for tokenizer in [tiny(), unigram()] {
        for id in 4..tokenizer.vocab_size() as u32 {
            let token = tokenizer.decode(&[id]).unwrap();
            assert!(token.chars().filter(char::is_ascii_digit).count() <= 2, "{token:?}");
            let after_line = token.trim_start_matches(|c: char| c.is_whitespace() || !c.is_alphanumeric());
            assert!(!token.contains('\n') || after_line.is_empty(), "{token:?}");
        }
    }
}

#[test]
fn the_text_of_a_special_token_is_text_unless_it_is_trusted() {
    for tokenizer in [tiny(), unigram()] {
        let text = "a<|endoftext|>b<|im_start|>";
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.iter().all(|&id| id > 3), "{ids:?}");
        assert_eq!(tokenizer.decode_text(&ids).unwrap(), text);
        let ids = tokenizer.encode_with_special(text).unwrap();
        assert!(ids.contains(&0) && ids.contains(&1), "{ids:?}");
        assert_eq!(tokenizer.decode_text(&ids).unwrap(), "ab");
    }
}

#[test]
fn a_saved_tokenizer_loads_as_itself() {
    let dir = tempfile::tempdir().unwrap();
    tiny().export(dir.path(), 512).unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(loaded.hash(), tiny().hash());
    assert_eq!(loaded.end_of_text(), tiny().end_of_text());
    for text in texts() {
        assert_eq!(loaded.encode(&text).unwrap(), tiny().encode(&text).unwrap());
    }
}

#[test]
fn a_file_is_read_as_the_library_reads_it() {
    let own = tiny().to_json().unwrap();
    // Older files have each merge in one string.
    let mut older: serde_json::Value = serde_json::from_str(&own).unwrap();
    for merge in older["model"]["merges"].as_array_mut().unwrap() {
        *merge = format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()).into();
    }
    for file in [own, older.to_string(), unigram().to_json().unwrap()] {
        let library = Library::from_bytes(&file).unwrap();
        assert_eq!(json(&read(file.as_bytes()).unwrap()).unwrap(), json(&library).unwrap());
    }
}

#[test]
fn a_damaged_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let whole = tiny().to_json().unwrap();
    let no_end = whole.replace(END_OF_TEXT, "<|other|>");
    let cases: [(&[u8], &str); 5] = [
        (&whole.as_bytes()[..whole.len() / 2], "EOF"),
        (b"", "EOF"),
        (b"{}", "not a usable tokenizer"),
        (b"\xff\xfe\x00", "not a usable tokenizer"),
        (no_end.as_bytes(), "no token that ends a document"),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        let message = format!("{:#}", Tokenizer::load(&path).err().unwrap());
        assert!(message.contains(expected) && message.contains("tokenizer.json"), "{message}");
    }
}

#[test]
fn what_cannot_be_trained_is_said() {
    let check = |spec: TrainSpec, texts: &[&str], expected: &str| {
        let message = format!("{:#}", train(&spec, texts.iter().map(|text| Ok((*text).to_owned()))).err().unwrap());
        assert!(message.contains(expected), "{message}");
    };
    check(TrainSpec::default(), &[], "no text");
    check(TrainSpec::default(), &["", ""], "no text");
    check(TrainSpec { vocab_size: 100, ..TrainSpec::default() }, &["text"], "260");
}

#[test]
fn bytes_per_token_counts_all_bytes() {
    let texts = texts();
    let sum = bytes_per_token(tiny(), &texts, u64::MAX).unwrap();
    assert_eq!(sum.bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
    assert!(sum.ratio() > 1.5, "{sum:?}");
}

#[test]
fn the_fast_way_gives_the_ids_of_the_library() {
    let fast = tiny().inner.fast.as_ref().expect("our own tokenizer has a fast way");
    assert!(unigram().inner.fast.is_none());
    // Where the library's word is long, or the whole text is one word.
    for text in texts().into_iter().chain(["炼丹".repeat(30), "a".repeat(256), String::new(), "\n".repeat(100)]) {
        assert_eq!(fast.encode(&text).unwrap(), encode_with(&tiny().inner.plain, &text).unwrap(), "{text:?}");
    }
    let long = "a".repeat(10_000);
    assert_eq!(fast.encode(&long), None);
    assert_eq!(tiny().decode(&tiny().encode(&long).unwrap()).unwrap(), long);
}

proptest! {
    #[test]
    fn the_fast_way_gives_the_ids_of_the_library_for_any_text(text in "(\\PC|[ \n]|[a-z0-9'<|>]|\\p{Han}){0,60}") {
        let fast = tiny().inner.fast.as_ref().unwrap().encode(&text).unwrap();
        prop_assert_eq!(fast, encode_with(&tiny().inner.plain, &text).unwrap());
    }

    #[test]
    fn any_text_survives(text in "\\PC*|(\\s|[a-z0-9'<|>]|\\p{Han}|\\p{M}|\u{fffd}){0,40}") {
        for tokenizer in [tiny(), unigram()] {
            prop_assert_eq!(&tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), &text);
        }
    }

    #[test]
    fn pieces_as_they_come_are_the_whole_text(ids in proptest::collection::vec(0u32..400, 0..60)) {
        for tokenizer in [tiny(), unigram()] {
            let mut stream = tokenizer.stream();
            let mut text = String::new();
            for &id in &ids {
                text += &stream.push(id).unwrap();
            }
            text += &stream.finish().unwrap();
            prop_assert_eq!(text, tokenizer.decode_text(&ids).unwrap());
        }
    }

    #[test]
    fn a_stream_never_shows_half_a_character(text in "[a-z \\p{Han}\\p{Emoji}]{0,30}") {
        let mut stream = tiny().stream();
        let mut shown = String::new();
        for id in tiny().encode(&text).unwrap() {
            shown += &stream.push(id).unwrap();
            prop_assert!(text.starts_with(&shown), "{:?} is not the beginning of {:?}", shown, text);
        }
        prop_assert_eq!(shown, text);
    }
}
