//! The formats of the original word2vec: a line with the number of words and of channels, then each word with its numbers, written out, or
//! as little-endian 32-bit floats right behind the word's space.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::WordVectors;

/// The first line has two numbers.
const HEADER: u64 = 64;
/// No word of a vocabulary is longer, in bytes.
const WORD: u64 = 4096;
/// A number written out, with room to spare.
const NUMBER: u64 = 64;
/// No word vectors are wider.
const WIDEST: usize = 1 << 16;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

impl Format {
    /// By the name's end: `.bin` is binary, all else is text.
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("bin")) { Self::Binary } else { Self::Text }
    }
}

impl WordVectors {
    /// Reads a file, in the format that its name says ([`Format::of`]).
    ///
    /// # Errors
    /// When it cannot be read, or is damaged; the error says which word stands at the place.
    pub fn load(path: &Path) -> Result<Self> {
        let open = || -> Result<_> {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((BufReader::with_capacity(1 << 18, file), length))
        };
        let (file, length) = open().with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(file, length, Format::of(path)).with_context(|| format!("{} holds no word vectors", path.display()))
    }

    /// Reads `length` bytes of a file. No more is allocated than these bytes can hold vectors.
    ///
    /// # Errors
    /// When they are no word vectors; the error says at which word.
    pub fn parse(mut from: impl BufRead, length: u64, format: Format) -> Result<Self> {
        let mut header = vec![];
        from.by_ref().take(HEADER).read_until(b'\n', &mut header)?;
        let header = str::from_utf8(&header).context("the first line is not two numbers")?;
        let mut numbers = header.split_whitespace().map(str::parse::<usize>);
        let (Some(Ok(count)), Some(Ok(width)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
            bail!("the first line is {header:?}, not the number of words and of channels")
        };
        ensure!((1..=WIDEST).contains(&width), "the first line says {width} channels; there may be 1 to {WIDEST}");
        // A word has a letter and a space, and a number four bytes, or a digit and a space.
        let number = if format == Format::Binary { 4 } else { 2 };
        let bytes = (count as u64).checked_mul(2 + number * width as u64);
        let fits = bytes.is_some_and(|bytes| bytes <= length.saturating_add(1));
        ensure!(fits, "the first line says {count} words of {width} channels, more than {length} bytes can hold");
        let mut words = Vec::with_capacity(count);
        let mut values = Vec::with_capacity(count * width);
        for at in 0..count {
            match format {
                Format::Text => text_row(&mut from, width, &mut words, &mut values),
                Format::Binary => binary_row(&mut from, width, &mut words, &mut values),
            }
            .with_context(|| match words.last() {
                Some(last) => format!("at word {} of {count}, which comes after {last:?}", at + 1),
                None => format!("at the first word of {count}"),
            })?;
        }
        Self::new(words, values, width)
    }

    /// Writes a file, in the format that its name says, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written, or a word has a space in it, which the format has no place for.
    pub fn save(&self, path: &Path) -> Result<()> {
        danlu_files::write_atomic(path, |file| self.write(file, Format::of(path)))
    }

    /// [`WordVectors::save`] to any place.
    ///
    /// # Errors
    /// As [`WordVectors::save`].
    pub fn write(&self, to: &mut impl Write, format: Format) -> Result<()> {
        writeln!(to, "{} {}", self.len(), self.width())?;
        for (place, word) in self.words().iter().enumerate() {
            ensure!(!word.is_empty() && !word.contains(char::is_whitespace), "the word {word:?} has a space or is empty");
            write!(to, "{word}")?;
            match format {
                // Rust writes the shortest digits that read back as the same float.
                Format::Text => self.vector(place).iter().try_for_each(|value| write!(to, " {value}"))?,
                Format::Binary => {
                    to.write_all(b" ")?;
                    self.vector(place).iter().try_for_each(|value| to.write_all(&value.to_le_bytes()))?;
                }
            }
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}

fn text_row(from: &mut impl BufRead, width: usize, words: &mut Vec<String>, values: &mut Vec<f32>) -> Result<()> {
    let mut line = vec![];
    from.by_ref().take(WORD + NUMBER * width as u64).read_until(b'\n', &mut line)?;
    ensure!(!line.is_empty(), "the file ends");
    let line = str::from_utf8(&line).context("the line is not UTF-8")?;
    let mut fields = line.split_ascii_whitespace();
    let word = fields.next().context("the line is empty")?;
    ensure!((word.len() as u64) < WORD, "its word has {} bytes; there may be fewer than {WORD}", word.len());
    let before = values.len();
    for field in fields {
        ensure!(values.len() - before < width, "{word:?} has more than {width} numbers");
        let at = values.len() - before + 1;
        values.push(field.parse().with_context(|| format!("number {at} of {word:?} cannot be read"))?);
    }
    ensure!(values.len() - before == width, "{word:?} has {} numbers instead of {width}", values.len() - before);
    words.push(word.to_string());
    Ok(())
}

fn binary_row(from: &mut impl BufRead, width: usize, words: &mut Vec<String>, values: &mut Vec<f32>) -> Result<()> {
    let mut word = vec![];
    from.by_ref().take(WORD).read_until(b' ', &mut word)?;
    ensure!(word.pop() == Some(b' '), "no word of fewer than {WORD} bytes and a space stands here");
    // The original program ends a row with a line's end, others do not.
    let word = word.strip_prefix(b"\n").unwrap_or(&word);
    ensure!(!word.is_empty(), "the word is empty");
    let word = str::from_utf8(word).context("the word is not UTF-8")?;
    let mut row = vec![0; 4 * width];
    from.read_exact(&mut row).with_context(|| format!("the file ends in the numbers of {word:?}"))?;
    values.extend(row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    words.push(word.to_string());
    Ok(())
}
