//! The paragraphs of a page with the names they have in it, which are the same in every language.

use super::page::{AFTER, AREA, Reader, SKIPPED, attribute, element, module_class};
use crate::source::html::Tag;

/// Elements that hold a paragraph.
const HOLDERS: [&str; 8] = ["p", "pre", "h1", "h2", "h3", "h4", "h5", "h6"];

/// A paragraph or heading of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Paragraph {
    /// `par_id3154258`, `hd_id3145819`.
    pub id: String,
    pub text: String,
}

/// The paragraphs of the page `name` in `html`, in order, those without a name or text left out.
pub fn paragraphs(name: &str, html: &str) -> Vec<Paragraph> {
    let begin = html.find(AREA).unwrap_or(0);
    let end = html[begin..].find(AFTER).map_or(html.len(), |at| begin + at);
    let module = module_class(name);
    let mut found = Vec::new();
    let mut rest = &html[begin..end];
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let Some(tag) = Tag::parse(rest) else {
            rest = &rest[1..];
            continue;
        };
        let written = &rest[..tag.length];
        rest = &rest[tag.length..];
        if tag.closes || tag.empty {
            continue;
        }
        if tag.name == "script" || SKIPPED.iter().any(|skipped| written.contains(skipped)) {
            rest = element(rest, &tag.name).1;
        } else if let (true, Some(id)) = (HOLDERS.contains(&tag.name.as_str()), attribute(written, "id")) {
            let (inner, after) = element(rest, &tag.name);
            let text = Reader::text(module, inner);
            if !text.is_empty() {
                found.push(Paragraph { id: id.to_owned(), text });
            }
            rest = after;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::help::page::tests::PAGE;

    #[test]
    fn paragraphs_with_names_are_found_as_people_read_them() {
        let html = PAGE
            .replace("<p>Press", "<p id=\"par_1\" dir=\"auto\">Press")
            .replace("<p>Key", "<p id=\"par_2\">Key")
            .replace("<div>other</div>", "<p id=\"par_3\">other</p>");
        let found = paragraphs("swriter/guide/notes", &html);
        let found: Vec<(&str, &str)> = found.iter().map(|one| (one.id.as_str(), one.text.as_str())).collect();
        assert_eq!(found, [("a", "Inserting and Editing Footnotes"), ("par_1", "Press Ctrl+F."), ("par_2", "Key")]);
    }

    #[test]
    fn broken_pages_end() {
        for html in
            ["", "<", "<p id=\"a", "<p id=\"a\">", "<p id=\"a\"><p id=\"a\">日", "<!--", "<p id=\"a\"><span class=\"switch\">"]
        {
            paragraphs("", html);
        }
        assert_eq!(paragraphs("", &"<p id=\"a\">".repeat(2_000)).len(), 0);
    }
}
