//! The text of a web page: scripts, styles and page furniture are left out, block elements become lines, entities are decoded.

use encoding_rs::Encoding;

/// Elements whose whole content is not text of the page.
const SKIPPED: &[&str] =
    &["script", "style", "head", "noscript", "template", "svg", "math", "iframe", "object", "nav", "footer", "select", "button"];
/// Of those, the elements in which a tag is only text until their own end tag.
const RAW: &[&str] = &["script", "style", "iframe", "noscript"];
/// Elements that begin and end a line.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "caption",
    "center",
    "dd",
    "details",
    "dialog",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "html",
    "li",
    "main",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "tbody",
    "tfoot",
    "thead",
    "title",
    "tr",
    "ul",
];
/// Of those, the elements that stand apart by a blank line.
const PARAGRAPHS: &[&str] =
    &["p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "ul", "ol", "dl", "table", "section", "article"];
/// The declaration of the encoding must be in the first 1,024 bytes (HTML standard, 4.2.5.4).
const DECLARATION: usize = 1024;

/// The encoding a page says it has, for pages that are not Unicode.
pub(super) fn declared_encoding(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = bytes[..bytes.len().min(DECLARATION)].to_ascii_lowercase();
    let at = start.windows(8).position(|window| window == b"charset=")? + 8;
    let label = start[at..].trim_ascii_start();
    let label = label.strip_prefix(b"\"").or_else(|| label.strip_prefix(b"'")).unwrap_or(label);
    let end = label.iter().position(|b| !(b.is_ascii_alphanumeric() || b"-_:.".contains(b))).unwrap_or(label.len());
    Encoding::for_label(&label[..end])
}

/// The text of a page.
pub(super) fn text(page: &str) -> String {
    let mut out = Output { text: String::with_capacity(page.len() / 4), ..Default::default() };
    let mut rest = page;
    // The element being left out, and how many of its kind are open.
    let mut skipping: Option<(String, usize)> = None;
    while let Some(at) = rest.find('<') {
        if skipping.is_none() {
            out.push(&rest[..at]);
        }
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let Some(tag) = Tag::parse(rest) else {
            if !rest.contains('>') {
                break;
            }
            if skipping.is_none() {
                out.push("<");
            }
            rest = &rest[1..];
            continue;
        };
        rest = &rest[tag.length..];
        match &mut skipping {
            Some((name, open)) if *name == tag.name => {
                *open = if tag.closes { *open - 1 } else { *open + 1 };
                if *open == 0 {
                    skipping = None;
                }
            }
            Some(_) => {}
            None if !tag.closes && !tag.empty && SKIPPED.contains(&tag.name.as_str()) => {
                if RAW.contains(&tag.name.as_str()) {
                    rest = after_end_tag(rest, &tag.name);
                } else {
                    skipping = Some((tag.name, 1));
                }
            }
            None => out.tag(&tag),
        }
        // Some pages never close their head; the body ends it.
        if skipping.as_ref().is_some_and(|(name, _)| name == "head")
            && rest.trim_start().get(..5).is_some_and(|t| t.eq_ignore_ascii_case("<body"))
        {
            skipping = None;
        }
    }
    if skipping.is_none() {
        out.push(rest);
    }
    out.text.truncate(out.text.trim_end().len());
    out.text
}

/// What follows `</name … >`, or nothing when the element is never closed.
fn after_end_tag<'a>(text: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let at = from + at + 2;
        if text.as_bytes()[at..].get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes())) {
            return text[at..].find('>').map_or("", |end| &text[at + end + 1..]);
        }
        from = at;
    }
    ""
}

pub(crate) struct Tag {
    /// In lower case.
    pub name: String,
    pub closes: bool,
    /// `<name/>`.
    pub empty: bool,
    /// Bytes from `<` to `>`.
    pub length: usize,
}

impl Tag {
    /// The tag at the start of `text`, or nothing when the `<` is only a sign.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let closes = bytes.get(1) == Some(&b'/');
        let name_at = 1 + usize::from(closes);
        if !bytes.get(name_at).is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'!' | b'?')) {
            return None;
        }
        let name_end = bytes[name_at..].iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'));
        let name_end = name_at + name_end?;
        // A `>` inside a quoted attribute does not end the tag.
        let mut quote = None;
        for (i, byte) in bytes.iter().enumerate().skip(name_end) {
            match (byte, quote) {
                (b'>', None) => {
                    let name = text[name_at..name_end].to_ascii_lowercase();
                    return Some(Self { name, closes, empty: bytes[i - 1] == b'/', length: i + 1 });
                }
                (b'"' | b'\'', None) if bytes[i - 1] == b'=' => quote = Some(*byte),
                (byte, Some(open)) if *byte == open => quote = None,
                _ => {}
            }
        }
        // A quote that is never closed: the tag ends at the first `>`, so that one mistake does not take the rest of the page.
        let end = text[name_end..].find('>')?;
        Some(Self { name: text[name_at..name_end].to_ascii_lowercase(), closes, empty: false, length: name_end + end + 1 })
    }
}

#[derive(Default)]
struct Output {
    text: String,
    /// Line ends owed before the next character: 1 after a block, 2 after a paragraph.
    line_ends: usize,
    space: bool,
    /// Open `pre` elements, inside which white space is kept.
    preformatted: usize,
    decoded: String,
}

impl Output {
    fn tag(&mut self, tag: &Tag) {
        let name = tag.name.as_str();
        if name == "pre" {
            self.preformatted = if tag.closes { self.preformatted.saturating_sub(1) } else { self.preformatted + 1 };
        }
        if BLOCKS.contains(&name) {
            let wanted = if PARAGRAPHS.contains(&name) { 2 } else { 1 };
            self.line_ends = self.line_ends.max(wanted);
            if name == "li" && !tag.closes {
                self.settle();
                self.text.push_str("- ");
            }
        } else if matches!(name, "td" | "th") {
            self.space = true;
        }
    }

    fn push(&mut self, escaped: &str) {
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        html_escape::decode_html_entities_to_string(escaped, &mut decoded);
        if self.preformatted > 0 && !decoded.is_empty() {
            self.settle();
            self.text.push_str(&decoded);
        } else {
            let mut words = decoded.split(|c: char| c.is_ascii_whitespace() || c == '\u{a0}').peekable();
            while let Some(word) = words.next() {
                if !word.is_empty() {
                    self.settle();
                    self.text.push_str(word);
                }
                self.space |= words.peek().is_some();
            }
        }
        self.decoded = decoded;
    }

    /// Writes the white space that is owed.
    fn settle(&mut self) {
        if self.line_ends > 0 {
            let there = self.text.bytes().rev().take_while(|b| *b == b'\n').count();
            if !self.text.is_empty() {
                self.text.extend(std::iter::repeat_n('\n', self.line_ends.saturating_sub(there)));
            }
        } else if self.space && !self.text.is_empty() && !self.text.ends_with(char::is_whitespace) {
            self.text.push(' ');
        }
        (self.line_ends, self.space) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(page: &str, expected: &str) {
        assert_eq!(text(page), expected, "{page}");
    }

    #[test]
    fn text_of_pages() {
        check("<p>One &amp; two</p><p>three</p>", "One & two\n\nthree");
        check("a <b>bold</b>\n  word<i>s</i>", "a bold words");
        check("<head><title>T</title><style>p > a {}</style></head><body><h1>H</h1>x<br>y</body>", "H\n\nx\ny");
        check("<head><meta charset=utf-8>\n<body>no end of head", "no end of head");
        check("<script>if (a < b) document.write('</p><p>')</script>after", "after");
        check("<SCRIPT>never closed", "");
        check("<nav><nav>inner</nav> menu</nav>text", "text");
        check("<ul><li>one<li>two</ul>", "- one\n- two");
        check("<pre>a  b\n   c</pre>", "a  b\n   c");
        check("<table><tr><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>", "1 2\n3");
        check("<a title=\"x > y\">link</a> 3 < 4 <", "link 3 < 4 <");
        check("<!-- <p>hidden</p> -->seen<!-- open", "seen");
        check("&#20013;&#x6587;&nbsp;&unknown;", "中文 &unknown;");
        check("<p>日本<", "日本<");
        check("<a href=\"x>one</a> two", "one two");
        check(&"<a ".repeat(1_000_000), "<a ".repeat(1_000_000).trim_end());
    }

    #[test]
    fn the_declared_encoding() {
        let name = |page: &[u8]| declared_encoding(page).map(Encoding::name);
        assert_eq!(name(b"<meta charset=\"GB2312\">"), Some("GBK"));
        assert_eq!(name(b"<meta content='text/html; charset=iso-8859-1'>"), Some("windows-1252"));
        assert_eq!(name(b"<meta charset="), None);
        assert_eq!(name(b"<p>"), None);
    }
}
