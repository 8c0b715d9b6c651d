//! TensorBoard event files: a record is its length, a masked CRC-32C of the length, a protobuf `Event`, and a masked CRC-32C of that
//! (tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto). Only what scalars need is written.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// An open event file. Every session of a run has its own; TensorBoard reads the folder as one run.
pub struct EventFile {
    file: BufWriter<File>,
}

impl EventFile {
    /// Begins a new file in `folder` for a session that starts after `step`. TensorBoard then drops later events of earlier sessions.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        let now = now();
        let path = folder.join(format!("events.out.tfevents.{:010}.danlu.{}.{step}", now as u64, std::process::id()));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut events = EventFile { file: BufWriter::new(file) };
        events.event(now, 0, |event| event.bytes(3, b"brain.Event:2"))?;
        if step > 0 {
            const START: u64 = 1;
            events.event(now, step + 1, |event| {
                let mut session = Proto::default();
                session.varint(1, START);
                event.bytes(7, &session.0);
            })?;
        }
        Ok(events)
    }

    /// Writes scalars of one step.
    pub fn scalars(&mut self, step: u64, values: &[(String, f32)]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.event(now(), step, |event| {
            let mut summary = Proto::default();
            for (tag, value) in values {
                let mut one = Proto::default();
                one.bytes(1, tag.as_bytes());
                one.float(2, *value);
                summary.bytes(1, &one.0);
            }
            event.bytes(5, &summary.0);
        })
    }

    pub fn flush(&mut self) -> Result<()> {
        Ok(self.file.flush()?)
    }

    fn event(&mut self, time: f64, step: u64, what: impl FnOnce(&mut Proto)) -> Result<()> {
        let mut event = Proto::default();
        event.double(1, time);
        event.varint(2, step);
        what(&mut event);
        let length = (event.0.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(&event.0)?;
        Ok(self.file.write_all(&masked_crc(&event.0).to_le_bytes())?)
    }
}

/// A protobuf message being written.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn key(&mut self, field: u64, wire: u64) {
        self.raw_varint(field << 3 | wire);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

/// TensorFlow's masking: a CRC of data that holds its own CRC would be weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a message: number, varint or fixed value, bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let (number, length) = match key & 7 {
                0 => (varint(&mut bytes), 0),
                1 => (0, 8),
                2 => (0, varint(&mut bytes) as usize),
                5 => (0, 4),
                wire => panic!("wire type {wire}"),
            };
            out.push((key >> 3, number, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        out
    }

    #[test]
    fn records_have_their_sums_and_scalars_their_tags() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), 300).unwrap();
        events.scalars(301, &[("train/loss".into(), 2.5)]).unwrap();
        events.flush().unwrap();
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let mut bytes = &fs::read(path).unwrap()[..];
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(rest[..4], masked_crc(length).to_le_bytes());
            assert_eq!(rest[4 + size..8 + size], masked_crc(&rest[4..4 + size]).to_le_bytes());
            records.push(fields(&rest[4..4 + size]));
            bytes = &rest[8 + size..];
        }
        assert_eq!(records.len(), 3);
        assert_eq!(records[0][2], (3, 0, b"brain.Event:2".to_vec()));
        assert_eq!((records[1][1].1, fields(&records[1][2].2)[0].1), (301, 1), "a new session starts at 301");
        assert_eq!(records[2][1], (2, 301, vec![]));
        let value = fields(&fields(&records[2][2].2)[0].2);
        assert_eq!((&value[0].2[..], &value[1].2[..]), (&b"train/loss"[..], &2.5f32.to_le_bytes()[..]));
    }

    /// The CRC of the all-zero block of RFC 3720, B.4, masked as TensorFlow does.
    #[test]
    fn the_sum_is_the_known_one() {
        let crc: u32 = 0x8a91_36aa;
        assert_eq!(masked_crc(&[0; 32]), crc.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
