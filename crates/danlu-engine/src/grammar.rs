//! Text that must match a JSON schema or a regular expression: tokens that would leave it are not drawn
//! (Willard & Louf 2023, <https://arxiv.org/abs/2307.09702>), by the `llguidance` library.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use danlu_data::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory, panic_utils};

/// Makes [`Grammar`]s for one tokenizer.
pub struct Grammars {
    factory: ParserFactory,
    tokens: TokEnv,
}

/// A grammar, and how much of a text it has seen. A clone begins where it stands.
#[derive(Clone)]
pub struct Grammar {
    matcher: Matcher,
}

impl Grammars {
    /// `ends` are the tokens that end a text, allowed where the grammar may end. `vocabulary` is the model's, at least the tokenizer's.
    ///
    /// # Errors
    /// When it cannot be told which bytes the tokenizer's tokens stand for: it is neither byte-level nor with byte fallback.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32], vocabulary: usize) -> Result<Self> {
        let tokens = tokens(tokenizer, ends, vocabulary)
            .context("text cannot be held to a grammar with this model, since the bytes of its tokens are not known")?;
        let mut factory = ParserFactory::new_simple(&tokens)?;
        factory.quiet();
        Ok(Self { factory, tokens })
    }

    /// JSON that the schema allows, on one line: where more white space is allowed, small models write it without end.
    ///
    /// # Errors
    /// When the schema is not one, or uses what is not supported; the message says what.
    pub fn json_schema(&self, mut schema: serde_json::Value) -> Result<Grammar> {
        if schema.is_object() {
            let (item_separator, key_separator) = (", ".to_owned(), ": ".to_owned());
            let options = JsonCompileOptions { item_separator, key_separator, whitespace_flexible: false, ..Default::default() };
            options.apply_to(&mut schema);
        }
        self.grammar(TopLevelGrammar::from_json_schema(schema))
    }

    /// Text that the regular expression matches as a whole.
    ///
    /// # Errors
    /// When it is not one.
    pub fn regex(&self, pattern: &str) -> Result<Grammar> {
        self.grammar(TopLevelGrammar::from_regex(pattern))
    }

    /// The bytes that a token stands for; none for special tokens.
    pub fn bytes(&self, token: u32) -> Option<&[u8]> {
        let trie = self.tokens.tok_trie();
        ((token as usize) < trie.vocab_size() && !trie.is_special_token(token)).then(|| trie.token(token))
    }

    fn grammar(&self, grammar: TopLevelGrammar) -> Result<Grammar> {
        // Grammars come from outside, and the library takes some things for granted about them.
        let make = std::panic::AssertUnwindSafe(|| self.factory.create_parser(grammar));
        let matcher = Matcher::new(panic_utils::catch_unwind(make));
        match matcher.get_error() {
            Some(error) => Err(anyhow!(error)),
            None => Ok(Grammar { matcher }),
        }
    }
}

impl Grammar {
    /// Makes every token that may not follow impossible.
    ///
    /// # Errors
    /// When the grammar's limits are passed, or nothing may follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        let allowed: SimpleVob = self.matcher.compute_mask_or_eos()?;
        ensure!(!allowed.is_zero(), "no token may follow what has been written");
        for (word, logits) in allowed.as_slice().iter().zip(logits.chunks_mut(u32::BITS as usize)) {
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// When it may not follow.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        self.matcher.consume_token(token)
    }

    /// Whether nothing can follow.
    pub fn is_done(&self) -> bool {
        self.matcher.is_stopped()
    }
}

/// The tokenizer as the library knows one.
struct Tokens {
    trie: TokTrie,
    tokenizer: Tokenizer,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| self.tokenizer.encode(text).unwrap_or_default())
    }

    /// No token is taken because it is the only one that tokenizing would give: models also write others.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

fn tokens(tokenizer: &Tokenizer, ends: &[u32], vocabulary: usize) -> Result<TokEnv> {
    let json = serde_json::from_str(&tokenizer.to_json()?)?;
    let tokenizer = tokenizer.clone();
    let ends = ends.to_vec();
    // The library takes some things for granted about a file that comes from elsewhere.
    panic_utils::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let mut bytes = llguidance::token_bytes_from_tokenizer_json(&json)?;
        bytes.resize(bytes.len().max(vocabulary), vec![]);
        let end = *ends.first().context("the model has no token that ends a text")?;
        let trie = TokTrie::from(&TokRxInfo::new(bytes.len() as u32, end), &bytes).with_eos_tokens(&ends);
        let tokens: TokEnv = Arc::new(Tokens { trie, tokenizer });
        Ok(tokens)
    }))
}
