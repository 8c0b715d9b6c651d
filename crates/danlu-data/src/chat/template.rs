//! Chat templates: Jinja programs that turn messages into the text a model was trained on, run as `transformers` runs them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, escape_formatter};
use serde_json::{Map, Value as Json, json};

use super::{Message, python};

/// The template that a model without one gets: ChatML (OpenAI 2023), which with tools is that of Qwen 2.5 and Hermes.
pub const CHATML: &str = include_str!("chatml.jinja");

/// In a model's folder.
const FILE: &str = "chat_template.jinja";
const MAX_FILE: u64 = 16 << 20;
/// Work that one rendering may do, so that a template from elsewhere cannot run for ever.
const FUEL: u64 = 200_000_000;
const NAMED_TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A chat template with the special tokens it writes. Cheap to clone.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
    /// Another one that is used when there are tools.
    with_tools: Option<Arc<str>>,
    /// What the template reads besides messages and tools: special tokens, switches such as `enable_thinking`.
    variables: Map<String, Json>,
    /// The day and time that the template is told; now, when there is none.
    date: Option<jiff::civil::DateTime>,
    environment: Arc<Environment<'static>>,
}

const MAIN: &str = "chat_template";
const TOOLS: &str = "tool_use";

impl Template {
    /// A template from its source. `variables` are the special tokens by their names (`bos_token`), and whatever else it reads.
    ///
    /// # Errors
    /// When the source is no template: the line, and what is wrong there.
    pub fn new(source: &str, variables: Map<String, Json>) -> Result<Self> {
        Self::with(source.into(), None, variables, None)
    }

    /// ChatML.
    ///
    /// # Errors
    /// Never; the template is part of the program.
    pub fn chatml() -> Result<Self> {
        Self::new(CHATML, Map::new())
    }

    fn with(
        source: Arc<str>,
        with_tools: Option<Arc<str>>,
        variables: Map<String, Json>,
        date: Option<jiff::civil::DateTime>,
    ) -> Result<Self> {
        let mut environment = environment(date);
        for (name, source) in [(MAIN, Some(&source)), (TOOLS, with_tools.as_ref())] {
            let Some(source) = source else { continue };
            environment
                .add_template_owned(name, plain(source))
                .map_err(|error| anyhow!("the chat template is not one: {error}"))?;
        }
        Ok(Self { source, with_tools, variables, date, environment: Arc::new(environment) })
    }

    /// The template in a model's folder: `chat_template.jinja`, or the one inside `tokenizer_config.json`; none when the model has none.
    ///
    /// # Errors
    /// When a file cannot be read, or what is there is no template.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let read = |name: &str| -> Result<Option<String>> {
            let path = folder.join(name);
            if path.is_file() { danlu_files::read_text_bounded(&path, MAX_FILE).map(Some) } else { Ok(None) }
        };
        let json = |name: &str| -> Result<Json> {
            let text = read(name)?.unwrap_or_else(|| "{}".to_owned());
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", folder.join(name).display()))
        };
        let config = json("tokenizer_config.json")?;
        let mut variables = Map::new();
        for source in [&json("special_tokens_map.json")?, &config] {
            for name in NAMED_TOKENS {
                let token = &source[name];
                if let Some(token) = token.as_str().or_else(|| token["content"].as_str()) {
                    variables.insert(name.to_owned(), json!(token));
                }
            }
        }
        let (mut main, mut with_tools): (Option<Arc<str>>, _) = (read(FILE)?.map(Into::into), None);
        if main.is_none() {
            match &config["chat_template"] {
                Json::String(source) => main = Some(source.as_str().into()),
                Json::Array(list) => {
                    let named = |name: &str| {
                        list.iter().find(|one| one["name"] == name).and_then(|one| one["template"].as_str()).map(Arc::from)
                    };
                    main = named("default");
                    with_tools = named("tool_use");
                }
                _ => {}
            }
        }
        main.map(|main| Self::with(main, with_tools, variables, None))
            .transpose()
            .with_context(|| format!("in {}", folder.display()))
    }

    /// Writes `chat_template.jinja` into a model's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        if self.with_tools.is_some() {
            let list =
                json!([{"name": "default", "template": &*self.source}, {"name": TOOLS, "template": self.with_tools.as_deref()}]);
            let path = folder.join("tokenizer_config.json");
            let mut config: Json = serde_json::from_slice(&danlu_files::read_bounded(&path, MAX_FILE)?)
                .with_context(|| format!("{} is not JSON", path.display()))?;
            config["chat_template"] = list;
            return danlu_files::write_atomic_bytes(&path, format!("{config:#}\n").as_bytes());
        }
        danlu_files::write_atomic_bytes(&folder.join(FILE), self.source.as_bytes())
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The same template with a variable set, such as `enable_thinking`.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: Json) -> Self {
        self.variables.insert(name.to_owned(), value);
        self
    }

    /// The same template on a fixed day (`2026-11-24` or `2026-11-24T12:30:00`): what `strftime_now` tells it. Without one, two runs on
    /// different days would see different text.
    ///
    /// # Errors
    /// When `date` is none.
    pub fn on(self, date: &str) -> Result<Self> {
        let date = date.parse().with_context(|| format!("{date:?} is no date, such as 2026-11-24"))?;
        Self::with(self.source, self.with_tools, self.variables, Some(date))
    }

    /// Whether the text depends on the day it is written.
    pub fn reads_the_clock(&self) -> bool {
        self.source.contains("strftime_now") || self.with_tools.as_ref().is_some_and(|source| source.contains("strftime_now"))
    }

    /// Whether two templates write the same program, whatever their special tokens.
    pub fn same_as(&self, other: &Self) -> bool {
        self.source.trim_end() == other.source.trim_end() && self.with_tools == other.with_tools
    }

    /// BLAKE3 of all that decides what it writes, in hexadecimal.
    pub fn hash(&self) -> String {
        let variables: BTreeMap<_, _> = self.variables.iter().collect();
        let date = self.date.filter(|_| self.reads_the_clock()).map(|date| date.to_string());
        danlu_files::hash_bytes(json!([&*self.source, self.with_tools.as_deref(), variables, date]).to_string().as_bytes())
    }

    /// The text of `messages`, followed by what makes the model answer when `add_generation_prompt` is set: byte for byte that of
    /// `transformers.apply_chat_template`.
    ///
    /// # Errors
    /// What the template objects to, such as roles that do not alternate.
    pub fn render(&self, messages: &[Message], tools: &[Json], add_generation_prompt: bool) -> Result<String> {
        let messages = messages.iter().map(as_template_sees).collect::<Result<Vec<Json>>>()?;
        self.render_json(&messages, tools, add_generation_prompt)
    }

    /// [`Template::render`] of messages as JSON, with whatever keys they have.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_json(&self, messages: &[Json], tools: &[Json], add_generation_prompt: bool) -> Result<String> {
        let name = if self.with_tools.is_some() && !tools.is_empty() { TOOLS } else { MAIN };
        let mut context = self.variables.clone();
        context.insert("messages".to_owned(), Json::from(messages));
        context.insert("tools".to_owned(), if tools.is_empty() { Json::Null } else { Json::from(tools) });
        context.insert("documents".to_owned(), Json::Null);
        context.insert("add_generation_prompt".to_owned(), json!(add_generation_prompt));
        let template = self.environment.get_template(name)?;
        match template.render(Value::from(Serde(context))) {
            Ok(text) => Ok(text),
            Err(error) => bail!("the chat template does not take this conversation: {}", reason(&error)),
        }
    }
}

/// The message's own words are what a person can act on; where in the template it was raised is not.
fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        _ => error.to_string(),
    }
}

/// The message as JSON, its thoughts also under the name that older templates read.
fn as_template_sees(message: &Message) -> Result<Json> {
    let mut json = serde_json::to_value(message)?;
    if let Some(object) = json.as_object_mut() {
        object.remove("train");
        if let Some(thoughts) = &message.reasoning_content {
            object.insert("thinking".to_owned(), json!(thoughts));
        }
    }
    Ok(json)
}

fn environment(date: Option<jiff::civil::DateTime>) -> Environment<'static> {
    let mut environment = Environment::new();
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python::method);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_test("iterable", python::is_iterable);
    environment.set_formatter(|out, state, value| match python::written(value) {
        Some(text) => Ok(out.write_str(&text)?),
        None => escape_formatter(out, state, value),
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: &str| -> Result<String, Error> {
        let written = jiff::fmt::strtime::format(format, date.unwrap_or_else(|| jiff::ZonedDateTime::now().datetime()));
        written.map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("{format:?} cannot be written: {error}")))
    });
    environment
}

/// The source without the tags around an assistant's words (`{% generation %}`), which write nothing and which only `transformers` knows:
/// a condition that always holds has the same text.
fn plain(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}").map(|end| end + 2) else { break };
        let tag = &rest[at..at + length];
        let word = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        out.push_str(&rest[..at]);
        out.push_str(&match word {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        });
        rest = &rest[at + length..];
    }
    out + rest
}
