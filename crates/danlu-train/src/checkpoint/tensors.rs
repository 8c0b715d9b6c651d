//! Named f32 tensors to and from safetensors, bit for bit.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors, View};

/// A tensor outside any device.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // safetensors is little-endian, as is every machine this is built for (checked below).
        Cow::Borrowed(bytemuck::cast_slice(&self.data))
    }

    fn data_len(&self) -> usize {
        self.data.len() * 4
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
/// When the header does not fit the bytes, or a tensor is not f32.
pub fn read_tensors(bytes: &[u8]) -> Result<Vec<NamedTensor>> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.tensors() {
        ensure!(view.dtype() == Dtype::F32, "{name} is {:?}; checkpoints hold f32", view.dtype());
        let data = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensors.push((view.data().as_ptr() as usize, NamedTensor { name, shape: view.shape().to_vec(), data }));
    }
    tensors.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    Ok(tensors.into_iter().map(|(_, tensor)| tensor).collect())
}
