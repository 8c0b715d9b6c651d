//! Groups documents that share a key, for any number of keys in bounded memory: keys are written to partition files by their top bits,
//! and one partition at a time is sorted.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Bytes of a key and a document on disk.
const RECORD: usize = 12;
/// About how many records a partition has: 16 MB when sorted in memory.
const PARTITION: u64 = 1 << 20;
/// Files open at once at most; beyond 256 million records partitions grow instead.
const MOST_PARTITIONS: u64 = 256;

pub(super) struct Buckets {
    partitions: Vec<(PathBuf, BufWriter<File>)>,
}

impl Buckets {
    /// Buckets for about `records` records, in files below `folder`.
    pub fn new(folder: &Path, records: u64) -> Result<Self> {
        let count = records.div_ceil(PARTITION).clamp(1, MOST_PARTITIONS);
        let partition = |index| {
            let path = folder.join(format!("bucket-{index}"));
            let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            Ok((path, BufWriter::with_capacity(1 << 16, file)))
        };
        Ok(Self { partitions: (0..count).map(partition).collect::<Result<_>>()? })
    }

    pub fn push(&mut self, key: u64, document: u32) -> Result<()> {
        let count = self.partitions.len() as u64;
        let partition = ((u128::from(key) * u128::from(count)) >> 64) as usize;
        let (_, file) = &mut self.partitions[partition];
        file.write_all(&key.to_le_bytes())?;
        Ok(file.write_all(&document.to_le_bytes())?)
    }

    /// Calls `each` with every group of two or more documents that share a key, in the order of keys, each group in the order of
    /// documents. The files are removed.
    pub fn groups(self, mut each: impl FnMut(&[(u64, u32)]) -> Result<()>) -> Result<()> {
        for (path, writer) in self.partitions {
            drop(writer.into_inner().map_err(|error| error.into_error())?);
            let mut reader = BufReader::with_capacity(1 << 20, File::open(&path)?);
            let mut records = Vec::new();
            let mut record = [0; RECORD];
            for _ in 0..fs::metadata(&path)?.len() / RECORD as u64 {
                reader.read_exact(&mut record)?;
                let [a, b, c, d, e, f, g, h, document @ ..] = record;
                records.push((u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes(document)));
            }
            drop(reader);
            fs::remove_file(&path)?;
            records.sort_unstable();
            for group in records.chunk_by(|(a, _), (b, _)| a == b) {
                if group.len() > 1 {
                    each(group)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash;

    #[test]
    fn documents_with_the_same_key_meet() {
        let dir = tempfile::tempdir().unwrap();
        let mut buckets = Buckets::new(dir.path(), 5 * PARTITION).unwrap();
        assert_eq!(buckets.partitions.len(), 5);
        for document in 0..3_000u32 {
            buckets.push(hash::fold(u64::from(document) % 1_000, 9), document).unwrap();
        }
        buckets.push(7, 5_000).unwrap();
        let mut groups = Vec::new();
        buckets
            .groups(|group| {
                groups.push(group.iter().map(|(_, document)| *document).collect::<Vec<_>>());
                Ok(())
            })
            .unwrap();
        groups.sort();
        assert_eq!(groups.len(), 1_000);
        assert_eq!(groups[3], [3, 1_003, 2_003]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
