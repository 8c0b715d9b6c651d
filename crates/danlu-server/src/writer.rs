use std::sync::OnceLock;

use anyhow::{Context, Result};
use danlu_data::chat::{Encoder, Template};
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::serve::{Engine, Options};
use danlu_engine::{Generator, Grammars};
use danlu_models::{Decoder, DecoderConfig};

use crate::api::tools::CallForm;

/// A model that writes: its engine, and what turns requests into tokens.
pub struct Writer {
    /// What clients call the model.
    pub id: String,
    pub engine: Engine,
    generator: Generator,
    /// Or why it cannot talk.
    talker: Result<Talker, String>,
    grammars: OnceLock<Result<Grammars, String>>,
}

/// What writes conversations for a model.
pub struct Talker {
    pub encoder: Encoder,
    /// How it calls tools.
    pub calls: CallForm,
}

impl Writer {
    /// # Errors
    /// When it cannot be served.
    pub fn new(
        id: &str,
        decoder: Decoder,
        config: &DecoderConfig,
        tokenizer: Tokenizer,
        template: Option<Template>,
        options: Options,
    ) -> Result<Self> {
        let talker = match template {
            Some(template) => {
                let calls = CallForm::of(&template);
                let encoder = Encoder::new(template, tokenizer.clone());
                encoder.map(|encoder| Talker { encoder, calls }).map_err(|error| format!("{error:#}"))
            }
            None => Err("it has no chat template".to_owned()),
        };
        let mut generator = Generator::new(decoder, tokenizer).with_config(config);
        if let Ok(talker) = &talker {
            generator = generator.with_end(talker.encoder.turn_end());
        }
        let engine = Engine::start(&generator, options).with_context(|| format!("{id} cannot be served"))?;
        Ok(Self { id: id.to_owned(), engine, generator, talker, grammars: OnceLock::new() })
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
    pub fn talker(&self) -> Result<&Talker, &str> {
        self.talker.as_ref().map_err(String::as_str)
    }

    /// What holds its texts to a grammar; made when first asked for.
    ///
    /// # Errors
    /// When its tokenizer does not tell which bytes its tokens are.
    pub fn grammars(&self) -> Result<&Grammars, &str> {
        let make = || {
            let vocabulary = self.generator.decoder().vocabulary();
            let tokenizer = self.generator.tokenizer();
            Grammars::new(tokenizer, self.generator.ends(), vocabulary).map_err(|error| format!("{error:#}"))
        };
        self.grammars.get_or_init(make).as_ref().map_err(String::as_str)
    }

    /// A token as text and bytes, for log-probabilities.
    pub fn token(&self, id: u32) -> (String, Vec<u8>) {
        let text = self.generator.tokenizer().decode(&[id]).unwrap_or_default();
        let bytes = self.grammars().ok().and_then(|grammars| grammars.bytes(id)).map(<[u8]>::to_vec);
        let bytes = bytes.unwrap_or_else(|| text.as_bytes().to_vec());
        (text, bytes)
    }
}
