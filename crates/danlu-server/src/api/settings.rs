use std::collections::BTreeMap;

use danlu_engine::{Grammar, Sampling};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::writer::Writer;

/// Above this, a temperature draws any token alike and a penalty allows nothing again.
const MOST: f32 = 1000.0;
/// Below this, a repetition penalty allows nothing but what has been.
const LEAST_PENALTY: f32 = 0.001;
/// The likeliest token of any vocabulary reaches this alone.
const LEAST_TOP_P: f32 = 1e-6;

/// What both ways of asking have in common: how tokens are drawn, when the text ends, and how it is sent.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Settings {
    /// The most tokens to write; as many as the context has room for, when absent.
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// Another name for `max_tokens`.
    #[schema(minimum = 1)]
    pub max_completion_tokens: Option<u32>,
    /// 0 takes the most likely token always; 1, the default, draws with the model's own probabilities.
    #[schema(minimum = 0, maximum = 1000)]
    pub temperature: Option<f32>,
    /// Only the fewest tokens whose probabilities reach this; at 0 the likeliest.
    #[schema(minimum = 0, maximum = 1)]
    pub top_p: Option<f32>,
    /// Only so many of the most likely tokens; not in OpenAI's API.
    pub top_k: Option<u32>,
    /// Only tokens at least this fraction as likely as the likeliest; not in OpenAI's API.
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f32>,
    /// Logits of tokens that have been, also in the prompt, are divided by this; not in OpenAI's API.
    #[schema(minimum = 0.001, maximum = 1000)]
    pub repetition_penalty: Option<f32>,
    /// From -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f32>,
    /// From -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f32>,
    /// Added to the logits of tokens, by their ids; from -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// The same seed gives the same answer.
    pub seed: Option<i64>,
    /// How many answers; as many as the server writes at a time are the most.
    #[schema(minimum = 1)]
    pub n: Option<u32>,
    /// Strings that end the text and are no part of it, at most four.
    pub stop: Option<OneOrMore>,
    /// Whether the answer comes piece by piece, as server-sent events.
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "format")]
    pub response_format: Option<ResponseFormat>,
}

/// A format, told from others by its `type`, which must be a text: `serde` would also take the place of a kind among all.
pub fn format<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(deserializer)? else { return Ok(None) };
    if value.get("type").is_some_and(|kind| !kind.is_string()) {
        return Err(D::Error::custom("the type of a format must be a text, such as \"json_schema\""));
    }
    serde_json::from_value(value).map(Some).map_err(D::Error::custom)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text or a list of texts is needed")]
pub enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Whether a last piece tells how many tokens were read and written.
    pub include_usage: Option<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub _object: IgnoredAny,
}

/// What the text must be like.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema allows.
    JsonSchema {
        json_schema: JsonSchema,
    },
    /// Text that a regular expression matches as a whole; not in OpenAI's API.
    Regex {
        pattern: String,
    },
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct JsonSchema {
    /// Followed as far as it goes, whether `strict` is asked for or not; its name is not looked at.
    #[schema(value_type = Object)]
    pub schema: Map<String, Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub _object: IgnoredAny,
}

impl Settings {
    pub fn samples(&self) -> usize {
        self.n.unwrap_or(1) as usize
    }

    /// Whether the text must be of a form.
    pub fn has_format(&self) -> bool {
        !matches!(self.response_format, None | Some(ResponseFormat::Text))
    }

    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    pub fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true))
    }

    /// # Errors
    /// Names the parameter that is not as it should be.
    pub fn sampling(&self) -> Result<Sampling, ApiError> {
        let stop = match &self.stop {
            None => vec![],
            Some(OneOrMore::One(stop)) => vec![stop.clone()],
            Some(OneOrMore::More(stops)) => stops.clone(),
        };
        if stop.len() > 4 {
            return Err(ApiError::bad_request(format!("stop has {} strings; at most 4 are taken", stop.len())).param("stop"));
        }
        let mut logit_bias = BTreeMap::new();
        for (token, bias) in self.logit_bias.iter().flatten() {
            let id = token.parse().map_err(|_| {
                ApiError::bad_request(format!("logit_bias is given by tokens' ids; {token:?} is none")).param("logit_bias")
            })?;
            logit_bias.insert(id, *bias);
        }
        for (name, value) in [("max_tokens", self.max_tokens), ("max_completion_tokens", self.max_completion_tokens)] {
            if value == Some(0) {
                return Err(ApiError::bad_request("at least one token must be allowed to be written; 0 are").param(name));
            }
        }
        for (name, value) in [("temperature", self.temperature), ("repetition_penalty", self.repetition_penalty)] {
            if let Some(value) = value.filter(|value| *value > MOST) {
                return Err(ApiError::bad_request(format!("{name} must be at most {MOST}; it is {value}")).param(name));
            }
        }
        if let Some(value) = self.repetition_penalty.filter(|value| *value < LEAST_PENALTY) {
            let message = format!("repetition_penalty must be at least {LEAST_PENALTY}; it is {value}");
            return Err(ApiError::bad_request(message).param("repetition_penalty"));
        }
        let defaults = Sampling::default();
        let top_p = self.top_p.unwrap_or(1.0);
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: if (0.0..LEAST_TOP_P).contains(&top_p) { LEAST_TOP_P } else { top_p },
            top_k: self.top_k.map_or(defaults.top_k, |k| k as usize),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            logit_bias,
            seed: self.seed.map_or_else(rand::random, |seed| seed as u64),
            max_tokens: self.max_completion_tokens.or(self.max_tokens).map_or(usize::MAX, |most| most as usize),
            stop,
        })
    }

    /// # Errors
    /// When the schema or expression is none, or the model's tokenizer does not allow it.
    pub fn grammar(&self, writer: &Writer) -> Result<Option<Grammar>, ApiError> {
        let wrong = |message: String| ApiError::bad_request(message).param("response_format");
        let grammars = || writer.grammars().map_err(|error| wrong(error.to_owned()));
        let grammar = match &self.response_format {
            None | Some(ResponseFormat::Text) => return Ok(None),
            Some(ResponseFormat::JsonObject) => grammars()?.json_schema(json!({"type": "object"})),
            Some(ResponseFormat::JsonSchema { json_schema }) => {
                grammars()?.json_schema(Value::Object(json_schema.schema.clone()))
            }
            Some(ResponseFormat::Regex { pattern }) => grammars()?.regex(pattern),
        };
        grammar.map(Some).map_err(|error| wrong(format!("response_format cannot be followed: {error:#}")))
    }
}
