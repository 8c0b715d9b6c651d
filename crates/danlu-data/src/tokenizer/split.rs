//! Splitting text into the words that merges stay within, by hand: about ten times as fast as the regular expression, and the same.

use std::sync::LazyLock;

use tokenizers::utils::SysRegex;

/// How bytes are kept together before merging, as in GPT-4 and Qwen: contractions, letters with the one character before them, digits,
/// other characters with the line ends after them, line ends, spaces. No merge crosses a word, a line or a number. Marks count as letters,
/// so that the scripts of India and accents in decomposed form are not torn apart. Digits go in groups of at most two: groups of three,
/// as in vocabularies of 100,000, would take a thousand tokens of a small one.
pub(super) const SPLIT: &str = r"'[sStTmMdD]|'[rR][eE]|'[vV][eE]|'[lL][lL]|[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,2}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What the expression distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Other,
    Letter,
    Number,
    Space,
}

/// The class of every character, asked of the regular expression engine itself once, so that both know the same version of Unicode.
static CLASSES: LazyLock<Option<Vec<Class>>> = LazyLock::new(|| {
    let mut classes = vec![Class::Other; char::MAX as usize + 1];
    let all: String = ('\0'..=char::MAX).collect();
    for (expression, class) in [(r"[\p{L}\p{M}]+", Class::Letter), (r"\p{N}+", Class::Number), (r"\s+", Class::Space)] {
        for (start, end) in SysRegex::new(expression).ok()?.find_iter(&all) {
            all[start..end].chars().for_each(|c| classes[c as usize] = class);
        }
    }
    Some(classes)
});

/// The words of `text` under [`SPLIT`], or nothing where the engine failed to say what characters are.
pub(super) fn words(text: &str) -> Option<Words<'_>> {
    Some(Words { rest: text, classes: CLASSES.as_deref()? })
}

pub(super) struct Words<'a> {
    rest: &'a str,
    classes: &'static [Class],
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (word, rest) = self.rest.split_at(self.length());
        self.rest = rest;
        Some(word)
    }
}

impl Words<'_> {
    fn class(&self, c: char) -> Class {
        self.classes[c as usize]
    }

    /// The bytes of the run of `class` that `text` begins with.
    fn run(&self, text: &str, class: Class) -> usize {
        text.char_indices().find(|&(_, c)| self.class(c) != class).map_or(text.len(), |(at, _)| at)
    }

    /// The bytes of the first word; the alternatives of [`SPLIT`] in their order.
    fn length(&self) -> usize {
        let text = self.rest;
        let Some(first) = text.chars().next() else { return 0 };
        if first == '\''
            && let Some(length) = contraction(text.as_bytes())
        {
            return length;
        }
        let after = &text[first.len_utf8()..];
        match (self.class(first), after.chars().next().map(|c| self.class(c))) {
            (Class::Letter, _) => self.run(text, Class::Letter),
            (Class::Number, _) => {
                let second = after.chars().next().filter(|&c| self.class(c) == Class::Number);
                first.len_utf8() + second.map_or(0, char::len_utf8)
            }
            (_, Some(Class::Letter)) if !matches!(first, '\r' | '\n') => first.len_utf8() + self.run(after, Class::Letter),
            (Class::Other, _) => self.others(text),
            (_, Some(Class::Other)) if first == ' ' => 1 + self.others(after),
            _ => self.spaces(text),
        }
    }

    /// Characters that are neither letters, digits nor spaces, with the line ends after them.
    fn others(&self, text: &str) -> usize {
        let end = self.run(text, Class::Other);
        end + text.as_bytes()[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
    }

    /// Spaces up to their last line end; without one, all but the last space before a word, which belongs to the word.
    fn spaces(&self, text: &str) -> usize {
        let end = self.run(text, Class::Space);
        let spaces = &text[..end];
        match spaces.rfind(['\r', '\n']) {
            Some(last) => last + 1,
            None if end == text.len() => end,
            None => spaces.char_indices().next_back().map(|(at, _)| at).filter(|&at| at > 0).unwrap_or(end),
        }
    }
}

/// The bytes of `'s`, `'t`, `'m`, `'d`, `'re`, `'ve` or `'ll` at the beginning.
fn contraction(text: &[u8]) -> Option<usize> {
    let letter = |at: usize| text.get(at).map(u8::to_ascii_lowercase);
    match (letter(1)?, letter(2)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) {
        let expression = SysRegex::new(SPLIT).unwrap();
        let expected: Vec<&str> = expression.find_iter(text).map(|(start, end)| &text[start..end]).collect();
        assert_eq!(words(text).unwrap().collect::<Vec<_>>(), expected, "{text:?}");
    }

    #[test]
    fn words_are_those_of_the_expression() {
        for text in [
            "",
            "It's they'RE we'll 'tis 'x x'",
            "a  b   c \n\n  d\r\n\t e\t\tf  ",
            "x = 1234567; // 3.14 ½ Ⅷ ٣٤",
            "  !?\n\n!!\r\nx (a)\u{85}b\u{a0}\u{a0}c",
            "中文，標點。混合English 文字\u{3000}全角　空格",
            "e\u{301}\u{301} हिन्दी \u{301}x 1\u{301} 'ſ ſ",
            "👩‍🔬🔥 \u{200d}\u{fe0f}",
            " \n",
            "\n ",
            " ",
            "\r\r\n x",
        ] {
            check(text);
        }
    }

    #[test]
    fn every_character_has_the_class_the_expression_gives_it() {
        // Each character between others of each class.
        for chunk in ('\0'..=char::MAX).collect::<Vec<_>>().chunks(4096) {
            check(&chunk.iter().flat_map(|&c| ['a', c, c, ' ', c, '1', c, '!']).collect::<String>());
        }
    }

    proptest! {
        #[test]
        fn words_of_any_text_are_those_of_the_expression(text in "([ \t\r\n\u{a0}\u{3000}]|[a-zA-Z']|[0-9]|[.,!?]|\\p{Han}|\\PC){0,60}") {
            check(&text);
        }
    }
}
