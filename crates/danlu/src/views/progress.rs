//! The course of work that is not training: reading and cleaning data, training a tokenizer.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use danlu_data::Progress;

use crate::{human, views};

/// One line per stage: on a terminal it is rewritten while the stage goes on, in a pipe it is printed when the stage ends.
pub struct Lines {
    live: bool,
    stage: Option<Stage>,
    drawn: Option<Instant>,
}

struct Stage {
    name: String,
    total: Option<u64>,
    unit: &'static str,
    done: u64,
    began: Instant,
}

/// Fast enough to look alive, slow enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(120);

impl Lines {
    /// Progress goes to the standard error, so that what a verb prints can be piped.
    pub fn new() -> Self {
        Self { live: std::io::stderr().is_terminal(), stage: None, drawn: None }
    }

    /// Ends the last stage, so that what is printed next comes after it.
    pub fn finish(&mut self) {
        self.end();
    }

    fn draw(&mut self) {
        let Some(stage) = &self.stage else { return };
        let mut error = std::io::stderr().lock();
        let _ = write!(error, "\r\x1b[2K  {}", stage.line());
        let _ = error.flush();
        self.drawn = Some(Instant::now());
    }

    fn end(&mut self) {
        if let Some(stage) = self.stage.take() {
            eprintln!("{}  {}", if self.live { "\r\x1b[2K" } else { "" }, stage.line());
        }
    }
}

impl Stage {
    fn line(&self) -> String {
        let amount =
            |n: u64| if self.unit == "bytes" { human::bytes(n) } else { format!("{} {}", human::thousands(n), self.unit) };
        let elapsed = self.began.elapsed();
        let mut line = format!("{:<28}", self.name);
        match self.total.filter(|&total| total > 0) {
            Some(total) => {
                let share = (self.done as f64 / total as f64).min(1.0);
                line.push_str(&format!("{:>3.0} %  {} of {}", share * 100.0, amount(self.done), amount(total)));
                if share > 0.02 && share < 1.0 {
                    line.push_str(&format!("  {} left", human::duration(elapsed.mul_f64(1.0 / share - 1.0))));
                }
            }
            None if self.done > 0 => line.push_str(&amount(self.done)),
            None => {}
        }
        format!("{line}  {}", views::dim(&human::duration(elapsed)))
    }
}

impl Progress for Lines {
    fn start(&mut self, stage: &str, total: Option<u64>, unit: &'static str) {
        self.end();
        self.stage = Some(Stage { name: stage.to_string(), total, unit, done: 0, began: Instant::now() });
        if self.live {
            self.draw();
        }
    }

    fn at(&mut self, done: u64) {
        if let Some(stage) = &mut self.stage {
            stage.done = done;
        }
        if self.live && self.drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
            self.draw();
        }
    }

    fn note(&mut self, line: &str) {
        // What is said after a stage is complete belongs below it.
        if self.stage.as_ref().is_some_and(|stage| stage.total.is_some_and(|total| stage.done >= total)) {
            self.end();
        }
        eprintln!("{}  {line}", if self.live { "\r\x1b[2K" } else { "" });
        if self.live {
            self.draw();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end();
    }
}
