//! GGUF, the file of llama.cpp: metadata, tokenizer and weights in one, the weights often in blocks of four or eight bits
//! ([specification](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)).
//!
//! [`Gguf::open`] checks a whole file before anything in it is believed; [`load`] makes a decoder of it with the weights as 32-bit
//! floats, and [`decoder_in_blocks`] one that runs on the blocks.

mod config;
mod cursor;
mod header;
mod load;
mod names;
mod tensor;
mod value;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use danlu_ops::quantized::Format;
use memmap2::Mmap;

pub use config::config;
pub use header::Header;
pub use load::{decoder, decoder_in_blocks, load};
pub use tensor::QuantizedTensor;
pub use value::{Array, Value};
pub use write::{Entry, save};

/// A GGUF file, mapped into memory. Its header has been checked; its weights have not been read.
#[derive(Clone, Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Arc<Mmap>,
    header: Header,
}

impl Gguf {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// Names the file, and says what is wrong with it and at which byte; see [`Header::parse`].
    pub fn open(path: &Path) -> Result<Self> {
        let read = || {
            let file = File::open(path)?;
            ensure!(file.metadata()?.is_file(), "it is no file");
            // SAFETY: the map is only read. A file that another process shortens meanwhile ends this one with a bus error, as with every
            // memory map; danlu replaces its own files and never shortens them.
            let map = unsafe { Mmap::map(&file) }?;
            let header = Header::parse(&map)?;
            Ok(Self { path: path.to_path_buf(), map: Arc::new(map), header })
        };
        let gguf: Self = read().map_err(|error: anyhow::Error| error.context(format!("cannot read {}", path.display())))?;
        if let Some(parts) = gguf.get("split.count").and_then(Value::as_u64).filter(|parts| *parts > 1) {
            bail!(
                "{} is one of {parts} parts of a model; put them together with llama.cpp's llama-gguf-split --merge",
                path.display()
            );
        }
        Ok(gguf)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// A value of the metadata.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.header.get(&self.map, key)
    }

    /// A value of the metadata, for another file to say the same.
    pub fn entry(&self, key: &str) -> Option<Entry> {
        let (kind, bytes) = self.header.bytes_of(&self.map, key)?;
        Some(Entry::Copied { kind, bytes: bytes.to_vec() })
    }

    /// The tensors' names, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// A tensor's shape, outermost dimension first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.tensors.get(name).map(|place| place.shape.as_slice())
    }

    /// A tensor as it lies in the file.
    ///
    /// # Errors
    /// When there is none of that name, or it is of a type that is not read.
    pub fn tensor(&self, name: &str) -> Result<QuantizedTensor> {
        let place = self.header.tensors.get(name).with_context(|| format!("{} has no tensor {name}", self.path.display()))?;
        let format = place.layout.format.with_context(|| {
            format!(
                "the tensor {name} is of the type {}; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K are read",
                place.layout.name
            )
        })?;
        Ok(QuantizedTensor::mapped(format, place.shape.clone(), self.map.clone(), place.start..place.start + place.bytes))
    }

    /// Whether weights are in blocks that can be multiplied as they are.
    pub fn has_blocks(&self) -> bool {
        self.header.tensors.values().any(|place| place.layout.format.is_some_and(Format::has_products))
    }

    /// The types of the matrices, with how many of their values are of each, the most frequent first.
    pub fn types(&self) -> Vec<(&'static str, usize)> {
        let mut values = std::collections::BTreeMap::<&str, usize>::new();
        for place in self.header.tensors.values().filter(|place| place.shape.len() > 1) {
            *values.entry(place.layout.name).or_default() += place.shape.iter().product::<usize>();
        }
        let mut types: Vec<_> = values.into_iter().collect();
        types.sort_by_key(|(name, values)| (std::cmp::Reverse(*values), *name));
        types
    }

    /// The type of most of the weights, as people name the file by it.
    pub fn main_type(&self) -> &'static str {
        self.types().first().map_or("nothing", |(name, _)| name)
    }
}
