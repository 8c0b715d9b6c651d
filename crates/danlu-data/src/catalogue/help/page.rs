//! One page as blocks. What a help viewer shows or hides by a script (the words of another system or module, menus, an index) is decided
//! here, so that a page reads as it does on one machine.

use std::borrow::Cow;

use crate::source::html::Tag;

/// The page proper is in this element; what follows it is the viewer's.
pub(super) const AREA: &str = "id=\"DisplayArea\"";
pub(super) const AFTER: &str = "id=\"SearchFrame\"";
/// Elements of the page that are not its text: links to other pages.
pub(super) const SKIPPED: [&str; 1] = ["class=\"relatedtopics\""];
/// Inline elements with one child for each system or module, of which a viewer shows one.
const SWITCHES: [&str; 2] = ["class=\"switchinline\"", "class=\"switch\""];
/// Switches inside one another; pages have two.
const DEEPEST: usize = 8;

/// A page of help.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// Without language and ending: `swriter/guide/footnote_usage`.
    pub name: String,
    /// Of the page's root element: `en`, `zh`.
    pub language: String,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    pub kind: Kind,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Heading,
    Paragraph,
    /// Of a numbered list, with its number.
    Step(usize),
    Item,
    /// A further paragraph of a step or an item.
    Within,
    /// Of a table; cells are kept apart by bars.
    Row,
}

impl Page {
    /// The name and the language of the page in `html`, which lies at `path` in its package.
    pub fn head(path: &str, html: &str) -> (String, String) {
        let language = attribute(html, "lang").unwrap_or("en").split('-').next().unwrap_or("en").to_owned();
        // Both of whole paths and of those that begin inside the help.
        let name = path.rsplit_once("/text/").map(|(_, name)| name).or(path.strip_prefix("text/")).unwrap_or(path);
        (name.trim_end_matches(".html").to_owned(), language)
    }

    /// The page in `html`, which lies at `path` in its package.
    pub fn parse(path: &str, html: &str) -> Self {
        let (name, language) = Self::head(path, html);
        let begin = html.find(AREA).map_or(0, |at| html[at..].find('>').map_or(at, |end| at + end + 1));
        let end = html[begin..].find(AFTER).map_or(html.len(), |at| begin + html[begin..begin + at].rfind('<').unwrap_or(at));
        let mut reader = Reader { module: module_class(&name), ..Reader::default() };
        reader.read(&html[begin..end]);
        reader.close();
        Self { name, language, blocks: reader.blocks }
    }

    /// As a document: blocks apart by an empty line, lines of a list or a table below one another.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut before: Option<Kind> = None;
        for Block { kind, text: line } in &self.blocks {
            let listed = |kind| matches!(kind, Kind::Step(_) | Kind::Item | Kind::Within | Kind::Row);
            if let Some(before) = before {
                text.push_str(if listed(before) && listed(*kind) { "\n" } else { "\n\n" });
            }
            text.push_str(&marked(*kind, line));
            before = Some(*kind);
        }
        text
    }
}

/// A line with what stands before it in a list.
pub fn marked(kind: Kind, line: &str) -> Cow<'_, str> {
    match kind {
        Kind::Step(number) => format!("{number}. {line}").into(),
        Kind::Item => format!("- {line}").into(),
        Kind::Within => format!("  {line}").into(),
        Kind::Heading | Kind::Paragraph | Kind::Row => line.into(),
    }
}

/// The class that marks the words of the page's own module.
pub(super) fn module_class(name: &str) -> &'static str {
    match name.split('/').next().unwrap_or_default() {
        "scalc" => "CALC",
        "simpress" => "IMPRESS",
        "sdraw" => "DRAW",
        "schart" => "CHART",
        "smath" => "MATH",
        "sdatabase" => "BASE",
        _ => "WRITER",
    }
}

#[derive(Default)]
pub(super) struct Reader {
    module: &'static str,
    blocks: Vec<Block>,
    open: Option<Kind>,
    line: String,
    space: bool,
    /// Open lists: the number of the last step, or nothing for one without numbers.
    lists: Vec<Option<usize>>,
    /// Inside a row of a table, where paragraphs are cells.
    rows: usize,
    /// The next text begins an entry of the list.
    entry: bool,
    inside_entry: usize,
    /// Switches inside which the text at hand is.
    switches: usize,
}

impl Reader {
    /// The text of a part of a page, in one line.
    pub fn text(module: &'static str, html: &str) -> String {
        let mut reader = Reader { module, ..Reader::default() };
        reader.read(html);
        reader.close();
        let lines: Vec<String> = reader.blocks.into_iter().map(|block| block.text).collect();
        lines.join(" ")
    }

    fn read(&mut self, html: &str) {
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            self.push(&rest[..at]);
            rest = &rest[at..];
            if let Some(comment) = rest.strip_prefix("<!--") {
                rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
                continue;
            }
            let Some(tag) = Tag::parse(rest) else {
                self.push("<");
                rest = &rest[1..];
                continue;
            };
            let written = &rest[..tag.length];
            rest = &rest[tag.length..];
            if tag.closes || tag.empty {
                self.end(&tag.name);
            } else if SWITCHES.iter().any(|switch| written.contains(switch)) {
                let (inner, after) = element(rest, &tag.name);
                if self.switches < DEEPEST {
                    self.switches += 1;
                    self.read(shown(inner, self.module));
                    self.switches -= 1;
                }
                rest = after;
            } else if tag.name == "script" || SKIPPED.iter().any(|skipped| written.contains(skipped)) {
                rest = element(rest, &tag.name).1;
            } else {
                self.begin(&tag.name);
            }
        }
        self.push(rest);
    }

    fn begin(&mut self, name: &str) {
        match name {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.open(Kind::Heading),
            "ol" | "ul" => {
                self.close();
                self.lists.push((name == "ol").then_some(0));
            }
            "li" => {
                self.close();
                if let Some(Some(number)) = self.lists.last_mut() {
                    *number += 1;
                }
                self.entry = true;
                self.inside_entry += 1;
            }
            "tr" => {
                self.open(Kind::Row);
                self.rows += 1;
            }
            "td" | "th" if self.rows > 0 && !self.line.is_empty() => {
                self.line.push_str(" |");
                self.space = true;
            }
            "p" | "div" | "table" | "pre" if self.rows == 0 => self.close(),
            "br" => self.space = true,
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "ol" | "ul" => {
                self.close();
                self.lists.pop();
            }
            "li" => {
                self.close();
                self.entry = false;
                self.inside_entry = self.inside_entry.saturating_sub(1);
            }
            "tr" => {
                self.rows = self.rows.saturating_sub(1);
                self.close();
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.close(),
            "p" | "div" | "table" | "pre" if self.rows == 0 => self.close(),
            "br" => self.space = true,
            _ => {}
        }
    }

    fn open(&mut self, kind: Kind) {
        self.close();
        self.open = Some(kind);
    }

    fn close(&mut self) {
        self.space = false;
        let kind = self.open.take();
        let line = std::mem::take(&mut self.line);
        let line = line.trim_matches([' ', '|']);
        if !line.is_empty() {
            self.blocks.push(Block { kind: kind.unwrap_or(Kind::Paragraph), text: line.to_owned() });
        }
    }

    fn push(&mut self, escaped: &str) {
        let decoded = html_escape::decode_html_entities(escaped);
        let mut words = decoded.split(|c: char| c.is_whitespace()).peekable();
        while let Some(word) = words.next() {
            if !word.is_empty() {
                self.begin_line();
                if self.space && !self.line.is_empty() && !self.line.ends_with(' ') {
                    self.line.push(' ');
                }
                self.line.push_str(word);
                self.space = false;
            }
            self.space |= words.peek().is_some();
        }
    }

    /// What kind of block the text at hand begins, when none is open.
    fn begin_line(&mut self) {
        if self.open.is_some() {
            return;
        }
        self.space = false;
        self.open = Some(match (std::mem::take(&mut self.entry), self.lists.last()) {
            (true, Some(Some(number))) => Kind::Step(*number),
            (true, _) => Kind::Item,
            (false, _) if self.inside_entry > 0 => Kind::Within,
            (false, _) => Kind::Paragraph,
        });
    }
}

/// What is inside an element whose begin tag was just read, and what follows it.
pub(super) fn element<'a>(html: &'a str, name: &str) -> (&'a str, &'a str) {
    let (mut at, mut open) = (0, 1);
    while let Some(next) = html[at..].find('<') {
        let begin = at + next;
        let Some(tag) = Tag::parse(&html[begin..]) else {
            at = begin + 1;
            continue;
        };
        at = begin + tag.length;
        if tag.name == name && !tag.empty {
            open = if tag.closes { open - 1 } else { open + 1 };
            if open == 0 {
                return (&html[..begin], &html[at..]);
            }
        }
    }
    (html, "")
}

/// The child of a switch that is shown: the module's own, else the one for all others, else the first that is not for one system alone.
fn shown<'a>(switch: &'a str, module: &str) -> &'a str {
    let mut children: Vec<(&str, &str)> = Vec::new();
    let mut rest = switch;
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let Some(tag) = Tag::parse(rest) else { break };
        let written = &rest[..tag.length];
        let (inner, after) = if tag.closes { ("", &rest[tag.length..]) } else { element(&rest[tag.length..], &tag.name) };
        if !tag.closes {
            children.push((written, inner));
        }
        rest = after;
    }
    let find = |mark: &str| children.iter().find(|(tag, _)| tag.contains(mark)).map(|(_, inner)| *inner);
    let of_module = find(&format!("class=\"{module}\""));
    let any = || children.iter().find(|(tag, _)| !tag.contains("class=\"MAC\"")).map(|(_, inner)| *inner);
    of_module.or_else(|| find("id=\"default")).or_else(any).unwrap_or_default()
}

pub(super) fn attribute<'a>(html: &'a str, name: &str) -> Option<&'a str> {
    let at = html.find(&format!("{name}=\""))? + name.len() + 2;
    html[at..].split('"').next()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Cut from a real page: furniture around the page, a switch, lists with more than one paragraph, a table.
    pub const PAGE: &str = r#"<html lang="en-US" dir="ltr"><head><title>x</title></head><body><header><p>LibreOffice 7.4 Help</p></header>
<div id="DisplayArea" itemscope="true">
<h1 id="a" dir="auto"><a name="b"></a>Inserting and
Editing Footnotes</h1>
<p class="paragraph">Footnotes &amp; endnotes, see <a href="x.html"><span class="emph">Insert - Footnote</span></a>.</p>
<h2>To Insert a Footnote</h2>
<ol><li><p class="listitem">Click where the anchor goes.</p></li>
<li><p>Press <span class="switchinline"><span hidden="true" id="MACx" class="MAC"><span class="keycode">Command</span></span><span hidden="true" id="defaultx"><span class="keycode">Ctrl</span></span></span>+F.</p><p>A window opens.</p>
<ul><li>inner</li></ul></li>
<li><p>Click <span class="emph">OK</span>.</p></li></ol>
<table><tr><th><p>Key</p></th><th><p>Use</p></th></tr><tr><td><p>F1</p></td><td><p>Help</p></td></tr></table>
<span class="switch"><span hidden class="WRITER">for Writer</span><span hidden class="CALC">for Calc</span></span>
<div class="relatedtopics"><div>other</div> pages</div>
</div><div id="SearchFrame"></div><footer>debug</footer></body></html>"#;

    #[test]
    fn a_page_reads_as_people_see_it() {
        let page = Page::parse("usr/share/help/en-US/text/swriter/guide/notes.html", PAGE);
        assert_eq!((page.name.as_str(), page.language.as_str()), ("swriter/guide/notes", "en"));
        let text = "Inserting and Editing Footnotes\n\nFootnotes & endnotes, see Insert - Footnote.\n\nTo Insert a Footnote\n\n\
            1. Click where the anchor goes.\n2. Press Ctrl+F.\n  A window opens.\n- inner\n3. Click OK.\nKey | Use\nF1 | Help\n\nfor Writer";
        assert_eq!(page.text(), text);
        let page = Page::parse("text/scalc/notes.html", PAGE);
        assert!(page.text().ends_with("for Calc"));
    }

    #[test]
    fn broken_pages_end() {
        for html in ["", "<", "<ol><li>", "<span class=\"switch\"><span", "</li></li></ol></tr>x", "<p>a<b", "日<本"] {
            Page::parse("", html).text();
        }
        let deep = "<ol><li>".repeat(10_000);
        assert_eq!(Page::parse("", &deep).text(), "");
        let switches = format!("<span class=\"switch\">{}", "<span class=\"switch\">".repeat(200));
        assert_eq!(Page::parse("", &switches).text(), "");
    }
}
