//! Watches a run for its views.

use std::io::Write;

use anyhow::Result;
use danlu_train::{Event, Observer, Plan, Shown, Step};
use serde_json::{Value, json};

use super::live::Live;
use super::run::{Kind, Pace, State};
use super::{bold, dim, owns_terminal};
use crate::human;
use crate::life::kinds::Curve;

/// `println!` for the course of a run: a reader that closed the pipe does not stop the training.
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($part)*);
    }};
}

/// Receives a run's events and shows them; afterwards it holds the curves.
pub struct Watcher {
    pub state: State,
    view: View,
    /// By which both curves are in one unit.
    curve: Curve,
}

enum View {
    Live(Live),
    Plain(Pace),
    Json,
}

impl Watcher {
    /// # Errors
    /// When a live view is asked for and the terminal cannot be taken over.
    pub fn new(kind: Kind, run: &str, plan: &Plan, curve: Curve) -> Result<Self> {
        let state = State { run: run.to_string(), headline: headline(plan), steps: plan.steps, ..State::default() };
        let view = match kind {
            Kind::Live => View::Live(Live::start(state.clone())?),
            Kind::Auto if owns_terminal() => View::Live(Live::start(state.clone())?),
            Kind::Auto | Kind::Plain => View::Plain(Pace::new()),
            Kind::Json => View::Json,
        };
        Ok(Self { state, view, curve })
    }

    /// Gives the terminal back, when a live view had it.
    pub fn finish(self) -> State {
        self.state
    }

    fn follow(&mut self, event: &Event) {
        let state = &mut self.state;
        match event {
            Event::Begin { resumed: Some(step), .. } => state.note = Some(format!("goes on after step {step}")),
            Event::Step(step) => {
                follow_step(state, step);
                let x = step.tokens as f64 / 1e6;
                let value = match self.curve.key {
                    "loss" => Some(step.loss),
                    key => step.report.iter().find(|(name, _)| *name == key).map(|(_, value)| *value),
                };
                state.curves.train.extend(value.map(|value| (x, value * self.curve.scale.unwrap_or(1.0))));
            }
            Event::Measured { measure, .. } => {
                state.held_out = Some((measure.value, measure.unit.label));
                state.curves.unit = measure.unit.label.into();
                state.curves.held_out.push((state.tokens as f64 / 1e6, measure.value));
            }
            Event::Sampled { samples, .. } => {
                // Prompts take turns, so that one sees different texts.
                let turn = state.curves.held_out.len();
                state.sample = samples.get(turn % samples.len().max(1)).map(|s| (s.prompt.clone(), s.text.clone()));
            }
            Event::Shown(shown) => {
                let loss = format!("{} of {} tokens carry loss", shown.with_loss(), shown.tokens.len());
                state.shown = Some(format!("{} ({loss})", shown.text.replace('\n', "⏎")));
            }
            Event::Note(note) => state.note = Some((*note).to_string()),
            Event::Begin { .. } | Event::Saved { .. } | Event::End(_) => {}
        }
    }
}

impl Observer for Watcher {
    fn event(&mut self, event: &Event) {
        self.follow(event);
        match &mut self.view {
            View::Live(live) => live.show(&self.state),
            View::Plain(pace) => plain(event, &self.state, pace),
            View::Json => say!("{}", as_json(event)),
        }
    }
}

fn follow_step(state: &mut State, step: &Step) {
    state.step = step.step;
    state.steps = step.total;
    state.tokens = step.tokens;
    state.elapsed = step.elapsed;
    state.left = Some(step.left);
    state.loss = Some(step.loss);
    state.report.clone_from(&step.report);
    // One step's speed jumps; what one reads should not.
    let smooth = |old: f64, new: f64| if old > 0.0 { 0.9 * old + 0.1 * new } else { new };
    state.tokens_per_second = smooth(state.tokens_per_second, step.tokens_per_second);
    state.rate_share = Some(smooth(state.rate_share.unwrap_or(0.0), step.gemm_share));
    state.memory = (step.memory > 0).then_some(step.memory);
    state.peak_memory = state.peak_memory.max(state.memory);
    state.learning_rate = Some(step.rate_share);
    state.gradient = Some(step.gradient_norm);
}

fn headline(plan: &Plan) -> String {
    format!(
        "{} parameters · {} × {} {}{} · {} {} a step",
        human::count(plan.model.parameters as f64),
        plan.model.layers,
        plan.model.hidden,
        plan.model.model_type,
        super::ends(plan).iter().map(|end| format!(" · {end}")).collect::<String>(),
        human::thousands(plan.step_tokens()),
        plan.recipe.unit(),
    )
}

fn plain(event: &Event, state: &State, pace: &mut Pace) {
    match event {
        Event::Begin { resumed, .. } => {
            say!("  {}", state.headline);
            if let Some(step) = resumed {
                say!("  goes on after step {step}");
            }
        }
        Event::Shown(shown) => print_shown(shown),
        Event::Step(step) => {
            if pace.due() || step.step == step.total {
                say!("  {}", state.line());
            }
        }
        Event::Measured { measure, last, .. } => {
            let when = if *last { "at the end" } else { "held out" };
            say!("  {when}: {measure}");
        }
        Event::Sampled { .. } => {
            if let Some((prompt, text)) = &state.sample {
                say!("  sample: {}{}", bold(prompt), text.replace('\n', " "));
            }
        }
        Event::Saved { folder, .. } => say!("  {}", dim(&format!("saved {}", folder.display()))),
        Event::Note(note) => say!("  note: {note}"),
        Event::End(_) => {}
    }
}

/// One training row as the model sees it, with the tokens that carry no loss in brackets.
fn print_shown(shown: &Shown) {
    let text: String = shown.text.chars().take(200).collect();
    say!(
        "  the first row as the model sees it ({} tokens, {} with loss; documents in it: {}):",
        shown.tokens.len(),
        shown.with_loss(),
        shown.starts.len()
    );
    say!("    text    {}", text.replace('\n', "⏎"));
    let tokens: Vec<String> = shown
        .tokens
        .iter()
        .take(16)
        .map(|(_, text, loss)| if *loss { text.replace('\n', "⏎") } else { format!("[{}]", text.replace('\n', "⏎")) })
        .collect();
    say!("    tokens  {}", tokens.join("|"));
}

fn as_json(event: &Event) -> Value {
    let tagged = |kind: &str, value: Result<Value, serde_json::Error>| {
        let mut object = json!({ "event": kind });
        if let (Some(object), Ok(Value::Object(fields))) = (object.as_object_mut(), value) {
            object.extend(fields);
        }
        object
    };
    match event {
        Event::Begin { plan, resumed } => json!({
            "event": "begin", "run": plan.recipe.name, "resumed": resumed, "parameters": plan.model.parameters, "steps": plan.steps,
            "step_tokens": plan.step_tokens(), "flops_per_token": plan.flops_per_token,
        }),
        Event::Shown(shown) => json!({
            "event": "shown", "text": shown.text, "tokens": shown.tokens.len(), "with_loss": shown.with_loss(), "documents": shown.starts.len(),
        }),
        Event::Step(step) => tagged("step", serde_json::to_value(step)),
        Event::Measured { step, elapsed, last, measure } => {
            let mut object = tagged("measured", serde_json::to_value(measure));
            object["step"] = json!(step);
            object["elapsed"] = json!(elapsed);
            object["last"] = json!(last);
            object
        }
        Event::Sampled { step, samples } => {
            let samples: Vec<Value> = samples.iter().map(|s| json!({ "prompt": s.prompt, "text": s.text })).collect();
            json!({ "event": "sampled", "step": step, "samples": samples })
        }
        Event::Saved { step, folder, seconds } => json!({ "event": "saved", "step": step, "folder": folder, "seconds": seconds }),
        Event::Note(note) => json!({ "event": "note", "text": note }),
        Event::End(summary) => tagged("end", serde_json::to_value(summary)),
    }
}
