//! One record of preferences, whatever its form.

use serde_json::{Map, Value};

use super::{Judged, Pair, Preference};
use crate::chat::form::{self, Form};
use crate::chat::{Conversation, Message, Role};

/// Orders of more answers make more pairs than anybody means.
const MOST_ANSWERS: usize = 64;

const LABELS: [&str; 2] = ["label", "kto_tag"];
const ORDERS: [&str; 2] = ["ranking", "ranked"];
const LISTS: [&str; 3] = ["answers", "responses", "completions"];

pub(super) fn preference(record: &Value) -> Result<(Form, Preference), String> {
    let map = record.as_object().ok_or("is no JSON object")?;
    let has = |keys: &[&str]| keys.iter().any(|key| map.contains_key(*key));
    match () {
        () if map.contains_key("chosen") || map.contains_key("rejected") => {
            let (form, pair) = pair(map)?;
            Ok((form, Preference::Pairs(vec![pair])))
        }
        () if has(&LABELS) => judged(map).map(|(form, judged)| (form, Preference::Judged(judged))),
        () if has(&ORDERS) || has(&LISTS) => order(map).map(|(form, pairs)| (form, Preference::Pairs(pairs))),
        () => {
            let keys: Vec<&str> = map.keys().take(20).map(String::as_str).collect();
            Err(format!(
                "says nothing about preference: it needs `chosen` and `rejected`, or `label`, or `ranking`; its keys are: {}",
                keys.join(", ")
            ))
        }
    }
}

fn pair(map: &Map<String, Value>) -> Result<(Form, Pair), String> {
    let (chosen, rejected) = (given(map, "chosen")?, given(map, "rejected")?);
    let (form, prompt, chosen, rejected) = match (prompt(map)?, chosen, rejected) {
        (Some((form, prompt)), chosen, rejected) => {
            (form, prompt, one_answer(chosen, "chosen")?, one_answer(rejected, "rejected")?)
        }
        (None, Value::Array(chosen), Value::Array(rejected)) => {
            let (prompt, chosen, rejected) = differ_at_the_end(form::messages(chosen)?, form::messages(rejected)?)?;
            (Form::Messages, Conversation::new(prompt), chosen, rejected)
        }
        (None, ..) => return Err("has two answers and no prompt".to_owned()),
    };
    let pair = Pair { margin: margin(map)?, ..checked(prompt, chosen, rejected)? };
    Ok((form, pair))
}

/// A pair from which something can be learned.
fn checked(prompt: Conversation, chosen: Message, rejected: Message) -> Result<Pair, String> {
    if says(&chosen) == says(&rejected) {
        return Err("has two answers that are equal, so neither is preferred".to_owned());
    }
    Ok(Pair { prompt: asked(prompt)?, chosen, rejected, margin: None })
}

fn margin(map: &Map<String, Value>) -> Result<Option<f64>, String> {
    let number = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(format!("has the `{key}` {value}, which is no number")),
        },
    };
    let margin = match (number("margin")?, number("score_chosen")?, number("score_rejected")?) {
        (Some(margin), ..) => Some(margin),
        (None, Some(chosen), Some(rejected)) => Some(chosen - rejected),
        _ => None,
    };
    match margin {
        Some(margin) if margin < 0.0 => Err(format!("has the margin {margin}: the rejected answer would be the better one")),
        margin => Ok(margin),
    }
}

fn judged(map: &Map<String, Value>) -> Result<(Form, Judged), String> {
    let label = LABELS.iter().find_map(|key| map.get(*key));
    let good = match label {
        Some(Value::Bool(good)) => *good,
        Some(Value::Number(number)) if number.as_f64() == Some(1.0) => true,
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => false,
        Some(other) => return Err(format!("has the label {other}, which is neither true nor false")),
        None => return Err("has no label".to_owned()),
    };
    if let Some(completion) = map.get("completion") {
        let (form, prompt) = prompt(map)?.ok_or("has a completion and no prompt")?;
        return Ok((form, Judged { prompt: asked(prompt)?, answer: one_answer(completion, "completion")?, good }));
    }
    let (form, Conversation { mut messages, tools, group }) = form::conversation(&Value::Object(map.clone()))?;
    match messages.pop() {
        Some(answer) if answer.role == Role::Assistant => {
            let answer = spoken(answer, "last message")?;
            Ok((form, Judged { prompt: asked(Conversation { messages, tools, group })?, answer, good }))
        }
        _ => Err("does not end with an answer of an assistant that the label could be about".to_owned()),
    }
}

fn order(map: &Map<String, Value>) -> Result<(Form, Vec<Pair>), String> {
    let (form, prompt) = prompt(map)?.ok_or("has answers and no prompt")?;
    let (key, list) = ORDERS.iter().chain(&LISTS).find_map(|key| Some((*key, map.get(*key)?))).ok_or("has no answers")?;
    let list = list.as_array().ok_or_else(|| format!("has `{key}` that is no list of answers"))?;
    if !(2..=MOST_ANSWERS).contains(&list.len()) {
        return Err(format!("has `{key}` of {} answers; an order needs 2 to {MOST_ANSWERS}", list.len()));
    }
    let answers: Vec<Message> =
        list.iter().enumerate().map(|(i, one)| one_answer(one, &format!("{key}[{i}]"))).collect::<Result<_, _>>()?;
    // From the best to the worst.
    let scores: Vec<f64> = match map.get("scores") {
        Some(Value::Array(scores)) if scores.len() == answers.len() => scores
            .iter()
            .map(|score| score.as_f64().ok_or_else(|| format!("has the score {score}, which is no number")))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(format!("has `scores` that are not one number for each of {} answers", answers.len())),
        None if ORDERS.contains(&key) => (0..answers.len()).map(|place| -(place as f64)).collect(),
        None => return Err(format!("has `{key}` and no `scores` that say which is better")),
    };
    let given = map.get("scores").is_some();
    let mut pairs = vec![];
    for (i, better) in answers.iter().enumerate() {
        for (j, worse) in answers.iter().enumerate() {
            if scores[i] > scores[j] {
                let margin = given.then_some(scores[i] - scores[j]);
                pairs.push(Pair { margin, ..checked(prompt.clone(), better.clone(), worse.clone())? });
            }
        }
    }
    if pairs.is_empty() {
        return Err("has answers that are all as good, so none is preferred".to_owned());
    }
    Ok((form, pairs))
}

/// What stands before the answers, when the record has it apart.
fn prompt(map: &Map<String, Value>) -> Result<Option<(Form, Conversation)>, String> {
    let before = ["prompt", "question", "instruction", "conversations", "conversation", "messages", "query"];
    if !before.iter().any(|key| map.contains_key(*key)) {
        return Ok(None);
    }
    let mut only = map.clone();
    // What is left is a prompt to the reader of conversations, which takes one without an answer when `chosen` is there.
    for key in ["rejected", "output", "completion", "response", "answer", "target"] {
        only.remove(key);
    }
    only.insert("chosen".to_owned(), Value::Null);
    form::conversation(&Value::Object(only)).map(Some)
}

/// A prompt that an assistant can answer.
fn asked(prompt: Conversation) -> Result<Conversation, String> {
    match prompt.messages.last() {
        None => Err("has no prompt".to_owned()),
        Some(last) if last.role == Role::Assistant => {
            Err("has a prompt that ends with an answer of the assistant, so there is nothing to answer".to_owned())
        }
        Some(last) if last.role == Role::User && last.text().trim().is_empty() => Err("has an empty prompt".to_owned()),
        Some(_) => Ok(prompt),
    }
}

fn given<'a>(map: &'a Map<String, Value>, key: &str) -> Result<&'a Value, String> {
    match map.get(key) {
        None | Some(Value::Null) => Err(format!("has no `{key}`")),
        Some(value) => Ok(value),
    }
}

/// An answer as text, as a message, or as a list of one message.
fn one_answer(value: &Value, what: &str) -> Result<Message, String> {
    let message = match value {
        Value::String(text) => Message::assistant(text.clone()),
        Value::Object(_) => form::message(value).map_err(|why| format!("has a `{what}` that {why}"))?,
        Value::Array(list) => match list.as_slice() {
            [one] => form::message(one).map_err(|why| format!("has a `{what}` that {why}"))?,
            _ => return Err(format!("has a `{what}` of {} messages, where one answers the prompt", list.len())),
        },
        other => return Err(format!("has the `{what}` {other}, which is neither text nor a message")),
    };
    spoken(message, what)
}

fn spoken(message: Message, what: &str) -> Result<Message, String> {
    if message.role != Role::Assistant {
        return Err(format!("has a `{what}` that is not the assistant's"));
    }
    if message.text().trim().is_empty() && message.tool_calls.is_empty() {
        return Err(format!("has a `{what}` that is empty"));
    }
    Ok(message)
}

/// Two conversations that are the same up to the last message of each.
fn differ_at_the_end(mut chosen: Vec<Message>, mut rejected: Vec<Message>) -> Result<(Vec<Message>, Message, Message), String> {
    let (Some(better), Some(worse)) = (chosen.pop(), rejected.pop()) else {
        return Err("has an empty conversation".to_owned());
    };
    if chosen != rejected {
        return Err("has two conversations that differ before their last message; give the prompt apart".to_owned());
    }
    Ok((chosen, spoken(better, "chosen")?, spoken(worse, "rejected")?))
}

/// What makes two answers the same: their text without the space around it, and their calls.
fn says(message: &Message) -> (&str, &[crate::chat::ToolCall]) {
    (message.text().trim(), &message.tool_calls)
}
