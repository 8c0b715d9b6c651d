//! A decoder to a GGUF file.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use danlu_ops::quantized::{Format, quantize};

use super::{names as gguf_names, value};
use crate::{Decoder, DecoderConfig, RopeScaling, names};

const ALIGNMENT: usize = 32;

/// A value to be written into a file's metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    /// As another file has it ([`super::Gguf::entry`]).
    Copied {
        kind: u32,
        bytes: Vec<u8>,
    },
}

/// Writes the decoder as a GGUF file that llama.cpp loads. Matrices are written in `format`; where its blocks do not divide their rows as
/// Q8_0, or else as 16-bit floats; norms, biases and positions as 32-bit floats. `metadata` is what else the file is to say: its name, its
/// tokenizer.
///
/// # Errors
/// When weights are not held as floats, or the file cannot be written; what was there before is unchanged then.
pub fn save(decoder: &Decoder, config: &DecoderConfig, metadata: &[(String, Entry)], format: Format, path: &Path) -> Result<()> {
    ensure!(!decoder.is_quantized() && !decoder.is_adapted(), "a file is written from whole weights in floats");
    let mut tensors = vec![];
    if let Some(divisors) = rope_divisors(config) {
        tensors.push(Tensor { name: "rope_freqs.weight".into(), shape: vec![divisors.len()], format: Format::F32 });
    }
    for (name, shape) in names::names_and_shapes(decoder) {
        let theirs = gguf_names::in_gguf(&name).with_context(|| format!("GGUF has no name for {name}"))?;
        let format = stored(&theirs, &shape, format);
        tensors.push(Tensor { name: theirs, shape, format });
    }
    let mut head = vec![];
    let mut all = architecture(config);
    all.push(("general.file_type".into(), Entry::U32(file_type(format))));
    all.push(("general.quantization_version".into(), Entry::U32(2)));
    all.extend_from_slice(metadata);
    head.extend(b"GGUF");
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((all.len() as u64).to_le_bytes());
    for (key, entry) in &all {
        string(key, &mut head);
        entry.write(&mut head);
    }
    let mut offset = 0u64;
    for tensor in &tensors {
        string(&tensor.name, &mut head);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|size| head.extend((*size as u64).to_le_bytes()));
        head.extend(super::header::ggml_number(tensor.format).to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += tensor.bytes()?.next_multiple_of(ALIGNMENT) as u64;
    }
    danlu_files::write_atomic(path, |file| {
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        file.write_all(&head)?;
        if let (Some(divisors), Some(tensor)) = (rope_divisors(config), tensors.first()) {
            tensor.write(&divisors, file)?;
        }
        let rest = tensors.len() - names::names_and_shapes(decoder).len();
        let mut rest = tensors[rest..].iter();
        names::for_each(decoder, |name, values| {
            let tensor = rest.next().context("a parameter more than there were")?;
            let values = values.convert::<f32>().try_into_vec::<f32>();
            let mut values = values.map_err(|error| anyhow::anyhow!("{name} cannot be read as 32-bit floats: {error:?}"))?;
            if let (DecoderConfig::Llama(c), true) = (config, gguf_names::is_query_or_key(name)) {
                let rows: Vec<&[f32]> = values.chunks_exact(c.hidden_size).collect();
                values = (0..rows.len()).flat_map(|row| rows[gguf_names::row_from_gguf(row, c.head_dim)]).copied().collect();
            }
            tensor.write(&values, file)
        })
    })
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    format: Format,
}

impl Tensor {
    fn bytes(&self) -> Result<usize> {
        let columns = self.shape.last().copied().unwrap_or(1);
        let rows: usize = self.shape.iter().rev().skip(1).product();
        let row = self.format.row_bytes(columns).with_context(|| format!("{} has rows of {columns} values", self.name))?;
        Ok(row * rows)
    }

    fn write(&self, values: &[f32], file: &mut impl Write) -> Result<()> {
        let mut bytes = vec![];
        quantize(self.format, values, &mut bytes).with_context(|| format!("{} cannot be written so", self.name))?;
        ensure!(bytes.len() == self.bytes()?, "{} has another size than its shape", self.name);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        Ok(file.write_all(&bytes)?)
    }
}

/// What llama.cpp computes with in 32 bits is kept in 32 bits.
fn stored(name: &str, shape: &[usize], format: Format) -> Format {
    match shape {
        [_, columns] if name != "position_embd.weight" => {
            [format, Format::Q8_0].into_iter().find(|format| format.row_bytes(*columns).is_some()).unwrap_or(Format::F16)
        }
        _ => Format::F32,
    }
}

/// `general.file_type`, for people who look at the file.
fn file_type(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Q4_0 => 2,
        Format::Q4_1 => 3,
        Format::Q8_0 => 7,
        Format::Bf16 => 32,
        // "S", of which all matrices are in one format.
        Format::Q4K => 14,
        Format::Q6K => 18,
    }
}

fn rope_divisors(config: &DecoderConfig) -> Option<Vec<f32>> {
    let (DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c)) = config else { return None };
    let llama3 = matches!(c.rope_scaling, RopeScaling::Llama3 { .. });
    llama3.then(|| c.rope_scaling.divisors(c.rope_theta, c.head_dim).into_iter().map(|divisor| divisor as f32).collect())
}

fn architecture(config: &DecoderConfig) -> Vec<(String, Entry)> {
    let kind = config.model_type();
    let count = |number: usize| Entry::U32(number as u32);
    let mut entries = vec![
        ("general.architecture".to_string(), Entry::String(kind.into())),
        ("general.type".to_string(), Entry::String("model".into())),
    ];
    let mut add = |key: &str, entry: Entry| entries.push((format!("{kind}.{key}"), entry));
    add("vocab_size", count(config.vocab_size()));
    add("context_length", count(config.context()));
    add("embedding_length", count(config.hidden_size()));
    add("block_count", count(config.layers()));
    match config {
        DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => {
            add("feed_forward_length", count(c.intermediate_size));
            add("attention.head_count", count(c.num_attention_heads));
            add("attention.head_count_kv", count(c.num_key_value_heads));
            add("attention.key_length", count(c.head_dim));
            add("attention.value_length", count(c.head_dim));
            add("attention.layer_norm_rms_epsilon", Entry::F32(c.rms_norm_eps as f32));
            add("rope.dimension_count", count(c.head_dim));
            add("rope.freq_base", Entry::F32(c.rope_theta as f32));
            if let RopeScaling::Linear { factor } = c.rope_scaling {
                add("rope.scaling.type", Entry::String("linear".into()));
                add("rope.scaling.factor", Entry::F32(factor as f32));
            }
        }
        DecoderConfig::Gpt2(c) => {
            add("feed_forward_length", count(c.n_inner));
            add("attention.head_count", count(c.n_head));
            add("attention.layer_norm_epsilon", Entry::F32(c.layer_norm_epsilon as f32));
        }
    }
    entries
}

impl Entry {
    fn write(&self, out: &mut Vec<u8>) {
        let kind = |kind: u32, out: &mut Vec<u8>| out.extend(kind.to_le_bytes());
        let array = |of: u32, len: usize, out: &mut Vec<u8>| {
            kind(value::ARRAY, out);
            kind(of, out);
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::U32(number) => {
                kind(value::U32, out);
                out.extend(number.to_le_bytes());
            }
            Self::F32(number) => {
                kind(value::F32, out);
                out.extend(number.to_le_bytes());
            }
            Self::Bool(flag) => {
                kind(value::BOOL, out);
                out.push((*flag).into());
            }
            Self::String(text) => {
                kind(value::STRING, out);
                string(text, out);
            }
            Self::Strings(texts) => {
                array(value::STRING, texts.len(), out);
                texts.iter().for_each(|text| string(text, out));
            }
            Self::I32s(numbers) => {
                array(value::I32, numbers.len(), out);
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Self::Copied { kind: of, bytes } => {
                kind(*of, out);
                out.extend(bytes);
            }
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
