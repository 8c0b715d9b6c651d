//! The rules of C4 for web pages (Raffel et al., arXiv 1910.10683, section 2.2) that work on lines or on the page as it came. Two of
//! its rules are not here: its list of offensive words, which also removes medical and minority texts (Dodge et al., arXiv
//! 2104.08758), and the removal of repeated three-sentence spans, which near-duplicate removal replaces.

/// Why a whole page is dropped, as step and rule.
pub(super) fn page(text: &str) -> Option<(&'static str, &'static str)> {
    if text.contains('{') {
        return Some(("c4: curly bracket", "a page with a curly bracket is code (C4, arXiv 1910.10683 2.2)"));
    }
    None
}

const POLICY: &[&str] =
    &["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies", "cookies on"];
/// The fewest words of a line, and of characters in a line written without spaces.
const LINE_WORDS: usize = 5;
const LINE_CHARACTERS: usize = 8;

/// The page without the lines that C4 takes out. Blank lines stay while they part something.
pub(super) fn keep_lines(text: &str, removed: &mut Vec<(&'static str, u64, u64)>) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match fault(line) {
            None => {
                out.push_str(line);
                out.push('\n');
            }
            Some(rule) => match removed.iter_mut().find(|(name, ..)| *name == rule) {
                Some((_, lines, bytes)) => {
                    *lines += 1;
                    *bytes += line.len() as u64 + 1;
                }
                None => removed.push((rule, 1, line.len() as u64 + 1)),
            },
        }
    }
    super::normalise(out)
}

fn fault(line: &str) -> Option<&'static str> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    if !line.ends_with(['.', '!', '?', '"', '”', '。', '！', '？', '」', '』', '…', '：']) {
        return Some("c4: no end punctuation");
    }
    let spaced = super::features::unspaced_share(line) < 0.3;
    let short = if spaced { line.split_whitespace().count() < LINE_WORDS } else { line.chars().count() < LINE_CHARACTERS };
    if short {
        return Some("c4: short line");
    }
    let lower = line.to_lowercase();
    if lower.contains("javascript") {
        return Some("c4: javascript");
    }
    POLICY.iter().any(|phrase| lower.contains(phrase)).then_some("c4: policy notice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_out_by_rule() {
        let page = "Home\n\nThis is a sentence that stays here.\nToo short.\nPlease enable Javascript to see this page.\n\
                    By reading on you accept our privacy policy today.\n今天的天气非常好，我们去公园。\n短句。\nno end punctuation in this line";
        let mut removed = Vec::new();
        let kept = keep_lines(page, &mut removed);
        assert_eq!(kept, "This is a sentence that stays here.\n今天的天气非常好，我们去公园。");
        let removed: Vec<_> = removed.iter().map(|(rule, lines, _)| (*rule, *lines)).collect();
        let expected = [("c4: no end punctuation", 2), ("c4: short line", 2), ("c4: javascript", 1), ("c4: policy notice", 1)];
        assert_eq!(removed, expected);
    }
}
