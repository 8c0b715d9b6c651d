//! Writes conversations with chat templates, for comparison with other programs.
//!
//! Each line of standard input is `{"template", "variables", "messages", "tools", "add_generation_prompt", "date"}`; each line of output
//! the text as a JSON string, or `{"error": …}`.

use std::io::{BufRead, stdin};

use anyhow::Result;
use danlu_data::chat::Template;
use serde_json::{Map, Value, json};

fn main() -> Result<()> {
    for line in stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let list = |key: &str| case[key].as_array().cloned().unwrap_or_default();
        let variables: Map<String, Value> = case["variables"].as_object().cloned().unwrap_or_default();
        let prompt = case["add_generation_prompt"] == true;
        let written = Template::new(text("template"), variables)
            .and_then(|template| if case["date"].is_null() { Ok(template) } else { template.on(text("date")) })
            .and_then(|template| template.render_json(&list("messages"), &list("tools"), prompt));
        println!("{}", written.map_or_else(|error| json!({"error": format!("{error:#}")}), Value::from));
    }
    Ok(())
}
