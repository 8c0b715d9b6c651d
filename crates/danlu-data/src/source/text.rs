//! Plain text: a file is a document, except that a long one is cut into pieces at blank lines, or at line ends where there are none.

use std::io::BufRead;
use std::sync::Arc;

use super::lines::{Line, Lines};
use super::reader::Raw;
use super::{InputFile, RECORD_LIMIT};

/// A piece ends at the first blank line after this many bytes …
const PIECE: usize = 256 << 10;
/// … or at the first line end after this many, so that books and dumps of any size become documents of moderate length.
const PIECE_LIMIT: usize = 512 << 10;

/// Whether a piece of this length may end after `line`.
fn ends_piece(length: usize, line: &[u8]) -> bool {
    length >= PIECE_LIMIT || (length >= PIECE && line.trim_ascii().is_empty())
}

/// The pieces of a text with the number of the line each begins at.
pub(super) fn pieces(text: &str) -> Vec<(u64, &str)> {
    if text.len() <= PIECE_LIMIT {
        return vec![(1, text)];
    }
    let mut pieces = Vec::new();
    let (mut start, mut end, mut first_line) = (0, 0, 1);
    for (number, line) in (1u64..).zip(text.split_inclusive('\n')) {
        end += line.len();
        if ends_piece(end - start, line.as_bytes()) {
            pieces.push((first_line, &text[start..end]));
            (start, first_line) = (end, number + 1);
        }
    }
    if start < text.len() {
        pieces.push((first_line, &text[start..]));
    }
    pieces
}

/// The same pieces from a stream, for files that are too large to hold.
pub(super) struct Pieces {
    file: Arc<InputFile>,
    lines: Lines<Box<dyn BufRead + Send>>,
    /// The piece so far and the line it began at.
    piece: Vec<u8>,
    first_line: u64,
    /// What is yielded after the piece it interrupted.
    pending: Option<Raw>,
    ended: bool,
}

impl Pieces {
    pub fn new(file: Arc<InputFile>, reader: Box<dyn BufRead + Send>) -> Self {
        Self { file, lines: Lines::new(reader, RECORD_LIMIT), piece: Vec::new(), first_line: 1, pending: None, ended: false }
    }

    fn take(&mut self) -> Option<Raw> {
        let bytes = std::mem::take(&mut self.piece);
        let place = Some(std::mem::replace(&mut self.first_line, self.lines.number + 1));
        (!bytes.is_empty()).then(|| Raw::Record { file: Arc::clone(&self.file), place, bytes })
    }
}

impl Iterator for Pieces {
    type Item = Raw;

    fn next(&mut self) -> Option<Raw> {
        if let Some(pending) = self.pending.take() {
            return Some(pending);
        }
        while !self.ended {
            let start = self.piece.len();
            let bad = match self.lines.next(&mut self.piece) {
                Ok(Line::Whole) if ends_piece(self.piece.len(), &self.piece[start..]) => return self.take(),
                Ok(Line::Whole) => continue,
                Ok(Line::TooLong(bytes)) => Raw::too_long(&self.file, Some(self.lines.number), bytes),
                Ok(Line::End) => {
                    self.ended = true;
                    return self.take();
                }
                Err(error) => {
                    self.ended = true;
                    Raw::bad(&self.file, Some(self.lines.number + 1), format!("cannot be read further: {error}"), 0)
                }
            };
            let Some(before) = self.take() else { return Some(bad) };
            self.pending = Some(bad);
            return Some(before);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Format;

    #[test]
    fn a_stream_gives_the_pieces_of_the_whole() {
        let mut text = String::new();
        for line in 0..120_000 {
            text.push_str(&format!("line number {line}\n"));
            if line % 1_000 == 0 && line < 60_000 {
                text.push('\n');
            }
        }
        text.push_str("no line end");
        let whole = pieces(&text);
        assert_eq!(whole.iter().map(|(_, piece)| *piece).collect::<String>(), text);
        assert!(whole.len() > 4 && whole.iter().all(|(_, piece)| piece.len() < PIECE_LIMIT + 100));
        assert!(whole[0].1.ends_with("\n\n"), "cut at a blank line where there is one");

        let file = InputFile {
            path: "a.txt".into(),
            label: "a.txt".into(),
            format: Format::Text,
            bytes: text.len() as u64,
            text_keys: Vec::new().into(),
        };
        let reader = Box::new(std::io::Cursor::new(text.clone().into_bytes()));
        let streamed: Vec<_> = Pieces::new(Arc::new(file), reader)
            .map(|raw| match raw {
                Raw::Record { place, bytes, .. } => (place.unwrap(), String::from_utf8(bytes).unwrap()),
                _ => panic!("nothing is bad here"),
            })
            .collect();
        assert!(whole.iter().copied().eq(streamed.iter().map(|(line, piece)| (*line, piece.as_str()))));
    }
}
