use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_data::chat::{Encoder, Template};
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::serve::{Engine, Options};
use danlu_engine::{Generator, Grammars};

/// A model that is served: its engine, and what turns requests into tokens.
pub struct Model {
    /// What clients call it.
    pub id: String,
    /// Another name it answers to.
    pub alias: Option<String>,
    pub engine: Engine,
    generator: Generator,
    /// Or why it cannot talk.
    encoder: Result<Encoder, String>,
    grammars: OnceLock<Result<Grammars, String>>,
}

impl Model {
    /// Loads the model in `folder`.
    ///
    /// # Errors
    /// When it cannot be read, or not be served.
    pub fn load(id: &str, alias: Option<String>, folder: &Path, options: Options) -> Result<Self> {
        let (decoder, config) = danlu_models::folder::load(folder, &Device::flex())?;
        let tokenizer = Tokenizer::load(folder)?;
        let encoder = match Template::of_folder(folder)? {
            Some(template) => Encoder::new(template, tokenizer.clone()).map_err(|error| format!("{error:#}")),
            None => Err("it has no chat template".to_owned()),
        };
        let mut generator = Generator::new(decoder, tokenizer).with_config(&config);
        if let Ok(encoder) = &encoder {
            generator = generator.with_end(encoder.turn_end());
        }
        let engine = Engine::start(&generator, options).with_context(|| format!("{id} cannot be served"))?;
        Ok(Self { id: id.to_owned(), alias, engine, generator, encoder, grammars: OnceLock::new() })
    }

    /// Whether clients mean this model by `name`.
    pub fn is_called(&self, name: &str) -> bool {
        self.id == name || self.alias.as_deref() == Some(name)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        self.generator.tokenizer()
    }

    /// The tokens of a text to go on with.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.generator.encode(text)
    }

    /// What writes conversations for it.
    ///
    /// # Errors
    /// Why it cannot talk.
    pub fn encoder(&self) -> Result<&Encoder, &str> {
        self.encoder.as_ref().map_err(String::as_str)
    }

    /// What holds its texts to a grammar; made when first asked for.
    ///
    /// # Errors
    /// When its tokenizer does not tell which bytes its tokens are.
    pub fn grammars(&self) -> Result<&Grammars, &str> {
        let make = || {
            let vocabulary = self.generator.decoder().head_weight().dims()[0];
            Grammars::new(self.tokenizer(), self.generator.ends(), vocabulary).map_err(|error| format!("{error:#}"))
        };
        self.grammars.get_or_init(make).as_ref().map_err(String::as_str)
    }

    /// A token as text and bytes, for log-probabilities.
    pub fn token(&self, id: u32) -> (String, Vec<u8>) {
        let text = self.tokenizer().decode(&[id]).unwrap_or_default();
        let bytes = self.grammars().ok().and_then(|grammars| grammars.bytes(id)).map(<[u8]>::to_vec);
        let bytes = bytes.unwrap_or_else(|| text.as_bytes().to_vec());
        (text, bytes)
    }
}
