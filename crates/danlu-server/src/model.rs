use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use burn::tensor::Device;
use danlu_data::chat::Template;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::serve::Options;
use danlu_models::{Backbone, BackboneConfig, folder};

use crate::embedder::{Embedder, Reader};
use crate::writer::Writer;

/// A model that is served: a decoder writes and embeds, an encoder embeds.
pub struct Model {
    /// What clients call it.
    pub id: String,
    /// Another name it answers to.
    pub alias: Option<String>,
    pub(crate) writer: Option<Arc<Writer>>,
    pub(crate) embedder: Arc<Embedder>,
}

impl Model {
    /// Loads the model in `folder`.
    ///
    /// # Errors
    /// When it cannot be read, or not be served.
    pub fn load(id: &str, alias: Option<String>, folder: &Path, options: Options) -> Result<Self> {
        let device = Device::flex();
        let tokenizer = Tokenizer::load(folder)?;
        let (queue, config) = (options.queue, folder::load_backbone_config(folder)?);
        let (backbone, reader, writer) = match config {
            BackboneConfig::Bert(_) => {
                let backbone = Backbone::Bert(folder::load_bert(folder, &device)?.0);
                (backbone, Reader::framed(tokenizer)?, None)
            }
            BackboneConfig::Decoder(_) => {
                let (decoder, config) = folder::load_to_run(folder, &device)?;
                // A clone shares the weights.
                let backbone = Backbone::Decoder(decoder.clone());
                let writer = Writer::new(id, decoder, &config, tokenizer, Template::of_folder(folder)?, options)?;
                let writer = Arc::new(writer);
                (backbone, Reader::Begun(writer.clone()), Some(writer))
            }
        };
        let embedder = Embedder::new(folder, backbone, config, reader, queue)?;
        Ok(Self { id: id.to_owned(), alias, writer, embedder: Arc::new(embedder) })
    }

    /// Whether clients mean this model by `name`.
    pub fn is_called(&self, name: &str) -> bool {
        self.id == name || self.alias.as_deref() == Some(name)
    }

    /// The longest text, prompt and answer together, in tokens.
    pub fn context(&self) -> usize {
        self.embedder.context()
    }

    /// Whether it still answers.
    pub(crate) fn is_alive(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.engine.is_alive())
    }
}
