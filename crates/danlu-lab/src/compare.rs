use crate::predict::Prediction;

/// What a finished run was.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub tokens_per_second: f64,
    /// Peak resident bytes, where the system tells.
    pub memory: Option<u64>,
}

/// Plan against measured, as a table with the ratio of the second to the first.
pub fn compare(plan: &Prediction, measured: &Measured) -> String {
    let mut text = format!("{:<14}{:>14}{:>14}{:>9}\n", "", "planned", "measured", "ratio");
    let mut row = |name: &str, planned: f64, measured: f64, digits: usize| {
        let ratio = if planned > 0.0 { format!("{:.2}", measured / planned) } else { "–".into() };
        text.push_str(&format!("{name:<14}{planned:>14.digits$}{measured:>14.digits$}{ratio:>9}\n"));
    };
    row("steps", plan.steps as f64, measured.steps as f64, 0);
    row(&format!("M {}", plan.unit), plan.tokens as f64 / 1e6, measured.tokens as f64 / 1e6, 2);
    row(&format!("{}/s", plan.unit), plan.tokens_per_second, measured.tokens_per_second, 0);
    row("minutes", plan.seconds / 60.0, measured.seconds / 60.0, 2);
    if let Some(memory) = measured.memory {
        row("memory MB", plan.memory.total() as f64 / 1e6, memory as f64 / 1e6, 0);
    }
    text
}
