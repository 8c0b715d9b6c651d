use serde_json::{Deserializer, Value, json};

/// What stands around a call that Hermes and Qwen write.
pub const OPEN: &str = "<tool_call>";
pub const CLOSE: &str = "</tool_call>";

/// Reads the calls in an answer while it is written.
///
/// What is in tags is a call, and so is an answer that is nothing but JSON, as Llama 3 writes them: one object or a list, or several with `;`
/// between; as long as it names a function that there is. What only looks like a call is text. Space round calls is left out.
pub struct CallReader {
    names: Vec<String>,
    state: State,
    /// Text that is not known to be a call or not.
    held: String,
    calls: usize,
    /// The most calls that are read.
    most: usize,
}

enum State {
    /// Nothing but space has been.
    Start,
    Text,
    /// After a call, where space is left out.
    Between,
    /// The answer may be JSON as a whole.
    Json,
    /// Inside tags.
    Tagged,
    /// The answer is one call, to which a grammar holds it, and its beginning has not been read to the end. What arguments are called.
    Forced(&'static str),
    /// The answer is one call, and its arguments are being read.
    Arguments,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(String),
    /// A call begins.
    Call {
        name: String,
    },
    /// More of the arguments of the call that began last, as JSON.
    Arguments(String),
}

impl CallReader {
    /// For answers in which there may be calls of these functions; only one, when not `parallel`.
    pub fn free(names: Vec<String>, parallel: bool) -> Self {
        let most = if parallel { usize::MAX } else { 1 };
        Self { names, state: State::Start, held: String::new(), calls: 0, most }
    }

    /// For answers that a grammar holds to one call, without tags.
    pub fn forced(names: Vec<String>, arguments: &'static str) -> Self {
        Self { names, state: State::Forced(arguments), held: String::new(), calls: 0, most: 1 }
    }

    /// How many calls there have been.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Takes more of the answer.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = vec![];
        while self.step(&mut pieces) {}
        pieces
    }

    /// The answer has ended; `cut` when it would have gone on.
    pub fn finish(&mut self, cut: bool) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        let mut pieces = vec![];
        match self.state {
            State::Start | State::Text => pieces.push(Piece::Text(held)),
            // Only space can be held there, or the beginning of a tag.
            State::Between => pieces.push(Piece::Text(held.trim().to_owned())),
            State::Json => self.call_or_text(&held, held.clone(), &mut pieces),
            State::Tagged => self.call_or_text(&held, format!("{OPEN}{held}"), &mut pieces),
            // A grammar that spells a call otherwise would end here.
            State::Forced(_) => self.call_or_text(&held, String::new(), &mut pieces),
            // What is held may be the end of the call, which is no part of its arguments.
            State::Arguments if cut => pieces.push(Piece::Arguments(held)),
            State::Arguments => {}
        }
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) | Piece::Arguments(text) if text.is_empty()));
        pieces
    }

    /// Reads on in what is held; whether there may be more to read.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Start | State::Between => {
                let between = matches!(self.state, State::Between);
                let text = self.held.trim_start();
                if text.is_empty() || OPEN.starts_with(text) {
                    return false;
                }
                self.state = if !between && text.starts_with(['{', '[']) { State::Json } else { State::Text };
                if between || text.starts_with(OPEN) {
                    self.held = text.to_owned();
                }
                true
            }
            State::Text => {
                if let Some(at) = self.held.find(OPEN) {
                    push_text(pieces, self.held[..at].trim_end());
                    self.held.drain(..at + OPEN.len());
                    self.state = State::Tagged;
                    return true;
                }
                // Space, and what may be the beginning of a tag, is held back.
                let may_open = |at: &usize| OPEN.starts_with(self.held[*at..].trim_start());
                let hold = self.held.char_indices().map(|(at, _)| at).find(may_open).unwrap_or(self.held.len());
                push_text(pieces, &self.held[..hold]);
                self.held.drain(..hold);
                false
            }
            State::Tagged => {
                let Some(at) = self.held.find(CLOSE) else { return false };
                let rest = self.held.split_off(at + CLOSE.len());
                let whole = std::mem::replace(&mut self.held, rest);
                self.state = State::Between;
                self.call_or_text(&whole[..at], format!("{OPEN}{whole}"), pieces);
                true
            }
            State::Forced(arguments) => {
                let begins = |name: &String| format!("{{{}: {}, {}: ", json!("name"), json!(name), json!(arguments));
                let found = self.names.iter().map(|name| (name, begins(name))).find(|(_, begins)| self.held.starts_with(begins));
                let Some((name, begins)) = found else { return false };
                pieces.push(Piece::Call { name: name.clone() });
                self.held.drain(..begins.len());
                self.calls += 1;
                self.state = State::Arguments;
                true
            }
            State::Arguments => {
                // The last brace is the call's own, and which is the last is known when nothing follows.
                let hold = self.held.len() - usize::from(self.held.ends_with('}'));
                if hold > 0 {
                    pieces.push(Piece::Arguments(self.held.drain(..hold).collect()));
                }
                false
            }
            State::Json => false,
        }
    }

    fn call_or_text(&mut self, calls: &str, text: String, pieces: &mut Vec<Piece>) {
        match read_calls(calls, &self.names) {
            Some(calls) => {
                for (name, arguments) in calls.into_iter().take(self.most - self.calls) {
                    pieces.extend([Piece::Call { name }, Piece::Arguments(arguments)]);
                    self.calls += 1;
                }
            }
            None => push_text(pieces, &text),
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// The names and arguments of calls that JSON holds; none when it is anything else.
fn read_calls(text: &str, names: &[String]) -> Option<Vec<(String, String)>> {
    let mut calls = vec![];
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        let value = values.next()?.ok()?;
        rest = rest[values.byte_offset()..].trim_start();
        rest = rest.strip_prefix(';').unwrap_or(rest).trim_start();
        match value {
            Value::Array(list) => calls.extend(list.iter().map(|one| read_call(one, names)).collect::<Option<Vec<_>>>()?),
            one => calls.push(read_call(&one, names)?),
        }
    }
    (!calls.is_empty()).then_some(calls)
}

fn read_call(value: &Value, names: &[String]) -> Option<(String, String)> {
    let value = value.get("function").filter(|function| function.is_object()).unwrap_or(value);
    let name = value.get("name")?.as_str().filter(|name| names.iter().any(|known| known == name))?;
    let arguments = match value.get("arguments").or_else(|| value.get("parameters")) {
        None | Some(Value::Null) => "{}".to_owned(),
        // Some models write them as text.
        Some(Value::String(text)) => serde_json::from_str::<Value>(text).ok().filter(Value::is_object)?.to_string(),
        Some(object) => Some(object).filter(|arguments| arguments.is_object())?.to_string(),
    };
    Some((name.to_owned(), arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> [Piece; 2] {
        [Piece::Call { name: name.to_owned() }, Piece::Arguments(arguments.to_owned())]
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    /// Pieces of one kind that follow each other are one.
    fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
        let mut joined: Vec<Piece> = vec![];
        for piece in pieces {
            match (joined.last_mut(), &piece) {
                (Some(Piece::Text(all)), Piece::Text(more)) | (Some(Piece::Arguments(all)), Piece::Arguments(more)) => {
                    all.push_str(more)
                }
                _ => joined.push(piece),
            }
        }
        joined
    }

    /// What is read must not depend on where the answer is cut into two.
    fn check(make: impl Fn() -> CallReader, answer: &str, cut: bool, expected: &[Piece]) {
        for at in (0..=answer.len()).filter(|at| answer.is_char_boundary(*at)) {
            let mut reader = make();
            let mut pieces = reader.push(&answer[..at]);
            pieces.extend(reader.push(&answer[at..]));
            pieces.extend(reader.finish(cut));
            let calls = pieces.iter().filter(|piece| matches!(piece, Piece::Call { .. })).count();
            assert_eq!(reader.calls(), calls);
            assert_eq!(joined(pieces), expected, "{answer:?} cut at {at}");
        }
    }

    fn names() -> Vec<String> {
        vec!["add".to_owned(), "look_up".to_owned()]
    }

    fn free(answer: &str, expected: &[Piece]) {
        check(|| CallReader::free(names(), true), answer, false, expected);
    }

    #[test]
    fn calls_in_tags_are_read() {
        let one = call("add", r#"{"a":1,"b":[2,"}"]}"#);
        let two = call("look_up", r#"{"what":"茶"}"#);
        let tagged = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [2, \"}\"]}}\n</tool_call>";
        free(tagged, &one);
        free(&format!("\n{tagged}\n"), &one);
        let both =
            format!("Let me see. \n{tagged}\n<tool_call>{{\"name\":\"look_up\",\"arguments\":{{\"what\":\"茶\"}}}}</tool_call>");
        free(&both, &[&[text("Let me see.")][..], &one, &two].concat());
        // The end of the turn may take the place of the tag.
        free(tagged.trim_end_matches(CLOSE), &one);
        free(&format!("{tagged}\nDone."), &[&one[..], &[text("Done.")]].concat());
        check(|| CallReader::free(names(), false), &both, false, &[&[text("Let me see.")][..], &one].concat());
    }

    #[test]
    fn json_alone_is_a_call_when_it_names_a_function() {
        free(r#" {"name": "add", "parameters": {"a": 1}}"#, &call("add", r#"{"a":1}"#));
        free(
            r#"{"name": "add"}; {"name": "look_up", "arguments": "{\"b\": 2}"}"#,
            &[call("add", "{}"), call("look_up", r#"{"b":2}"#)].concat(),
        );
        free(r#"[{"type": "function", "function": {"name": "add", "arguments": {}}}]"#, &call("add", "{}"));
    }

    #[test]
    fn what_only_looks_like_a_call_is_text() {
        for answer in [
            "Hello, world.",
            "  two spaces, and a tag's beginning: <tool_",
            "a < b, and <tool > is none",
            r#"{"name": "subtract", "arguments": {}}"#,
            r#"{"name": "add", "arguments": 3}"#,
            r#"{"name": "add", "arguments": {}} and more"#,
            "{not JSON",
            "[1, 2]",
            "<tool_call>{not JSON}</tool_call>",
            "<tool_call>\n{\"name\": \"add\", \"argum",
            "",
            "   ",
        ] {
            let expected: Vec<Piece> = (!answer.is_empty()).then(|| text(answer)).into_iter().collect();
            free(answer, &expected);
        }
    }

    #[test]
    fn text_is_passed_on_as_soon_as_it_can_be() {
        let mut reader = CallReader::free(names(), true);
        assert_eq!(reader.push("Well"), [text("Well")]);
        assert_eq!(reader.push(", a <"), [text(", a")]);
        assert_eq!(reader.push("b"), [text(" <b")]);
        assert_eq!(reader.push("> <tool"), [text(">")]);
        assert!(reader.push("_call>{").is_empty());
    }

    #[test]
    fn a_call_that_must_be_made_is_passed_on_while_it_is_written() {
        let forced = || CallReader::forced(names(), "arguments");
        let whole = r#"{"name": "look_up", "arguments": {"what": "a } b", "in": {}}}"#;
        let arguments = r#"{"what": "a } b", "in": {}}"#;
        check(forced, whole, false, &call("look_up", arguments));
        check(forced, r#"{"name": "add", "arguments": {}}"#, false, &call("add", "{}"));
        check(forced, &whole[..whole.len() - 2], true, &call("look_up", &arguments[..arguments.len() - 1]));
        check(forced, r#"{"name": "lo"#, true, &[]);
        check(forced, r#"{"name":"add","arguments":{"a":1}}"#, false, &call("add", r#"{"a":1}"#));
        let mut reader = forced();
        assert!(reader.push(r#"{"name": "add", "arg"#).is_empty());
        assert_eq!(reader.push(r#"uments": {"a""#), call("add", r#"{"a""#));
    }
}
