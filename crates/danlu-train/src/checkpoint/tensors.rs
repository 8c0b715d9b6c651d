//! Named tensors of floats or bytes to and from safetensors, bit for bit.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

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

/// A tensor that is read when it is written, so that a checkpoint takes the memory of one tensor beside the run's own.
pub struct Pending<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    /// Whether it holds bytes, and not 32-bit floats.
    pub bytes: bool,
    pub read: Box<dyn Fn() -> Result<Values> + 'a>,
}

impl Pending<'_> {
    /// It is read now.
    ///
    /// # Errors
    /// The device's.
    pub fn now(&self) -> Result<NamedTensor> {
        let data = (self.read)().with_context(|| format!("{} cannot be read from the device", self.name))?;
        Ok(NamedTensor { name: self.name.clone(), shape: self.shape.clone(), data })
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "checkpoints are written on little-endian machines only");

/// Writes the tensors to a file of their own, one after another.
///
/// # Errors
/// The device's, the file system's, and when a tensor turns out to be of another size than it said.
pub fn write_tensors(path: &Path, tensors: &[Pending]) -> Result<()> {
    let mut end = 0;
    let mut info = |tensor: &Pending| {
        let (dtype, each) = if tensor.bytes { (Dtype::U8, 1) } else { (Dtype::F32, 4) };
        let begin = end;
        end += tensor.shape.iter().product::<usize>() * each;
        (tensor.name.clone(), TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (begin, end) })
    };
    // Floats first, so that each begins at a multiple of four bytes.
    let mut tensors: Vec<&Pending> = tensors.iter().collect();
    tensors.sort_by_key(|tensor| tensor.bytes);
    let infos: Vec<(String, TensorInfo)> = tensors.iter().map(|tensor| info(tensor)).collect();
    let mut header = serde_json::to_vec(&Metadata::new(None, infos.clone())?)?;
    // The tensors begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let write = || -> Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (tensor, (_, info)) in tensors.iter().zip(&infos) {
            let read = tensor.now()?;
            let bytes = match &read.data {
                Values::F32(data) => bytemuck::cast_slice(data),
                Values::U8(data) => &data[..],
            };
            let expected = info.data_offsets.1 - info.data_offsets.0;
            ensure!(bytes.len() == expected, "{} has {} bytes; its shape needs {expected}", tensor.name, bytes.len());
            file.write_all(bytes)?;
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
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
