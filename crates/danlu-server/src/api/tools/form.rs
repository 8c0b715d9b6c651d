use anyhow::Result;
use danlu_data::chat::{Encoder, Message, Role, Template, ToolCall};
use serde_json::{Value, json};

use super::Tools;
use super::reader::{CLOSE, OPEN};

/// How a model is told of tools and writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallForm {
    /// Its template writes `<tool_call>{"name": …, "arguments": …}</tool_call>`, as those of Hermes and Qwen.
    Tagged,
    /// Its template writes `{"name": …, "parameters": …}` alone, as that of Llama 3.
    Parameters,
    /// Its template writes calls in another way; those that must be made are `{"name": …, "arguments": …}`.
    Other,
    /// Its template knows no tools: the system message tells of them in Hermes' words, calls are written as there, and results are a user's
    /// `<tool_response>…</tool_response>`.
    Described,
}

/// Words that a template is tried with, and which it would not write itself.
const FUNCTION: &str = "look_up_a_tea";
const DESCRIPTION: &str = "Finds what is known of a tea.";
const SUBJECT: &str = "oolong";

impl CallForm {
    /// What a template does with tools, found out by letting it write a call.
    pub fn of(template: &Template) -> Self {
        let parameters = json!({"type": "object", "properties": {"tea": {"type": "string"}}, "required": ["tea"]});
        let function = json!({"name": FUNCTION, "description": DESCRIPTION, "parameters": parameters});
        let tools = [json!({"type": "function", "function": function})];
        // Some templates take only identifiers of nine letters and digits.
        let call = ToolCall { id: Some("call00001".to_owned()), ..ToolCall::new(FUNCTION, json!({"tea": SUBJECT})) };
        let calls = Message { content: None, tool_calls: vec![call], ..Message::assistant("") };
        let Ok(text) = template.render(&[Message::user("Hello"), calls], &tools, false) else { return Self::Described };
        let Some(subject) = text.rfind(SUBJECT).filter(|_| text.contains(DESCRIPTION)) else { return Self::Described };
        let Some(name) = text[..subject].rfind(FUNCTION) else { return Self::Described };
        let tag = text[..name].rfind(OPEN).map(|at| text[at + OPEN.len()..name].trim_start());
        let key = &text[name..subject];
        match tag {
            Some(inside) if inside.starts_with('{') && key.contains("\"arguments\"") => Self::Tagged,
            None if key.contains("\"parameters\"") => Self::Parameters,
            _ => Self::Other,
        }
    }

    /// What a call's arguments are called.
    pub fn arguments(self) -> &'static str {
        if self == Self::Parameters { "parameters" } else { "arguments" }
    }

    /// The tokens of a prompt for an answer, or for a call when one must be made.
    ///
    /// # Errors
    /// When the template refuses the messages.
    pub fn prompt(self, encoder: &Encoder, messages: Vec<Message>, tools: Option<&Tools>) -> Result<Vec<u32>> {
        let values = tools.map(Tools::values).unwrap_or_default();
        let text = match self {
            Self::Described => encoder.template().render(&described(messages, &values), &[], true)?,
            _ => encoder.template().render(&messages, &values, true)?,
        };
        let begun = match self {
            Self::Tagged | Self::Described if tools.is_some_and(Tools::is_forced) => format!("{text}{OPEN}\n"),
            _ => text,
        };
        encoder.tokenizer().encode_with_special(&begun)
    }
}

/// A conversation with tools for a template that knows none.
fn described(messages: Vec<Message>, tools: &[Value]) -> Vec<Message> {
    let mut told: Vec<Message> = vec![];
    if !tools.is_empty() {
        let lines: String = tools.iter().map(|tool| format!("\n{tool}")).collect();
        told.push(Message::system(format!(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures \
             within <tools></tools> XML tags:\n<tools>{lines}\n</tools>\n\nFor each function call, return a json object with function \
             name and arguments within {OPEN}{CLOSE} XML tags:\n{OPEN}\n{{\"name\": <function-name>, \"arguments\": \
             <args-json-object>}}\n{CLOSE}"
        )));
    }
    let mut results = false;
    for (i, mut message) in messages.into_iter().enumerate() {
        let result = message.role == Role::Tool;
        match (message.role, told.last_mut()) {
            (Role::System | Role::Developer, Some(tools)) if i == 0 => {
                tools.content = Some(format!("{}\n\n{}", message.text(), tools.text()));
            }
            (Role::Tool, Some(before)) if results => {
                before.content = Some(format!("{}\n{}", before.text(), response(&message)));
            }
            (Role::Tool, _) => told.push(Message::user(response(&message))),
            _ => {
                let calls = std::mem::take(&mut message.tool_calls);
                let mut lines: Vec<String> = message.content.take().filter(|text| !text.is_empty()).into_iter().collect();
                lines.extend(calls.iter().map(|call| {
                    let call = json!({"name": call.function.name, "arguments": call.function.arguments});
                    format!("{OPEN}\n{call}\n{CLOSE}")
                }));
                message.content = Some(lines.join("\n"));
                told.push(message);
            }
        }
        results = result;
    }
    told
}

fn response(message: &Message) -> String {
    format!("<tool_response>\n{}\n</tool_response>", message.text())
}

#[cfg(test)]
mod tests {
    use danlu_data::chat::CHATML;
    use serde_json::Map;

    use super::*;

    fn form(source: &str) -> CallForm {
        CallForm::of(&Template::new(source, Map::new()).unwrap())
    }

    #[test]
    fn what_a_template_does_with_tools_is_found_out() {
        assert_eq!(form(CHATML), CallForm::Tagged);
        let plain = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
        assert_eq!(form(plain), CallForm::Described);
        // It adds text to nothing, and so refuses the call.
        assert_eq!(form("{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"), CallForm::Described);
        let calls = |call: &str| {
            let tools = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}";
            format!(
                "{tools}{{% for m in messages %}}{{% if m.tool_calls %}}{{% set f = m.tool_calls[0].function %}}{call}{{% else %}}{{{{ m.content }}}}{{% endif %}}{{% endfor %}}"
            )
        };
        let llama = "{{ '{\"name\": \"' + f.name + '\", \"parameters\": ' + (f.arguments | tojson) + '}' }}";
        assert_eq!(form(&calls(llama)), CallForm::Parameters);
        assert_eq!(form(&calls("{{ f.name }}({{ f.arguments.tea }})")), CallForm::Other);
        assert_eq!(
            form(&calls("<tool_call>\n<function={{ f.name }}>{{ f.arguments.tea }}</function>\n</tool_call>")),
            CallForm::Other
        );
    }

    #[test]
    fn tools_are_described_where_the_template_knows_none() {
        let call = |subject: &str| ToolCall::new("look_up", json!({"subject": subject}));
        let result = |text: &str| Message::new(Role::Tool, text);
        let messages = vec![
            Message::system("Be brief."),
            Message::user("Tea?"),
            Message { content: None, tool_calls: vec![call("tea"), call("cup")], ..Message::assistant("") },
            result("a leaf"),
            result("a vessel"),
            Message::user("Thanks."),
        ];
        let told = described(messages.clone(), &[json!({"type": "function", "function": {"name": "look_up"}})]);
        assert_eq!(told.iter().map(|m| m.role.name()).collect::<Vec<_>>(), ["system", "user", "assistant", "user", "user"]);
        assert!(told[0].text().starts_with("Be brief.\n\n# Tools\n\n"));
        assert!(told[0].text().contains("<tools>\n{\"type\":\"function\",\"function\":{\"name\":\"look_up\"}}\n</tools>"));
        let one = |subject: &str| {
            format!("<tool_call>\n{{\"name\":\"look_up\",\"arguments\":{{\"subject\":\"{subject}\"}}}}\n</tool_call>")
        };
        assert_eq!(told[2].text(), format!("{}\n{}", one("tea"), one("cup")));
        assert!(told.iter().all(|message| message.tool_calls.is_empty()));
        let both = "<tool_response>\na leaf\n</tool_response>\n<tool_response>\na vessel\n</tool_response>";
        assert_eq!(told[3].text(), both);
        // A conversation without tools stays as it is, and old calls can still be read.
        let plain = vec![Message::user("Tea?"), Message::assistant("Yes.")];
        assert_eq!(described(plain.clone(), &[]), plain);
        assert_eq!(described(messages, &[])[0].text(), "Be brief.");
    }
}
