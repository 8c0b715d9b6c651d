use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use burn::tensor::Device;
use danlu_data::chat::Template;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::serve::Options;
use danlu_models::{Backbone, BackboneConfig, Decoder, DecoderConfig, folder};

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
        // A small model's tokenizer takes as long as its weights.
        let (tokenizer, weights) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::load(folder));
            let weights = weights(folder);
            (tokenizer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), weights)
        });
        let (tokenizer, queue) = (tokenizer?, options.queue);
        let (backbone, config, decoder) = weights?;
        let (reader, writer) = match decoder {
            None => (Reader::framed(tokenizer)?, None),
            Some((decoder, config)) => {
                let writer = Writer::new(id, decoder, &config, tokenizer, Template::of_folder(folder)?, options)?;
                let writer = Arc::new(writer);
                (Reader::Begun(writer.clone()), Some(writer))
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

/// What embeds, and of a decoder also what writes; they share the weights.
type Loaded = (Backbone, BackboneConfig, Option<(Decoder, DecoderConfig)>);

fn weights(folder: &Path) -> Result<Loaded> {
    let device = Device::flex();
    let config = folder::load_backbone_config(folder)?;
    Ok(match config {
        BackboneConfig::Bert(_) => (Backbone::Bert(folder::load_bert(folder, &device)?.0), config, None),
        BackboneConfig::Decoder(_) => {
            let (decoder, of_decoder) = folder::load_to_run(folder, &device)?;
            (Backbone::Decoder(decoder.clone()), config, Some((decoder, of_decoder)))
        }
    })
}
