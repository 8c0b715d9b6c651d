//! Reading numbers and strings from bytes that may be anything.

use anyhow::{Context, Result, ensure};

/// A place in a file's bytes. Nothing is read past their end, whatever lengths the file names.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Begins at byte `at` of `bytes`, or at their end.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What was read since byte `start`.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        let count = usize::try_from(count).ok().filter(|count| *count <= left).with_context(|| {
            format!("{count} bytes are announced at byte {}, and {left} are left: the file is cut off or damaged", self.at)
        })?;
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().context("a number of another size")
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count, of which each element takes at least `least` bytes of what is left.
    pub(super) fn count(&mut self, what: &str, least: u64) -> Result<u64> {
        let (at, count) = (self.at, self.u64()?);
        let left = (self.bytes.len() - self.at) as u64;
        ensure!(
            count.checked_mul(least).is_some_and(|bytes| bytes <= left),
            "{count} {what} are announced at byte {at}, and the {left} bytes after it cannot hold them: the file is cut off or damaged"
        );
        Ok(count)
    }

    pub(super) fn string(&mut self) -> Result<&'a str> {
        let length = self.u64()?;
        let at = self.at;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).with_context(|| format!("the string at byte {at} is not UTF-8"))
    }
}
