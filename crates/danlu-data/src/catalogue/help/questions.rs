//! Questions that pages of help answer, made from their own words: a heading over numbered steps asks how something is done, and a title
//! over its first paragraph asks what something is. The same pages always give the same questions.

use std::collections::HashSet;

use super::page::marked;
use super::{Block, Kind, Page};

/// Answers longer than this are pages, not answers; shorter ones say too little.
const LONGEST: usize = 900;
const SHORTEST: usize = 40;
/// A first paragraph that defines is short.
const DEFINITION: usize = 420;
const TITLE: usize = 90;
/// Words that keep their capital inside a sentence.
const NAMES: [&str; 24] = [
    "LibreOffice",
    "Basic",
    "Writer",
    "Calc",
    "Impress",
    "Draw",
    "Math",
    "Base",
    "Java",
    "Python",
    "Microsoft",
    "Windows",
    "Office",
    "Excel",
    "Word",
    "Unicode",
    "Internet",
    "English",
    "Chinese",
    "Japanese",
    "Greek",
    "Asian",
    "Navigator",
    "Gallery",
];

/// A question with its answer, and the page that both are from.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    pub page: String,
    pub question: String,
    pub answer: String,
}

/// The questions that a page answers.
pub fn questions(page: &Page) -> Vec<Question> {
    let mut found = Vec::new();
    let place = place(&page.name, &page.language);
    for (i, block) in page.blocks.iter().enumerate().filter(|(_, block)| block.kind == Kind::Heading) {
        let title = block.text.trim_end_matches(['.', ':', '。', '：']).trim();
        if title.is_empty() || title.len() > TITLE {
            continue;
        }
        let section: Vec<&Block> = page.blocks[i + 1..].iter().take_while(|block| block.kind != Kind::Heading).collect();
        let asked = match (steps(&section), definition(&section).filter(|_| i == 0)) {
            (Some(steps), _) => how(title, &place, &page.language).map(|question| (question, steps)),
            (None, Some(text)) => what(title, text, &place, &page.language).map(|question| (question, text.to_owned())),
            (None, None) => None,
        };
        found.extend(asked.map(|(question, answer)| Question { page: page.name.clone(), question, answer }));
    }
    found
}

/// Questions in the order of their pages, each question and each answer once: pages share sections.
pub fn distinct(mut all: Vec<Question>) -> Vec<Question> {
    all.sort_by(|a, b| a.page.cmp(&b.page));
    let (mut asked, mut answered) = (HashSet::new(), HashSet::new());
    all.retain(|one| asked.insert(one.question.to_lowercase()) && answered.insert(one.answer.clone()));
    all
}

/// The numbered steps of a section, with what belongs to each, when there are at least two.
fn steps(section: &[&Block]) -> Option<String> {
    let first = section.iter().position(|block| matches!(block.kind, Kind::Step(1)))?;
    let listed = section[first..].iter().take_while(|block| matches!(block.kind, Kind::Step(_) | Kind::Item | Kind::Within));
    let lines: Vec<_> = listed.map(|block| marked(block.kind, &block.text)).collect();
    let answer = lines.join("\n");
    let two = lines.iter().any(|line| line.starts_with("2. "));
    (two && (SHORTEST..=LONGEST).contains(&answer.len())).then_some(answer)
}

/// The paragraph right under a title.
fn definition<'a>(section: &[&'a Block]) -> Option<&'a str> {
    let first = section.first().filter(|block| block.kind == Kind::Paragraph)?;
    let text = first.text.trim();
    ((SHORTEST..=DEFINITION).contains(&text.len()) && text.ends_with(['.', '。'])).then_some(text)
}

fn how(title: &str, place: &str, language: &str) -> Option<String> {
    if language == "zh" {
        let title = title.strip_prefix('要').unwrap_or(title);
        return Some(format!("在 {place} 中如何{title}？"));
    }
    let place = if title.contains("LibreOffice") { String::new() } else { format!(" in {place}") };
    if let Some(rest) = title.strip_prefix("To ").or_else(|| title.strip_prefix("How to ")) {
        return Some(format!("How do I {}{place}?", in_a_sentence(rest)));
    }
    let first = title.split(' ').next().unwrap_or_default();
    (first.len() > 5 && first.ends_with("ing")).then(|| format!("What are the steps for {}{place}?", in_a_sentence(title)))
}

fn what(title: &str, text: &str, place: &str, language: &str) -> Option<String> {
    if language == "zh" {
        return Some(format!("{place} 中的“{title}”是什么？"));
    }
    let first = text.split(' ').next().unwrap_or_default();
    // "Opens a dialog …", "Returns the number …": what a command does.
    let does = first.ends_with('s') && !first.ends_with("ss") && first.chars().all(char::is_alphabetic);
    let does = does && !["This", "These", "Always", "Functions", "Fields", "Commands"].contains(&first);
    // The title of a task is no thing to ask about, and "Footnotes and endnotes, see …" below it no command.
    if title.starts_with("To ") || title.split(' ').next().is_some_and(|word| word.ends_with("ing")) {
        return None;
    }
    Some(if does { format!("What does \"{title}\" do in {place}?") } else { format!("What is \"{title}\" in {place}?") })
}

/// A title inside a sentence: its words lose the capitals that titles have, but for names.
fn in_a_sentence(title: &str) -> String {
    let word = |word: &str| {
        let plain = word.chars().next().is_some_and(char::is_uppercase) && word.chars().skip(1).all(|c| !c.is_uppercase());
        let name = NAMES.contains(&word.trim_matches(|c: char| !c.is_alphanumeric()));
        if plain && !name { word.to_lowercase() } else { word.to_owned() }
    };
    title.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// What a page is about, by the folder it is in.
fn place(name: &str, language: &str) -> String {
    let module = match name.split('/').next().unwrap_or_default() {
        "swriter" => " Writer",
        "scalc" => " Calc",
        "simpress" => " Impress",
        "sdraw" => " Draw",
        "smath" => " Math",
        "sdatabase" => " Base",
        "sbasic" => " Basic",
        "schart" if language == "zh" => " 图表",
        "schart" => " charts",
        _ => "",
    };
    format!("LibreOffice{module}")
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::PAGE;
    use super::*;

    #[test]
    fn steps_answer_how_and_paragraphs_answer_what() {
        let found = questions(&Page::parse("text/swriter/guide/notes.html", PAGE));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].question, "How do I insert a footnote in LibreOffice Writer?");
        assert!(
            found[0].answer.starts_with("1. Click where") && found[0].answer.ends_with("3. Click OK."),
            "{}",
            found[0].answer
        );
        assert_eq!(found[0].page, "swriter/guide/notes");

        let check = |language: &str, title: &str, text: &str, expected: Option<&str>| {
            let html = format!("<html lang=\"{language}\"><h1>{title}</h1><p>{text}</p>");
            let found = questions(&Page::parse("text/scalc/01/a.html", &html));
            assert_eq!(found.first().map(|one| one.question.as_str()), expected, "{title}");
        };
        let opens = "Opens a dialog in which columns are sorted by their rows.";
        check("en-US", "Sort", opens, Some("What does \"Sort\" do in LibreOffice Calc?"));
        check("en-US", "Ruler", "A ruler is the line at the edge of a document.", Some("What is \"Ruler\" in LibreOffice Calc?"));
        check("en-US", "Sorting", "You can sort columns by their rows, in either order.", None);
        check("en-US", "Sort", "Short.", None);
        check("zh-CN", "排序", "按照指定的条件对选定的行进行排序，并打开对话框。", Some("LibreOffice Calc 中的“排序”是什么？"));
    }

    #[test]
    fn a_question_is_asked_once() {
        let one = |page: &str, question: &str, answer: &str| Question {
            page: page.into(),
            question: question.into(),
            answer: answer.into(),
        };
        let all = vec![one("b", "How?", "so"), one("a", "how?", "thus"), one("c", "Why?", "thus"), one("d", "What?", "it")];
        let pages: Vec<String> = distinct(all).into_iter().map(|one| one.page).collect();
        assert_eq!(pages, ["a", "d"].map(String::from));
    }
}
