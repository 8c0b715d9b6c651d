//! The vocabulary of a model's folder, for a GGUF file to be written.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{CONTROL, GPT4, LLAMA3, NORMAL, OWN, UNUSED, USER_DEFINED, Vocabulary};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::split::SPLIT;

/// Files of settings and templates are small.
const LIMIT: u64 = 16 << 20;

impl Vocabulary {
    /// The tokenizer in a model's folder as a GGUF file has it, with a token for each of the model's `rows`.
    ///
    /// # Errors
    /// When it cannot be said there: it is of another kind than byte-level BPE, splits text in a way that has no name, or has more tokens
    /// than the model rows.
    pub fn of_folder(folder: &Path, rows: usize) -> Result<Self> {
        let tokenizer = Tokenizer::load(folder)?;
        let file: Value = serde_json::from_str(&tokenizer.to_json()?)?;
        let settings = settings(&folder.join("tokenizer_config.json"))?;
        let model = &file["model"];
        ensure!(model["type"] == "BPE", "its tokenizer is of the kind {}, and GGUF has byte-level BPE", model["type"]);
        let pre = pre(&file)?;
        let whole_words = model["ignore_merges"] == true;
        ensure!(whole_words == LLAMA3.contains(&pre), "its tokenizer splits text as \"{pre}\" and takes words whole otherwise");
        let (tokens, types) = tokens(&file, rows)?;
        let named = |key: &str| {
            let token = &settings[format!("{key}_token")];
            token.as_str().or_else(|| token["content"].as_str()).and_then(|token| tokenizer.token_to_id(token))
        };
        let bos = named("bos");
        let template = folder.join("chat_template.jinja");
        Ok(Self {
            model: "gpt2".into(),
            pre: pre.into(),
            tokens,
            types,
            merges: merges(model)?,
            bos,
            eos: Some(tokenizer.end_of_text()),
            unknown: named("unk"),
            padding: named("pad"),
            add_bos: bos.and_then(|bos| tokenizer.id_to_token(bos)).is_some_and(|bos| begins_with(&file, &bos)),
            chat_template: if template.is_file() {
                Some(danlu_files::read_text_bounded(&template, LIMIT)?)
            } else {
                settings["chat_template"].as_str().map(str::to_string)
            },
        })
    }
}

fn settings(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = danlu_files::read_text_bounded(path, LIMIT)?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// Llama.cpp's name for how text is split; [`OWN`] for danlu's way, which has none there.
fn pre(file: &Value) -> Result<&'static str> {
    let normalizer = &file["normalizer"];
    ensure!(
        normalizer.is_null() || normalizer["type"] == "NFC",
        "its tokenizer changes text by {} first, which GGUF cannot say",
        normalizer["type"]
    );
    let pre_tokenizer = &file["pre_tokenizer"];
    let steps = pre_tokenizer["pretokenizers"].as_array().map_or(std::slice::from_ref(pre_tokenizer), Vec::as_slice);
    let bytes = |step: &Value, words: bool| {
        step["type"] == "ByteLevel" && step["add_prefix_space"] == false && step["use_regex"] == words
    };
    let splits = |step: &Value| {
        let whole = step["type"] == "Split" && step["behavior"] == "Isolated" && step["invert"] == false;
        step["pattern"]["Regex"].as_str().filter(|_| whole).map(str::to_string)
    };
    let known = match steps {
        [last] if bytes(last, true) => Some("gpt-2"),
        [digits, last] if digits["type"] == "Digits" && digits["individual_digits"] == true && bytes(last, true) => {
            Some("smollm")
        }
        [split, last] if bytes(last, false) => match splits(split) {
            Some(by) if by == SPLIT => Some(OWN),
            Some(by) if by == GPT4.replace("{}", "{1,3}") => Some("llama-bpe"),
            Some(by) if by == GPT4.replace("{}", "") => Some("qwen2"),
            _ => None,
        },
        _ => None,
    };
    match known {
        Some(name) => Ok(name),
        None => bail!("its tokenizer splits text in a way that GGUF has no name for"),
    }
}

/// Every token and its type, with names for rows that have none.
fn tokens(file: &Value, rows: usize) -> Result<(Vec<String>, Vec<i32>)> {
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED; rows];
    let mut set = |id: Option<u64>, token: &str, kind: i32| {
        let id = id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < rows);
        let id = id.with_context(|| format!("its token {token:?} is none of the model's {rows} rows"))?;
        (tokens[id], types[id]) = (token.to_string(), kind);
        anyhow::Ok(())
    };
    for (token, id) in file["model"]["vocab"].as_object().context("its tokenizer has no vocabulary")? {
        set(id.as_u64(), token, NORMAL)?;
    }
    for added in file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice) {
        let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
        set(added["id"].as_u64(), added["content"].as_str().context("an added token has no text")?, kind)?;
    }
    Ok((tokens, types))
}

/// Each as two tokens with a space between; files write them so or as pairs.
fn merges(model: &Value) -> Result<Vec<String>> {
    let all = model["merges"].as_array().context("its tokenizer has no merges")?;
    let one = |merge: &Value| match (merge.as_str(), merge[0].as_str(), merge[1].as_str()) {
        (Some(both), ..) => Some(both.to_string()),
        (None, Some(a), Some(b)) => Some(format!("{a} {b}")),
        _ => None,
    };
    all.iter().map(one).collect::<Option<_>>().context("a merge of its tokenizer is not two tokens")
}

/// Whether the token `bos` is put before every text.
fn begins_with(file: &Value, bos: &str) -> bool {
    let processor = &file["post_processor"];
    let steps = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    steps.iter().any(|step| step["single"][0]["SpecialToken"]["id"] == bos)
}

#[cfg(test)]
mod tests {
    use super::super::tests::small;
    use super::*;
    use crate::tokenizer::tests::texts;
    use crate::tokenizer::{Kind, TrainSpec, train};

    #[test]
    fn what_a_file_said_is_said_again() {
        for (pre, add_bos) in [("gpt-2", false), ("smollm", false), ("llama-bpe", true), ("qwen2", false)] {
            let dir = tempfile::tempdir().unwrap();
            let mut expected = Vocabulary { add_bos, ..small(pre) };
            expected.export(dir.path(), 128).unwrap();
            let rows = expected.tokens.len();
            // A row without text has lost its name.
            expected.tokens[rows - 1] = format!("[PAD{}]", rows - 1);
            assert_eq!(Vocabulary::of_folder(dir.path(), rows).unwrap(), expected, "{pre}");
            let more = Vocabulary::of_folder(dir.path(), rows + 2).unwrap();
            assert_eq!((more.tokens.len(), more.types[rows + 1]), (rows + 2, UNUSED), "{pre}");
            let error = Vocabulary::of_folder(dir.path(), rows - 3).unwrap_err().to_string();
            assert!(error.contains(&format!("{} rows", rows - 3)), "{error}");
        }
    }

    #[test]
    fn a_tokenizer_made_here_comes_back() {
        let make =
            |kind| train(&TrainSpec { kind, vocab_size: 300, ..TrainSpec::default() }, texts().into_iter().map(Ok)).unwrap();
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let made = make(Kind::Bpe);
        made.export(first.path(), 64).unwrap();
        let vocabulary = Vocabulary::of_folder(first.path(), made.vocab_size()).unwrap();
        assert_eq!(vocabulary.pre, OWN);
        vocabulary.export(second.path(), 64).unwrap();
        let read = Tokenizer::load(second.path()).unwrap();
        for text in texts() {
            assert_eq!(read.encode(&text).unwrap(), made.encode(&text).unwrap(), "{text:?}");
        }
        make(Kind::Unigram).export(first.path(), 64).unwrap();
        let error = Vocabulary::of_folder(first.path(), 300).unwrap_err().to_string();
        assert!(error.contains("Unigram"), "{error}");
    }
}
