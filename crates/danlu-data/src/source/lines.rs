//! Lines of at most a limit; the bytes of a longer one are skipped without being kept.

use std::io::{self, BufRead, Read};

/// What [`Lines::next`] found.
pub(super) enum Line {
    /// The line is in the buffer, with its line end.
    Whole,
    /// The line has this many bytes, more than the limit. The buffer is empty.
    TooLong(u64),
    End,
}

pub(super) struct Lines<R> {
    reader: R,
    limit: usize,
    /// The number of the line last read, from 1.
    pub number: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, number: 0 }
    }

    /// Appends the next line to `buffer`.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Line> {
        let start = buffer.len();
        let count = (&mut self.reader).take(self.limit as u64 + 1).read_until(b'\n', buffer)?;
        if count == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        if count <= self.limit || buffer.last() == Some(&b'\n') {
            return Ok(Line::Whole);
        }
        buffer.truncate(start);
        // What the line made the buffer grow to is given back, or every later batch would carry it.
        buffer.shrink_to(1 << 16);
        let rest = self.reader.skip_until(b'\n')?;
        Ok(Line::TooLong(count as u64 + rest as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, limit: usize, expected: &[&str]) {
        // A reader that yields three bytes at a time finds mistakes at the edges of its buffer.
        let mut lines = Lines::new(io::BufReader::with_capacity(3, text.as_bytes()), limit);
        let mut found = Vec::new();
        loop {
            let mut buffer = Vec::new();
            match lines.next(&mut buffer).unwrap() {
                Line::Whole => found.push(String::from_utf8(buffer).unwrap()),
                Line::TooLong(bytes) => found.push(format!("<{bytes}>")),
                Line::End => break,
            }
        }
        assert_eq!(found, expected, "{text:?}");
        assert_eq!(lines.number as usize, expected.len());
    }

    #[test]
    fn long_lines_are_skipped_to_their_end() {
        check("", 4, &[]);
        check("ab\ncd", 4, &["ab\n", "cd"]);
        check("\n\n", 4, &["\n", "\n"]);
        check("abcd\nabcde\nx\n", 4, &["abcd\n", "<6>", "x\n"]);
        check("abcdefghijk", 4, &["<11>"]);
        check("a\nabcdefghijk\n", 4, &["a\n", "<12>"]);
    }
}
