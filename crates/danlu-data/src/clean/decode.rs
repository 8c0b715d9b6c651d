//! From bytes to normalised text.
//!
//! A byte order mark decides (UTF-8, UTF-16). Otherwise text is UTF-8, or the encoding the caller names. Text that is neither is not
//! repaired: replacement characters would teach a model mojibake, so the record is quarantined with the offset of its first bad byte.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// A NUL within this many first bytes tells a binary file from a text.
const BINARY_SNIFF: usize = 8 << 10;

/// Decodes text, without normalising it.
///
/// # Errors
/// Why the bytes are not text, with the offset of the first bad byte.
pub(crate) fn decode(bytes: Vec<u8>, fallback: Option<&'static Encoding>) -> Result<String, String> {
    if let Some((encoding, mark)) = Encoding::for_bom(&bytes) {
        if encoding == UTF_8 {
            return utf8(bytes, mark, None);
        }
        let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes[mark..]);
        return text.map(Cow::into_owned).ok_or_else(|| format!("begins as {} and is not", encoding.name()));
    }
    if let Some(reason) = binary(&bytes) {
        return Err(reason);
    }
    utf8(bytes, 0, fallback)
}

fn utf8(mut bytes: Vec<u8>, from: usize, fallback: Option<&'static Encoding>) -> Result<String, String> {
    bytes.drain(..from);
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let at = error.utf8_error().valid_up_to();
    let bytes = error.into_bytes();
    if let Some(encoding) = fallback.filter(|encoding| *encoding != UTF_8) {
        let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes);
        return text.map(Cow::into_owned).ok_or_else(|| format!("is neither UTF-8 nor {}", encoding.name()));
    }
    let (byte, offset) = (bytes[at], from + at);
    Err(format!("is not UTF-8: byte 0x{byte:02x} at offset {offset}; name its encoding if it has one (gbk, windows-1252, …)"))
}

fn binary(start: &[u8]) -> Option<String> {
    let at = start[..start.len().min(BINARY_SNIFF)].iter().position(|b| *b == 0)?;
    Some(format!("is binary: a zero byte at offset {at}"))
}

/// Why a file that begins like this cannot be cut at line ends before it is decoded.
pub(crate) fn not_streamable(start: &[u8]) -> Option<String> {
    match Encoding::for_bom(start) {
        Some((encoding, _)) if encoding == UTF_16LE || encoding == UTF_16BE => {
            Some(format!("is {} and too large or packed; convert it to UTF-8", encoding.name()))
        }
        _ => binary(start),
    }
}

/// Normalises text: Unicode NFC (UAX 15), line ends as `\n`, no control characters but `\n` and `\t`, no byte order marks, no blank
/// lines before or white space after.
pub fn normalise(text: String) -> String {
    let mut text = match is_nfc_quick(text.chars()) {
        _ if text.is_ascii() => text,
        IsNormalized::Yes => text,
        _ => text.nfc().collect(),
    };
    let unwanted = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{feff}';
    if text.contains(unwanted) {
        let mut out = String::with_capacity(text.len());
        let mut after_return = false;
        for c in text.chars() {
            match c {
                // A lone carriage return is the line end of old systems.
                '\r' => out.push('\n'),
                '\n' if after_return => {}
                c if unwanted(c) => {}
                c => out.push(c),
            }
            after_return = c == '\r';
        }
        text = out;
    }
    text.truncate(text.trim_end().len());
    // The indentation of the first line is kept: code and verse have it.
    let blank = text.len() - text.trim_start().len();
    let first_line = text[..blank].rfind('\n').map_or(0, |at| at + 1);
    text.drain(..first_line);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], fallback: Option<&'static Encoding>, expected: Result<&str, &str>) {
        match (decode(bytes.to_vec(), fallback), expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
            (found, _) => panic!("{bytes:?}: {found:?}"),
        }
    }

    #[test]
    fn decoding() {
        check("naïve 中文".as_bytes(), None, Ok("naïve 中文"));
        check(b"\xef\xbb\xbfmark", None, Ok("mark"));
        check(b"\xff\xfeh\0i\0", None, Ok("hi"));
        check(b"\xfe\xff\x4e\x2d", None, Ok("中"));
        check(b"\xff\xfe\x00\xd8", None, Err("begins as UTF-16LE and is not"));
        check(b"caf\xe9 noir", None, Err("byte 0xe9 at offset 3"));
        check(b"\xef\xbb\xbfcaf\xe9", None, Err("at offset 6"));
        check(b"caf\xe9 noir", Some(encoding_rs::WINDOWS_1252), Ok("café noir"));
        check(b"\xd6\xd0\xce\xc4", Some(encoding_rs::GBK), Ok("中文"));
        check(b"\xff\xff", Some(encoding_rs::GBK), Err("neither UTF-8 nor GBK"));
        check(b"\x7fELF\x02\0\0", None, Err("binary: a zero byte at offset 5"));
    }

    #[test]
    fn normalising() {
        for (text, expected) in [
            ("a\r\nb\rc\n", "a\nb\nc"),
            ("\n  \n  indented\n\n", "  indented"),
            ("e\u{301}\u{7}\u{feff}!", "é!"),
            ("tab\tstays \u{1b}[1m", "tab\tstays [1m"),
            (" \n ", ""),
            ("", ""),
        ] {
            assert_eq!(normalise(text.to_owned()), expected);
            assert_eq!(normalise(expected.to_owned()), expected, "normalising twice changes nothing");
        }
    }
}
