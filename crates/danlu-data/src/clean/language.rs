//! Language identification by trigrams and script (whatlang).

/// Bytes looked at; more text does not change the answer and costs time.
const SAMPLE: usize = 1_500;
/// Below this the answer is left open. The library's own mark for a reliable answer, 0.9, leaves most texts of one sentence open.
const CONFIDENCE: f64 = 0.5;

/// The ISO 639-3 code of a text's language, when it can be told.
pub(super) fn detect(text: &str) -> Option<String> {
    let sample = &text[..text.floor_char_boundary(SAMPLE)];
    let found = whatlang::detect(sample)?;
    (found.confidence() >= CONFIDENCE).then(|| found.lang().code().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart() {
        for (text, expected) in [
            ("The cat sat on the mat because it was warm there, and nobody wanted to move it.", Some("eng")),
            ("Die Katze saß auf der Matte, weil es dort warm war und niemand sie bewegen wollte.", Some("deu")),
            ("猫坐在垫子上，因为那里很暖和，没有人想移动它。", Some("cmn")),
            ("12345 67890", None),
        ] {
            assert_eq!(detect(text).as_deref(), expected, "{text}");
        }
    }
}
