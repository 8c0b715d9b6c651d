//! Safetensors out.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use burn::module::Module;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;
use serde_json::json;

use super::{shape_in_file, transpose, write_json};
use crate::{gpt2, names};

/// How weights are written.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    pub precision: Precision,
    /// Bytes of tensors in one file; a model that is larger is written as several and an index. A single larger tensor is a file.
    pub max_shard_bytes: u64,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, max_shard_bytes: 5_000_000_000 }
    }
}

/// The type of the numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    pub(super) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        }
    }
}

/// The tensors of one file, in the order of the module's fields.
#[derive(Default)]
struct Shard {
    tensors: Vec<(String, TensorInfo)>,
    bytes: usize,
}

/// Writes the weights as `model.safetensors`, or as shards and an index. One tensor is in memory at a time.
pub(super) fn weights(module: &impl Module, dir: &Path, options: &SaveOptions) -> Result<()> {
    let shards = divide(&names::names_and_shapes(module), options);
    let index = dir.join("model.safetensors.index.json");
    let file_name = |number: usize| match shards.len() {
        1 => "model.safetensors".to_string(),
        count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    for (number, shard) in shards.iter().enumerate() {
        let path = dir.join(file_name(number));
        danlu_files::write_atomic(&path, |file| write_shard(module, shard, options.precision, file))?;
    }
    if let [_] = shards.as_slice() {
        // An index left from an earlier model would be believed before the file just written.
        return match std::fs::remove_file(&index) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| index.display().to_string()),
            _ => Ok(()),
        };
    }
    let map: BTreeMap<&str, String> = shards
        .iter()
        .enumerate()
        .flat_map(|(number, shard)| shard.tensors.iter().map(move |(name, _)| (name.as_str(), number)))
        .map(|(name, number)| (name, file_name(number)))
        .collect();
    let total: usize = shards.iter().map(|shard| shard.bytes).sum();
    write_json(&index, &json!({"metadata": {"total_size": total}, "weight_map": map}))
}

fn divide(tensors: &[(String, Vec<usize>)], options: &SaveOptions) -> Vec<Shard> {
    let mut shards = vec![Shard::default()];
    for (name, shape) in tensors {
        let bytes = shape.iter().product::<usize>() * options.precision.bytes();
        let last = shards.len() - 1;
        if shards[last].bytes > 0 && (shards[last].bytes + bytes) as u64 > options.max_shard_bytes {
            shards.push(Shard::default());
        }
        let Some(shard) = shards.last_mut() else { continue };
        let data_offsets = (shard.bytes, shard.bytes + bytes);
        shard.bytes += bytes;
        let info = TensorInfo { dtype: options.precision.dtype(), shape: shape_in_file(name, shape), data_offsets };
        shard.tensors.push((name.clone(), info));
    }
    shards
}

/// What stands before the tensors of a file: its own length, `about` the file, and where the tensors are. The same of both gives the same
/// bytes, which safetensors' own way does not, since it walks a hash map.
pub(crate) fn header(mut about: BTreeMap<&str, &str>, tensors: Vec<(String, TensorInfo)>) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Header<'a> {
        #[serde(rename = "__metadata__")]
        about: BTreeMap<&'a str, &'a str>,
        #[serde(flatten)]
        tensors: Metadata,
    }
    // `transformers` asks for this key.
    about.insert("format", "pt");
    let mut header = serde_json::to_vec(&Header { about, tensors: Metadata::new(None, tensors)? })?;
    // The tensors begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    Ok(bytes)
}

fn write_shard(module: &impl Module, shard: &Shard, precision: Precision, file: &mut impl Write) -> Result<()> {
    file.write_all(&header(BTreeMap::new(), shard.tensors.clone())?)?;
    let here: HashMap<&str, &TensorInfo> = shard.tensors.iter().map(|(name, info)| (name.as_str(), info)).collect();
    names::for_each(module, |name, values| {
        let Some(info) = here.get(name) else { return Ok(()) };
        let values = values.convert::<f32>().try_into_vec::<f32>();
        let values = values.map_err(|error| anyhow::anyhow!("{name} cannot be read as 32-bit floats: {error:?}"))?;
        let bytes = match info.shape[..] {
            [inp, _] if gpt2::transposed_in_files(name) => precision.encode(&transpose(&values, inp)),
            _ => precision.encode(&values),
        };
        Ok(file.write_all(&bytes)?)
    })
}
