//! What is known of a run while it goes on, and how it is shown: live, as lines, or as JSON.

use std::time::{Duration, Instant};

use danlu_train::Report;

use super::chart::Curves;
use crate::human;

/// How the course of a run is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Live on a terminal, plain lines otherwise.
    #[default]
    Auto,
    /// The whole terminal: curve, figures, samples.
    Live,
    /// A line now and then.
    Plain,
    /// A JSON object for each event.
    Json,
}

/// Everything the views show.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub run: String,
    /// What is trained, in a few words.
    pub headline: String,
    pub step: u64,
    /// As far as is known; with a budget in minutes it changes.
    pub steps: u64,
    pub tokens: u64,
    pub elapsed: f64,
    /// Seconds, as the trainer estimates them.
    pub left: Option<f64>,
    /// Of the last step.
    pub loss: Option<f64>,
    /// The last measure and its unit.
    pub held_out: Option<(f64, &'static str)>,
    /// What the objective adds to its loss.
    pub report: Report,
    pub tokens_per_second: f64,
    /// Of the measured rate of matrix products.
    pub rate_share: Option<f64>,
    pub memory: Option<u64>,
    /// The most of any step; what came before the training does not count.
    pub peak_memory: Option<u64>,
    /// The share of the peak rate.
    pub learning_rate: Option<f64>,
    pub gradient: Option<f64>,
    pub curves: Curves,
    /// The first training row as the model sees it.
    pub shown: Option<String>,
    pub sample: Option<(String, String)>,
    pub note: Option<String>,
}

impl State {
    /// How much of the run is done, from 0 to 1, by the clock.
    pub fn share(&self) -> f64 {
        self.left.map_or(0.0, |left| self.elapsed / (self.elapsed + left).max(1e-9))
    }

    /// Names and values of the figures, most looked-for first.
    pub fn figures(&self) -> Vec<(&'static str, String)> {
        let mut figures = vec![(self.curves.counted, human::count(self.tokens as f64))];
        let mut add = |name, value: Option<String>| figures.extend(value.map(|value| (name, value)));
        add("held out", self.held_out.map(|(x, unit)| format!("{x:.3} {unit}")));
        add("loss", self.loss.map(|x| format!("{x:.3}")));
        self.report.iter().for_each(|(name, x)| add(name, Some(format!("{x:.3}"))));
        add("speed", (self.tokens_per_second > 0.0).then(|| self.speed()));
        add("of GEMM rate", self.rate_share.map(|x| format!("{:.0} %", x * 100.0)));
        add("memory", self.memory.map(human::bytes));
        add("learning rate", self.learning_rate.map(|x| format!("{:.0} % of peak", x * 100.0)));
        add("gradient", self.gradient.map(|x| format!("{x:.3}")));
        add("elapsed", Some(human::seconds(self.elapsed)));
        add("left", self.left.map(human::seconds));
        figures
    }

    fn speed(&self) -> String {
        format!("{} {}/s", human::thousands(self.tokens_per_second as u64), self.curves.counted)
    }

    /// The figures on one line.
    pub fn line(&self) -> String {
        let mut text = format!("{:>3.0} %  step {}/{}", self.share() * 100.0, self.step, self.steps);
        let mut add = |part: Option<String>| text.extend(part.map(|part| format!("  {part}")));
        add(self.loss.map(|x| format!("loss {x:.3}")));
        self.report.iter().take(4).for_each(|(name, x)| add(Some(format!("{} {x:.3}", name.replace('_', " ")))));
        add(self.held_out.map(|(x, unit)| format!("held out {x:.3} {unit}")));
        add((self.tokens_per_second > 0.0).then(|| self.speed()));
        add(self.rate_share.map(|x| format!("{:.0} % of GEMM", x * 100.0)));
        add(self.memory.map(human::bytes));
        add(self.left.map(|s| format!("{} left", human::seconds(s))));
        text
    }
}

/// Says when the next plain line is due: often at first, then each half minute.
pub struct Pace {
    last: Option<Instant>,
    lines: u32,
}

impl Pace {
    pub fn new() -> Self {
        Self { last: None, lines: 0 }
    }

    pub fn due(&mut self) -> bool {
        let wait = Duration::from_secs(u64::from(self.lines.min(6)) * 5);
        let due = self.last.is_none_or(|last| last.elapsed() >= wait);
        if due {
            self.last = Some(Instant::now());
            self.lines += 1;
        }
        due
    }
}
