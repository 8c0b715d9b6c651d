//! Named tensors of floats or bytes to and from safetensors, bit for bit.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::{Dtype, SafeTensors, View};

/// A tensor outside any device.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Values,
}

/// The values of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    /// Codes of moments in eight bits.
    U8(Vec<u8>),
}

impl NamedTensor {
    /// The values as floats, which those of a model are.
    ///
    /// # Errors
    /// When they are bytes.
    pub fn floats(&self) -> Result<&[f32]> {
        match &self.data {
            Values::F32(data) => Ok(data),
            Values::U8(_) => bail!("{} holds bytes where 32-bit floats are expected", self.name),
        }
    }

    /// [`NamedTensor::floats`] of a tensor that is used up.
    ///
    /// # Errors
    /// When they are bytes.
    pub fn into_floats(self) -> Result<Vec<f32>> {
        match self.data {
            Values::F32(data) => Ok(data),
            Values::U8(_) => bail!("{} holds bytes where 32-bit floats are expected", self.name),
        }
    }

    /// The values as bytes.
    ///
    /// # Errors
    /// When they are floats.
    pub fn into_bytes(self) -> Result<Vec<u8>> {
        match self.data {
            Values::U8(data) => Ok(data),
            Values::F32(_) => bail!("{} holds 32-bit floats where bytes are expected", self.name),
        }
    }
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        match self.data {
            Values::F32(_) => Dtype::F32,
            Values::U8(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // safetensors is little-endian, as is every machine this is built for (checked below).
        Cow::Borrowed(match &self.data {
            Values::F32(data) => bytemuck::cast_slice(data),
            Values::U8(data) => data,
        })
    }

    fn data_len(&self) -> usize {
        match &self.data {
            Values::F32(data) => size_of_val(&data[..]),
            Values::U8(data) => data.len(),
        }
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "checkpoints are written on little-endian machines only");

/// Writes the tensors to a file of their own.
pub fn write_tensors(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    safetensors::serialize_to_file(tensors.iter().map(|t| (t.name.as_str(), t)), None, path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads every tensor of a safetensors file's bytes, in the order of the file's data.
///
/// # Errors
/// When the header does not fit the bytes, or a tensor is of a type that checkpoints do not have.
pub fn read_tensors(bytes: &[u8]) -> Result<Vec<NamedTensor>> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.tensors() {
        let data = match view.dtype() {
            Dtype::F32 => Values::F32(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            Dtype::U8 => Values::U8(view.data().to_vec()),
            other => bail!("{name} is {other:?}; checkpoints hold F32 and U8"),
        };
        tensors.push((view.data().as_ptr() as usize, NamedTensor { name, shape: view.shape().to_vec(), data }));
    }
    tensors.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    Ok(tensors.into_iter().map(|(_, tensor)| tensor).collect())
}
