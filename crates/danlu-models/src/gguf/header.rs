//! What stands before the tensors: version, metadata, and the directory of tensors. All of it is checked against the size of the file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use danlu_ops::quantized::Format;

use super::cursor::Cursor;
use super::value::Value;

const MAGIC: &[u8; 4] = b"GGUF";
/// The most values of metadata and tensors that are listed: each far beyond any model's.
const MAX_METADATA: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 16;
/// As in llama.cpp.
const MAX_KEY: usize = 65_535;
const MAX_NAME: usize = 63;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A file's metadata and directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub version: u32,
    pub alignment: u64,
    /// Kind of each value and the place of its first byte.
    pub(super) metadata: BTreeMap<String, (u32, usize)>,
    pub(super) tensors: BTreeMap<String, Place>,
}

/// A tensor in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub layout: Layout,
    /// Outermost first, as everywhere in danlu; the file has them the other way round.
    pub shape: Vec<usize>,
    /// From the beginning of the file.
    pub start: usize,
    pub bytes: usize,
}

/// A type of tensor, by ggml's number: its name, values in a block, bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    pub name: &'static str,
    block: u64,
    block_bytes: u64,
    /// None when danlu cannot turn it into floats.
    pub format: Option<Format>,
}

/// ggml's number for a type.
pub(super) fn ggml_number(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Q4_0 => 2,
        Format::Q4_1 => 3,
        Format::Q8_0 => 8,
        Format::Q4K => 12,
        Format::Q6K => 14,
        Format::Bf16 => 30,
    }
}

impl Layout {
    fn of(kind: u32) -> Option<Self> {
        let known = |format: Format| Self {
            name: format.name(),
            block: format.block() as u64,
            block_bytes: format.block_bytes() as u64,
            format: Some(format),
        };
        let other = |name, block, block_bytes| Self { name, block, block_bytes, format: None };
        Some(match kind {
            0 => known(Format::F32),
            1 => known(Format::F16),
            2 => known(Format::Q4_0),
            3 => known(Format::Q4_1),
            6 => other("Q5_0", 32, 22),
            7 => other("Q5_1", 32, 24),
            8 => known(Format::Q8_0),
            9 => other("Q8_1", 32, 40),
            10 => other("Q2_K", 256, 84),
            11 => other("Q3_K", 256, 110),
            12 => known(Format::Q4K),
            13 => other("Q5_K", 256, 176),
            14 => known(Format::Q6K),
            15 => other("Q8_K", 256, 292),
            16 => other("IQ2_XXS", 256, 66),
            17 => other("IQ2_XS", 256, 74),
            18 => other("IQ3_XXS", 256, 98),
            19 => other("IQ1_S", 256, 50),
            20 => other("IQ4_NL", 32, 18),
            21 => other("IQ3_S", 256, 110),
            22 => other("IQ2_S", 256, 82),
            23 => other("IQ4_XS", 256, 136),
            24 => other("I8", 1, 1),
            25 => other("I16", 1, 2),
            26 => other("I32", 1, 4),
            27 => other("I64", 1, 8),
            28 => other("F64", 1, 8),
            29 => other("IQ1_M", 256, 56),
            30 => known(Format::Bf16),
            34 => other("TQ1_0", 256, 54),
            35 => other("TQ2_0", 256, 66),
            39 => other("MXFP4", 32, 17),
            _ => return None,
        })
    }
}

impl Header {
    /// Reads the header of a file with these bytes.
    ///
    /// Memory is taken only for what was read, never for what a count announces.
    ///
    /// # Errors
    /// Says what is wrong and at which byte: another kind or version of file, a count, length or offset that the file cannot hold, a key
    /// or tensor that is there twice, tensors that overlap or are not aligned.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let mut from = Cursor::new(file, 0);
        let magic: [u8; 4] = from.array().context("the file is too short for a GGUF file")?;
        ensure!(&magic == MAGIC, "this is no GGUF file: it begins with {:?}", String::from_utf8_lossy(&magic));
        let version = from.u32()?;
        ensure!(!version.is_multiple_of(1 << 16), "the numbers of this GGUF file are big-endian, which is not read here");
        ensure!(
            (2..=3).contains(&version),
            "GGUF version {version} is not read here; versions 2 and 3 are (convert the model again)"
        );
        // A tensor takes at least the length of its name, a character, the number of dimensions, one, a type and an offset.
        let tensors = from.count("tensors", 8 + 1 + 4 + 8 + 4 + 8)?;
        ensure!(tensors <= MAX_TENSORS, "{tensors} tensors are announced; at most {MAX_TENSORS} are read");
        let metadata = metadata(&mut from)?;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some((kind, at)) => {
                let value = Value::read(*kind, &mut Cursor::new(file, *at), 0)?;
                let alignment = value.as_u64().filter(|alignment| alignment.is_power_of_two());
                alignment.with_context(|| format!("`general.alignment` must be a power of two; it is {value:?}"))?
            }
        };
        let tensors = directory(file, from, tensors, alignment)?;
        Ok(Self { version, alignment, metadata, tensors })
    }

    /// The keys of the metadata, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// A value of the metadata of `file`, which is the one the header was parsed from.
    pub fn get<'a>(&self, file: &'a [u8], key: &str) -> Option<Value<'a>> {
        let (kind, at) = self.metadata.get(key)?;
        Value::read(*kind, &mut Cursor::new(file, *at), 0).ok()
    }

    /// The kind and the bytes of a value of the metadata of `file`, which is the one the header was parsed from.
    pub(super) fn bytes_of<'a>(&self, file: &'a [u8], key: &str) -> Option<(u32, &'a [u8])> {
        let (kind, at) = self.metadata.get(key)?;
        let mut from = Cursor::new(file, *at);
        Value::read(*kind, &mut from, 0).ok()?;
        Some((*kind, from.since(*at)))
    }
}

fn metadata(from: &mut Cursor) -> Result<BTreeMap<String, (u32, usize)>> {
    // A value takes at least the length of its key, a character, its kind and a byte.
    let count = from.count("values of metadata", 8 + 1 + 4 + 1)?;
    ensure!(count <= MAX_METADATA, "{count} values of metadata are announced; at most {MAX_METADATA} are read");
    let mut metadata = BTreeMap::new();
    for number in 0..count {
        let key = from.string().with_context(|| format!("in the key of metadata value {number}"))?;
        ensure!(!key.is_empty() && key.len() <= MAX_KEY, "the key of metadata value {number} has {} bytes", key.len());
        let kind = from.u32()?;
        let at = from.at();
        // Kept are the places; a file may hold a million tokens that nobody asks for.
        Value::read(kind, from, 0).with_context(|| format!("in the value of `{key}`"))?;
        ensure!(metadata.insert(key.to_string(), (kind, at)).is_none(), "the key `{key}` is there twice");
    }
    Ok(metadata)
}

fn directory(file: &[u8], mut from: Cursor, count: u64, alignment: u64) -> Result<BTreeMap<String, Place>> {
    let mut entries = vec![];
    for number in 0..count {
        let name = from.string().with_context(|| format!("in the name of tensor {number}"))?;
        ensure!((1..=MAX_NAME).contains(&name.len()), "the name of tensor {number} has {} bytes", name.len());
        let entry = entry(&mut from, alignment).with_context(|| format!("in the entry of tensor {name}"))?;
        entries.push((name, entry));
    }
    // An empty directory has no data to be aligned.
    let data = match from.at().checked_next_multiple_of(alignment as usize) {
        Some(data) if data <= file.len() => data as u64,
        _ if count == 0 => file.len() as u64,
        _ => bail!("the tensors should begin at a multiple of {alignment} after byte {}, where the file ends", from.at()),
    };
    let mut tensors = BTreeMap::new();
    for (name, Entry { layout, shape, offset, bytes }) in entries {
        let start = data.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes)).filter(|end| *end <= file.len() as u64);
        let (Some(start), Some(_)) = (start, end) else {
            bail!(
                "the tensor {name} has {bytes} bytes at {offset} after byte {data}, and the file ends at byte {}: it is cut off or damaged",
                file.len()
            );
        };
        let place = Place { layout, shape, start: start as usize, bytes: bytes as usize };
        ensure!(tensors.insert(name.to_string(), place).is_none(), "the tensor {name} is there twice");
    }
    let mut order: Vec<(&String, &Place)> = tensors.iter().collect();
    order.sort_by_key(|(_, place)| place.start);
    for pair in order.windows(2) {
        let [(before, first), (after, second)] = pair else { continue };
        ensure!(first.start + first.bytes <= second.start, "the tensors {before} and {after} overlap");
    }
    Ok(tensors)
}

struct Entry {
    layout: Layout,
    shape: Vec<usize>,
    offset: u64,
    bytes: u64,
}

fn entry(from: &mut Cursor, alignment: u64) -> Result<Entry> {
    let dimensions = from.u32()?;
    ensure!((1..=MAX_DIMENSIONS).contains(&dimensions), "it has {dimensions} dimensions; from 1 to {MAX_DIMENSIONS} are read");
    let mut shape = vec![];
    for _ in 0..dimensions {
        let size = from.u64()?;
        ensure!(size > 0, "one of its dimensions is 0");
        shape.push(usize::try_from(size).ok().filter(|size| *size <= isize::MAX as usize).context("a dimension is too large")?);
    }
    let kind = from.u32()?;
    let layout = Layout::of(kind).with_context(|| format!("its type is {kind}, which ggml has not"))?;
    let columns = shape[0] as u64;
    ensure!(
        columns.is_multiple_of(layout.block),
        "its rows have {columns} values, which the {} of a block of {} do not divide",
        layout.block,
        layout.name
    );
    let values = shape.iter().try_fold(1u64, |all, size| all.checked_mul(*size as u64));
    let bytes = values.and_then(|values| (values / layout.block).checked_mul(layout.block_bytes));
    let bytes = bytes.with_context(|| format!("its shape {shape:?} has more values than there are numbers"))?;
    let offset = from.u64()?;
    ensure!(offset.is_multiple_of(alignment), "its offset {offset} is no multiple of the alignment {alignment}");
    shape.reverse();
    Ok(Entry { layout, shape, offset, bytes })
}
