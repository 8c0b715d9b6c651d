//! What the quality rules measure of a text, in one pass.

use crate::hash;
use crate::source::Kind;

/// Which limits of the rules apply to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Written with spaces between words.
    Words,
    /// Written without (Chinese, Japanese, Thai, …): a character takes the place of a word.
    Characters,
    Code,
}

/// Of the letters looked at, the share in scripts without spaces that makes a text one of characters.
const UNSPACED: f64 = 0.3;
/// Bytes of a text from which its script is told.
const SAMPLE: usize = 4_000;

const ENGLISH_STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];
/// The most frequent characters of modern and of classical Chinese, simplified and traditional. Gopher has no such list.
const CHINESE_STOP_CHARACTERS: &str = "的一是不了在人有我他这這为為之大来來以个個中上们們到说說无無";

/// Measurements of one text. Lengths are in characters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Features {
    /// Hash and length of each word (or character) in order.
    pub words: Vec<(u64, u32)>,
    pub characters: usize,
    pub word_characters: usize,
    pub alphabetic_words: usize,
    pub stop_words: usize,
    pub hashes: usize,
    pub ellipses: usize,
    pub lines: usize,
    pub bullet_lines: usize,
    pub ellipsis_lines: usize,
    pub longest_line: usize,
    pub alphanumeric: usize,
    pub sentences: usize,
}

/// The share of letters in scripts that are written without spaces.
pub(super) fn unspaced_share(text: &str) -> f64 {
    if text.is_ascii() {
        return 0.0;
    }
    let (mut letters, mut unspaced) = (0u32, 0u32);
    for c in text.chars() {
        let is_unspaced = unspaced_character(c);
        letters += u32::from(is_unspaced || c.is_alphabetic());
        unspaced += u32::from(is_unspaced);
    }
    if letters == 0 { 0.0 } else { f64::from(unspaced) / f64::from(letters) }
}

/// Thai, Lao, Myanmar, Khmer, kana, Han and its extensions.
pub(crate) fn unspaced_character(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

pub(super) fn profile(text: &str, kind: Kind) -> Profile {
    if kind == Kind::Code {
        return Profile::Code;
    }
    let sample = &text[..text.floor_char_boundary(SAMPLE)];
    if unspaced_share(sample) >= UNSPACED { Profile::Characters } else { Profile::Words }
}

impl Features {
    pub fn of(text: &str, profile: Profile) -> Self {
        let mut features = Self::default();
        for line in text.lines() {
            features.line(line);
        }
        match profile {
            Profile::Words => features.count_words(text),
            Profile::Characters => features.count_characters(text),
            Profile::Code => {}
        }
        features
    }

    fn line(&mut self, line: &str) {
        let (characters, alphanumeric) = if line.is_ascii() {
            (line.len(), line.bytes().filter(u8::is_ascii_alphanumeric).count())
        } else {
            (line.chars().count(), line.chars().filter(|c| c.is_alphanumeric()).count())
        };
        self.characters += characters + 1;
        self.alphanumeric += alphanumeric;
        self.longest_line = self.longest_line.max(characters);
        let line = line.trim();
        if !line.is_empty() {
            self.lines += 1;
            self.bullet_lines += usize::from(line.starts_with(['•', '‣', '●', '-', '*', '·']));
            self.ellipsis_lines += usize::from(line.ends_with('…') || line.ends_with("..."));
        }
    }

    fn count_words(&mut self, text: &str) {
        self.words.reserve(text.len() / 6);
        let mut seen = [false; ENGLISH_STOP_WORDS.len()];
        for word in text.split_whitespace() {
            let length = if word.is_ascii() { word.len() } else { word.chars().count() };
            self.words.push((hash::bytes(word.as_bytes()), length as u32));
            self.word_characters += length;
            self.alphabetic_words +=
                usize::from(word.bytes().any(|b| b.is_ascii_alphabetic()) || word.chars().any(char::is_alphabetic));
            if (2..=4).contains(&word.len())
                && let Some(stop) = ENGLISH_STOP_WORDS.iter().position(|stop| word.eq_ignore_ascii_case(stop))
            {
                seen[stop] = true;
            }
            let bytes = word.as_bytes();
            let hashes = bytes.iter().filter(|b| **b == b'#').count();
            // A word of hash signs alone is a Markdown heading's mark, which Gopher's web text did not have.
            self.hashes += if hashes == bytes.len() { 0 } else { hashes };
            self.ellipses += usize::from(word.ends_with("...") || word.ends_with('…'));
            self.sentences += usize::from(word.trim_end_matches(['"', '\'', ')', '”', '’']).ends_with(['.', '!', '?', '…']));
        }
        self.stop_words = seen.iter().filter(|seen| **seen).count();
    }

    fn count_characters(&mut self, text: &str) {
        self.words.reserve(text.len() / 3);
        let mut stops: Vec<char> = Vec::new();
        for c in text.chars().filter(|c| !c.is_whitespace()) {
            self.words.push((hash::fold(u64::from(u32::from(c)), 0), 1));
            self.word_characters += 1;
            self.alphabetic_words += usize::from(c.is_alphanumeric());
            self.hashes += usize::from(c == '#');
            self.ellipses += usize::from(c == '…');
            self.sentences += usize::from(matches!(c, '。' | '！' | '？' | '.' | '!' | '?'));
            if stops.len() < 2 && !stops.contains(&c) && CHINESE_STOP_CHARACTERS.contains(c) {
                stops.push(c);
            }
        }
        self.stop_words = stops.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_measured() {
        let text = "# Title\n- The cat and the dog …\n- to be… or not\n\n99 sat. \"Yes!\" she said.";
        let found = Features::of(text, Profile::Words);
        assert_eq!((found.words.len(), found.lines, found.bullet_lines, found.ellipsis_lines), (19, 4, 2, 1));
        assert_eq!((found.stop_words, found.hashes, found.ellipses, found.alphabetic_words), (3, 0, 2, 14));
        assert_eq!(found.sentences, 5);
    }

    #[test]
    fn scripts_decide_the_profile() {
        for (text, kind, expected) in [
            ("plain words", Kind::Prose, Profile::Words),
            ("床前明月光，疑是地上霜。", Kind::Prose, Profile::Characters),
            ("ภาษาไทยไม่มีช่องว่าง", Kind::Web, Profile::Characters),
            ("English with one 字 in it", Kind::Prose, Profile::Words),
            ("let 字 = 1;", Kind::Code, Profile::Code),
        ] {
            assert_eq!(profile(text, kind), expected, "{text}");
        }
    }
}
