//! Tokenizers out of GGUF files, and for them: tokens, merges and the name of a way to split text, put together as a `tokenizer.json`.

mod folder;

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::Tokenizer;
use super::split::SPLIT;

/// How GPT-2 splits text, which `ByteLevel` does with `use_regex`: nothing else is needed before it.
const GPT2: &[&str] = &["gpt2", "gpt-2", "mpt", "olmo", "phi-2", "jina-es", "jina-de", "gigachat", "trillion", "modern-bert"];
/// The same, each digit apart first.
const DIGITS: &[&str] = &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"];
/// As GPT-4; digits in groups of up to three.
const LLAMA3: &[&str] = &["llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe", "falcon3", "pixtral"];
/// As GPT-4; each digit apart.
const QWEN2: &[&str] = &["qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan"];

/// As the tokenizers that are trained here. llama.cpp has no name for it and refuses the file, which is better than other tokens.
const OWN: &str = "danlu";

/// Words of letters and of digits, with `{}` for how many digits stay together.
const GPT4: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a GGUF file says of its tokenizer (`tokenizer.ggml.…`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// `gpt2` for byte-level BPE.
    pub model: String,
    /// How text is split before merging, by llama.cpp's name for it.
    pub pre: String,
    /// Spelt in the letters that stand for bytes; a token's place is its id.
    pub tokens: Vec<String>,
    /// For each token 1 normal, 2 unknown, 3 control, 4 defined by the user, 5 unused, 6 a byte. Empty when all are normal.
    pub types: Vec<i32>,
    /// Two tokens with a space between, most urgent first.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    /// Every text begins with `bos`.
    pub add_bos: bool,
    /// A Jinja template that writes a conversation as text.
    pub chat_template: Option<String>,
}

impl Vocabulary {
    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and, when there is one, `chat_template.jinja` into a
    /// model's folder, as `transformers` reads them. `context` is the longest sequence the model takes, in tokens.
    ///
    /// # Errors
    /// When the vocabulary does not hold together, or splits text in a way that is not known here.
    pub fn export(&self, folder: &Path, context: usize) -> Result<()> {
        let end = self.named("eos", self.eos)?;
        let tokenizer =
            Tokenizer::from_json(&serde_json::to_vec(&self.file()?)?, end).context("the file's tokenizer is not usable")?;
        tokenizer.save(&folder.join("tokenizer.json"))?;
        let mut special = Map::new();
        for (key, id) in [("bos", self.bos), ("eos", self.eos), ("unk", self.unknown), ("pad", self.padding)] {
            if let Some(token) = self.named(key, id)? {
                special.insert(format!("{key}_token"), json!(token));
            }
        }
        let mut config = special.clone();
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        config.insert("model_max_length".into(), json!(context));
        config.insert("clean_up_tokenization_spaces".into(), json!(false));
        config.insert("add_prefix_space".into(), json!(false));
        for (name, value) in [("tokenizer_config.json", config), ("special_tokens_map.json", special)] {
            danlu_files::write_atomic_bytes(&folder.join(name), serde_json::to_string_pretty(&Value::Object(value))?.as_bytes())?;
        }
        match &self.chat_template {
            Some(template) => danlu_files::write_atomic_bytes(&folder.join("chat_template.jinja"), template.as_bytes()),
            None => Ok(()),
        }
    }

    /// Whether llama.cpp has a name for how it splits text.
    pub fn has_name(&self) -> bool {
        self.pre != OWN
    }

    /// A whole `tokenizer.json`.
    fn file(&self) -> Result<Value> {
        ensure!(
            self.model == "gpt2",
            "the tokenizer is of the kind \"{}\" (tokenizer.ggml.model); byte-level BPE, \"gpt2\", is read here",
            self.model
        );
        ensure!(
            self.types.is_empty() || self.types.len() == self.tokens.len(),
            "there are {} tokens and {} types of tokens",
            self.tokens.len(),
            self.types.len()
        );
        let byte_level =
            |use_regex| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let by = |expression: &str| {
            let split = json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false });
            json!({ "type": "Sequence", "pretokenizers": [split, byte_level(false)] })
        };
        let pre = self.pre.as_str();
        let pre_tokenizer = if GPT2.contains(&pre) {
            byte_level(true)
        } else if DIGITS.contains(&pre) {
            json!({ "type": "Sequence", "pretokenizers": [{ "type": "Digits", "individual_digits": true }, byte_level(true)] })
        } else if LLAMA3.contains(&pre) {
            by(&GPT4.replace("{}", "{1,3}"))
        } else if QWEN2.contains(&pre) {
            by(&GPT4.replace("{}", ""))
        } else if pre == OWN {
            by(SPLIT)
        } else {
            bail!(
                "the tokenizer splits text as \"{pre}\" (tokenizer.ggml.pre), which is not known here; known are {}",
                [GPT2, DIGITS, LLAMA3, QWEN2].concat().join(", ")
            );
        };
        let mut vocab = Map::new();
        let mut added = vec![];
        for (id, token) in self.tokens.iter().enumerate() {
            let kind = self.types.get(id).copied().unwrap_or(NORMAL);
            // Rows that only fill the embedding up have names and no text.
            if kind == UNUSED {
                continue;
            }
            ensure!(!token.is_empty(), "the token {id} is empty");
            ensure!(vocab.insert(token.clone(), json!(id)).is_none(), "the token {token:?} is there twice");
            if kind != NORMAL {
                added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                    "special": kind != USER_DEFINED,
                }));
            }
        }
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": self.begins()?,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                // Vocabularies made with GPT-4's tools take a word that is a token whole, whatever its merges say.
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": LLAMA3.contains(&pre),
                "merges": self.merges(&vocab)?, "vocab": vocab,
            },
        }))
    }

    fn merges(&self, vocab: &Map<String, Value>) -> Result<Vec<Value>> {
        let mut seen = HashSet::new();
        let mut merges = vec![];
        for (rank, merge) in self.merges.iter().enumerate() {
            // A space can be the first character of a token and no other.
            let space = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let (a, b) = space
                .map(|at| (&merge[..at], &merge[at + 1..]))
                .with_context(|| format!("merge {rank} is {merge:?}, not two tokens"))?;
            for token in [a, b, &format!("{a}{b}")] {
                ensure!(vocab.contains_key(token), "merge {rank} is {merge:?}, and {token:?} is no token");
            }
            if seen.insert(merge) {
                merges.push(json!([a, b]));
            }
        }
        Ok(merges)
    }

    /// What puts `bos` before a text, for those who ask for special tokens.
    fn begins(&self) -> Result<Value> {
        let Some(bos) = self.named("bos", self.bos)?.filter(|_| self.add_bos) else { return Ok(Value::Null) };
        let begin = json!({ "SpecialToken": { "id": bos, "type_id": 0 } });
        let text = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
        Ok(json!({
            "type": "TemplateProcessing", "single": [begin, text("A")], "pair": [begin, text("A"), begin, text("B")],
            "special_tokens": { bos: { "id": bos, "ids": [self.bos], "tokens": [bos] } },
        }))
    }

    fn named(&self, what: &str, id: Option<u32>) -> Result<Option<&str>> {
        let Some(id) = id else { return Ok(None) };
        let token = self.tokens.get(id as usize);
        Ok(Some(token.with_context(|| format!("the {what} token is {id}, and there are {} tokens", self.tokens.len()))?))
    }
}

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::texts;

    /// The bytes' letters, a few words and two special tokens.
    pub(super) fn small(pre: &str) -> Vocabulary {
        let mut tokens: Vec<String> = super::super::train::byte_alphabet();
        let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello", "1 2", "12 3"];
        tokens.extend(merges.map(|merge| merge.replace(' ', "")));
        tokens.extend(["<s>", "</s>", "<tool>", "[PAD0]"].map(str::to_string));
        let mut types = vec![1; tokens.len() - 4];
        types.extend([3, 3, 4, 5]);
        let id = |name: &str| tokens.iter().position(|token| token == name).map(|id| id as u32);
        let (bos, eos) = (id("<s>"), id("</s>"));
        Vocabulary {
            model: "gpt2".into(),
            pre: pre.into(),
            tokens,
            types,
            merges: merges.map(str::to_string).to_vec(),
            bos,
            eos,
            chat_template: Some("{{ messages }}".into()),
            ..Vocabulary::default()
        }
    }

    #[test]
    fn text_is_split_as_the_name_says_and_comes_back() {
        // Words, and numbers whole, by digit, or in groups.
        for (pre, expected) in [("gpt-2", 2), ("smollm", 4), ("llama-bpe", 2), ("qwen2", 4)] {
            let dir = tempfile::tempdir().unwrap();
            small(pre).export(dir.path(), 128).unwrap();
            let tokenizer = Tokenizer::load(dir.path()).unwrap();
            assert_eq!(tokenizer.encode("hello123").unwrap().len(), expected, "{pre}");
            for text in texts().iter().take(3) {
                assert_eq!(&tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text, "{pre}");
            }
            assert_eq!(tokenizer.id_to_token(tokenizer.end_of_text()).as_deref(), Some("</s>"));
            assert_eq!(tokenizer.token_to_id("[PAD0]"), None);
            assert_eq!(tokenizer.encode_with_special("<s>hello<tool>").unwrap().len(), 3);
            assert_eq!(std::fs::read_to_string(dir.path().join("chat_template.jinja")).unwrap(), "{{ messages }}");
        }
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        fn check(change: impl FnOnce(&mut Vocabulary), expected: &str) {
            let mut vocabulary = small("gpt-2");
            change(&mut vocabulary);
            let error = vocabulary.export(tempfile::tempdir().unwrap().path(), 128).unwrap_err();
            let message = format!("{error:#}");
            assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        }
        check(|v| v.model = "llama".into(), "of the kind \"llama\"");
        check(|v| v.pre = "tekken".into(), "\"tekken\"");
        check(|v| v.tokens[3] = v.tokens[4].clone(), "twice");
        check(|v| v.types.truncate(3), "3 types");
        check(|v| v.merges[2] = "hell".into(), "not two tokens");
        check(|v| v.merges[2] = "q x".into(), "\"qx\" is no token");
        check(|v| v.eos = Some(100_000), "the eos token is 100000");
        check(|v| v.tokens[7].clear(), "empty");
    }
}
