//! Rust sources as two documents: the code, and the prose of its doc comments. Each line goes to one of them only, so that no text is
//! seen twice and none can be in training and held out at once.

/// Splits a Rust source into its code and the Markdown of its doc comments, a blank line between comments.
pub(super) fn split(source: &str) -> (String, String) {
    let (mut code, mut prose) = (String::with_capacity(source.len()), String::new());
    let mut in_comment = false;
    for line in source.split_inclusive('\n') {
        let Some(comment) = doc_comment(line) else {
            in_comment = false;
            code.push_str(line);
            continue;
        };
        if !in_comment && !prose.is_empty() {
            prose.push('\n');
        }
        in_comment = true;
        prose.push_str(comment);
        prose.push('\n');
    }
    (code, prose)
}

/// The text of a `///` or `//!` line, without the marker and the space that follows it. Four slashes are a ruler, not a comment.
fn doc_comment(line: &str) -> Option<&str> {
    let line = line.trim();
    let text = line.strip_prefix("//!").or_else(|| line.strip_prefix("///").filter(|rest| !rest.starts_with('/')))?;
    Some(text.strip_prefix(' ').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_in_one_of_the_two() {
        let source =
            "//! The crate.\n\n//// ruler\n/// Adds.\n///\n///     let a = 1;\nfn add() {} // not a doc\n    /// Field.\n";
        let (code, prose) = split(source);
        assert_eq!(code, "\n//// ruler\nfn add() {} // not a doc\n");
        assert_eq!(prose, "The crate.\n\nAdds.\n\n    let a = 1;\n\nField.\n");
    }
}
