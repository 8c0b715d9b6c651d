//! Safetensors in.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{shape_in_file, transpose};
use crate::names::first_few;
use crate::{gpt2, names};

/// An index names every tensor of a model once; what is larger is something else.
const INDEX_LIMIT: u64 = 256 << 20;

/// The tensors of a folder, mapped into memory and not yet read.
pub(crate) struct Weights {
    files: Vec<Mapped>,
    /// Which file holds a tensor, and where.
    places: HashMap<String, (usize, TensorInfo)>,
    /// What the files say about themselves.
    pub(crate) metadata: HashMap<String, String>,
}

struct Mapped {
    path: PathBuf,
    map: Mmap,
    /// Where the tensors' bytes begin: after the header and its length.
    data: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let index = dir.join("model.safetensors.index.json");
        let paths = if index.exists() { shards(dir, &index)? } else { vec![dir.join("model.safetensors")] };
        Self::open_files(&paths)
    }

    pub(crate) fn open_files(paths: &[PathBuf]) -> Result<Self> {
        let mut weights = Self { files: vec![], places: HashMap::new(), metadata: HashMap::new() };
        for path in paths {
            weights.add(path).with_context(|| format!("cannot read the weights in {}", path.display()))?;
        }
        Ok(weights)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Those whose names are `wanted`, as if the others were not there.
    pub(crate) fn only(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.places.retain(|name, _| wanted(name));
        self
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path)?;
        // SAFETY: the map is only read. A file that another process shortens meanwhile ends this one with a bus error, as with every
        // memory map; danlu replaces its own files and never shortens them.
        let map = unsafe { Mmap::map(&file) }?;
        // This checks that shapes, types and offsets agree, that tensors do not overlap, and that they fill the file exactly.
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .with_context(|| format!("the file of {} bytes is damaged or not safetensors", map.len()))?;
        self.metadata.extend(metadata.metadata().clone().unwrap_or_default());
        for (name, info) in metadata.tensors() {
            let name = of_field(name);
            let place = (self.files.len(), info.clone());
            ensure!(self.places.insert(name.clone(), place).is_none(), "the tensor {name} is there twice");
        }
        self.files.push(Mapped { path: path.to_path_buf(), data: size_of::<u64>() + header, map });
        Ok(())
    }

    /// Checks that the files hold exactly the model's tensors, in its shapes.
    pub(crate) fn check(&self, wanted: &[(String, Vec<usize>)], tied: bool) -> Result<()> {
        let missing = wanted.iter().filter(|(name, _)| !self.places.contains_key(name)).map(|(name, _)| name.clone());
        let missing: Vec<String> = missing.collect();
        let known: HashMap<&str, &[usize]> = wanted.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let unexpected = self.places.keys().filter(|name| !known.contains_key(name.as_str()) && !ignored(name, tied)).cloned();
        let unexpected: Vec<String> = unexpected.collect();
        ensure!(
            missing.is_empty() && unexpected.is_empty(),
            "the weights are not of the model that the configuration describes: {} missing ({}), {} unexpected ({})",
            missing.len(),
            first_few(missing),
            unexpected.len(),
            first_few(unexpected)
        );
        for (name, shape) in wanted {
            let (file, info) = &self.places[name];
            let expected = shape_in_file(name, shape);
            ensure!(
                info.shape == expected,
                "{name} in {} has the shape {:?}; the model makes it {expected:?}",
                self.files[*file].path.display(),
                info.shape
            );
            ensure!(
                matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F64),
                "{name} in {} is of type {}; f32, bf16, f16 and f64 are read",
                self.files[*file].path.display(),
                info.dtype
            );
        }
        Ok(())
    }

    /// A module with the values of its tensors, which must be exactly those of the files.
    pub(crate) fn fill<M: Module>(&self, module: M, tied: bool) -> Result<M> {
        self.check(&names::names_and_shapes(&module), tied)?;
        names::fill(module, |name, shape| self.values(name, shape))
    }

    /// A tensor's values in the model's layout. The tensor has been found right by [`Weights::check`].
    pub(crate) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (file, info) = self.places.get(name).with_context(|| format!("{name} is missing"))?;
        let file = &self.files[*file];
        let bytes = file.data + info.data_offsets.0..file.data + info.data_offsets.1;
        let bytes = file.map.get(bytes).with_context(|| format!("{name} lies outside {}", file.path.display()))?;
        let values = match info.dtype {
            Dtype::F32 => decode(bytes, f32::from_le_bytes),
            Dtype::BF16 => decode(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => decode(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::F64 => decode(bytes, |b| f64::from_le_bytes(b) as f32),
            other => bail!("{name} is of type {other}"),
        };
        Ok(match shape {
            [out, _] if gpt2::transposed_in_files(name) => transpose(&values, *out),
            _ => values,
        })
    }
}

fn decode<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

/// The files an index names, each once. They must lie in the folder itself.
fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let text = danlu_files::read_text_bounded(index, INDEX_LIMIT)?;
    let parsed: Index = serde_json::from_str(&text).with_context(|| format!("{} is not an index of shards", index.display()))?;
    let mut names: Vec<&String> = parsed.weight_map.values().collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let plain = Path::new(name).file_name().is_some_and(|file| file == name.as_str());
            ensure!(plain, "{} names {name:?}, which is not a file in the same folder", index.display());
            Ok(dir.join(name))
        })
        .collect()
}

/// The name that a model's field has. Bare models leave out the first part of a name: GPT-2's own files, encoders without a head. And
/// `transformers` 5 saves the layers of a masked autoencoder's decoder as none of its versions calls them, since its rule that makes
/// `encoder.layer.` of `layers.` also meets `decoder_layers.`; it reads both names, and published weights have the field's.
fn of_field(name: String) -> String {
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    if let Some(layer) = name.strip_prefix("decoder.decoder_encoder.layer.") {
        format!("decoder.decoder_layers.{layer}")
    } else if begins(&["wte.", "wpe.", "h.", "ln_f."]) {
        format!("transformer.{name}")
    } else if begins(&["embeddings.", "encoder.", "pooler."]) {
        format!("bert.{name}")
    } else {
        name
    }
}

/// Tensors that older versions of `transformers` saved and that are no parameters: causal masks, positions, rope's frequencies, a tied
/// output projection a second time, as Marian's embedding a third and its bias, which is zero; and BERT's guess whether two sentences follow
/// each other, which nothing here uses.
fn ignored(name: &str, tied: bool) -> bool {
    let copies = [
        "lm_head.weight",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
        "final_logits_bias",
    ];
    let ends = [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", ".position_ids", ".embed_positions.weight"];
    (tied && copies.contains(&name)) || name.starts_with("cls.seq_relationship.") || ends.iter().any(|end| name.ends_with(end))
}
