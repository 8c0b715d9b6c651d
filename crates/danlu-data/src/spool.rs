//! Cleaned documents on their way: as JSON lines in compressed frames, first in a temporary file until it is known which of them stay,
//! then in the numbered parts of a split.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::corpus::{Part, Split, SplitManifest};

/// Text bytes after which a new part begins.
const PART: u64 = 256 << 20;
/// Temporary frames are written and read once, so they are compressed lightly.
const SPOOL_LEVEL: i32 = 1;
const PART_LEVEL: i32 = 3;

/// JSON lines of some documents, compressed.
pub(crate) struct Frame {
    pub compressed: Vec<u8>,
    /// Bytes of the lines.
    pub size: usize,
    pub documents: u32,
}

impl Frame {
    pub fn new(lines: &[u8], documents: u32) -> Result<Self> {
        Ok(Self { compressed: zstd::bulk::compress(lines, SPOOL_LEVEL)?, size: lines.len(), documents })
    }

    pub fn lines(&self) -> Result<Vec<u8>> {
        zstd::bulk::decompress(&self.compressed, self.size).context("the temporary file of documents cannot be read back")
    }
}

/// Compresses the lines of a part.
pub(crate) fn compress(lines: &[u8]) -> Result<Vec<u8>> {
    Ok(zstd::bulk::compress(lines, PART_LEVEL)?)
}

/// Writes frames to the temporary file.
pub(crate) struct Spool {
    file: BufWriter<File>,
}

impl Spool {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 18, file) })
    }

    pub fn push(&mut self, frame: &Frame) -> Result<()> {
        for number in [frame.compressed.len() as u64, frame.size as u64, u64::from(frame.documents)] {
            self.file.write_all(&number.to_le_bytes())?;
        }
        self.file.write_all(&frame.compressed).context("cannot write the temporary file of documents; is the disk full?")
    }

    pub fn finish(mut self) -> Result<()> {
        self.file.flush().context("cannot write the temporary file of documents; is the disk full?")
    }
}

/// Reads the frames back.
pub(crate) fn frames(path: &Path) -> Result<impl Iterator<Item = Result<Frame>> + use<>> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut left = file.get_ref().metadata()?.len();
    Ok(std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        Some((|| {
            let mut header = [[0u8; 8]; 3];
            file.read_exact(header.as_flattened_mut())?;
            let [compressed, size, documents] = header.map(u64::from_le_bytes);
            left = left.saturating_sub(24 + compressed);
            let mut frame = Frame { compressed: vec![0; compressed as usize], size: size as usize, documents: documents as u32 };
            file.read_exact(&mut frame.compressed)?;
            Ok(frame)
        })())
    }))
}

/// Writes the parts of one split.
pub(crate) struct PartWriter {
    folder: PathBuf,
    split: Split,
    open: Option<(BufWriter<File>, blake3::Hasher, Part)>,
    done: SplitManifest,
}

impl PartWriter {
    pub fn new(folder: &Path, split: Split) -> Result<Self> {
        let inside = folder.join(split.name());
        std::fs::create_dir_all(&inside).with_context(|| format!("cannot create the folder {}", inside.display()))?;
        Ok(Self { folder: folder.to_path_buf(), split, open: None, done: SplitManifest::default() })
    }

    /// Appends a compressed frame of `documents` documents with `bytes` bytes of text.
    pub fn push(&mut self, compressed: &[u8], documents: u64, bytes: u64) -> Result<()> {
        if documents == 0 {
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|(_, _, part)| part.bytes >= PART) {
            self.close()?;
        }
        if self.open.is_none() {
            let file = format!("{}/documents-{:05}.jsonl.zst", self.split.name(), self.done.parts.len());
            let path = self.folder.join(&file);
            let writer = BufWriter::with_capacity(
                1 << 18,
                File::create(&path).with_context(|| format!("cannot write {}", path.display()))?,
            );
            self.open = Some((writer, blake3::Hasher::new(), Part { file, documents: 0, bytes: 0, blake3: String::new() }));
        }
        if let Some((writer, hasher, part)) = &mut self.open {
            writer.write_all(compressed).context("cannot write the documents; is the disk full?")?;
            hasher.update(compressed);
            part.documents += documents;
            part.bytes += bytes;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some((mut writer, hasher, mut part)) = self.open.take() {
            writer.flush().context("cannot write the documents; is the disk full?")?;
            part.blake3 = hasher.finalize().to_hex().to_string();
            self.done.documents += part.documents;
            self.done.bytes += part.bytes;
            self.done.parts.push(part);
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<SplitManifest> {
        self.close()?;
        Ok(self.done)
    }
}
