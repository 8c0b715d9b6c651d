use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, LegendPosition, Widget};

/// The course of a run against millions of tokens, or of what else it reads: of the training batches and of the held-out measure, in the measure's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// Each step's training loss, noisy.
    pub train: Vec<(f64, f64)>,
    pub held_out: Vec<(f64, f64)>,
    pub unit: String,
    /// What training batches are measured in, where it is not `unit`.
    pub train_unit: Option<String>,
    /// What is counted along the run.
    pub counted: &'static str,
}

impl Default for Curves {
    fn default() -> Self {
        Curves { train: vec![], held_out: vec![], unit: "bits per byte".into(), train_unit: None, counted: "tokens" }
    }
}

/// The part of the plane that is drawn, and where its ticks are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    pub x: (f64, f64),
    pub y: (f64, f64),
    pub x_ticks: Vec<f64>,
    pub y_ticks: Vec<f64>,
}

impl Curves {
    pub fn is_empty(&self) -> bool {
        self.train.is_empty() && self.held_out.is_empty()
    }

    /// What stands in a frame of its own: all, where all has one unit, else what is held out and below it the training batches.
    pub(super) fn panels(&self) -> Vec<Curves> {
        let Some(unit) = self.train_unit.clone() else { return vec![self.clone()] };
        let held_out = Curves { train: vec![], train_unit: None, ..self.clone() };
        let train = Curves { held_out: vec![], unit, train_unit: None, ..self.clone() };
        vec![held_out, train]
    }

    /// The training loss as a running mean over about a thirtieth of the run so far, which is what the eye follows.
    pub(super) fn smooth(&self) -> Vec<(f64, f64)> {
        let half = (self.train.len() / 60).max(2);
        let mut out = Vec::with_capacity(self.train.len());
        let mut sum = 0.0;
        let (mut from, mut to) = (0, 0);
        for (i, &(x, _)) in self.train.iter().enumerate() {
            // At the steep beginning the window narrows on both sides, so that it never leans. At the flat end it keeps its past: a mean of
            // the last few steps would show their noise as a turn of the curve.
            let before = half.min(i);
            let after = before.min(self.train.len() - 1 - i);
            while to <= i + after {
                sum += self.train[to].1;
                to += 1;
            }
            while from < i - before {
                sum -= self.train[from].1;
                from += 1;
            }
            out.push((x, sum / (to - from) as f64));
        }
        out
    }

    /// All of the x axis; of the y axis what remains when the plunge of the first twentieth is left to run off the top.
    pub(super) fn frame(&self, x_ticks: usize, y_ticks: usize) -> Frame {
        let smooth = self.smooth();
        let points = || smooth.iter().chain(&self.held_out).filter(|p| p.0.is_finite() && p.1.is_finite());
        let end = points().map(|p| p.0).fold(0.0, f64::max);
        let late = || points().filter(|p| p.0 >= end / 20.0).map(|p| p.1);
        let (low, high) = (late().fold(f64::INFINITY, f64::min), late().fold(f64::NEG_INFINITY, f64::max));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let room = ((high - low) * 0.06).max(0.01);
        let (x, y) = ((0.0, if end > 0.0 { end } else { 1.0 }), ((low - room).max(0.0), high + room));
        Frame { x, y, x_ticks: ticks(x, x_ticks), y_ticks: ticks(y, y_ticks) }
    }

    /// Draws into an area of a terminal.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let panels = self.panels();
        let areas = Layout::vertical(panels.iter().map(|_| Constraint::Fill(1))).split(area);
        panels.iter().zip(areas.iter()).for_each(|(panel, &area)| panel.draw_panel(area, buffer));
    }

    fn draw_panel(&self, area: Rect, buffer: &mut Buffer) {
        let smooth = self.smooth();
        let frame = self.frame(6, (area.height / 4).max(2).into());
        let inside = |points: &[(f64, f64)]| -> Vec<(f64, f64)> { points.iter().copied().filter(|p| p.1 <= frame.y.1).collect() };
        let (train, held_out) = (inside(&smooth), inside(&self.held_out));
        let line = |name, data, color| {
            Dataset::default()
                .name(name)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(color))
                .data(data)
        };
        let labels = |range: (f64, f64), digits: usize| -> Vec<Line> {
            let at = |share: f64| Line::from(format!("{:.digits$}", range.0 + (range.1 - range.0) * share));
            [0.0, 0.5, 1.0].map(at).into()
        };
        let x = Axis::default()
            .title(format!("M {}", self.counted))
            .bounds(frame.x.into())
            .labels(labels(frame.x, digits(frame.x.1 - frame.x.0)));
        let y = Axis::default()
            .title(self.unit.as_str())
            .bounds(frame.y.into())
            .labels(labels(frame.y, digits(frame.y.1 - frame.y.0)));
        let both = [("training", &train, Color::Blue), ("held out", &held_out, Color::Yellow)];
        let drawn = both.into_iter().filter(|(_, points, _)| !points.is_empty());
        Chart::new(drawn.map(|(name, points, color)| line(name, points, color)).collect())
            .x_axis(x)
            .y_axis(y)
            .legend_position(Some(LegendPosition::TopRight))
            .render(area, buffer);
    }

    /// The chart as text, for the end of a run: with the curves' colours on a terminal, plain in a pipe.
    pub fn text(&self, width: u16, height: u16, colored: bool) -> String {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        self.draw(area, &mut buffer);
        let mut text = String::new();
        for row in 0..height {
            let mut line = String::new();
            for column in 0..width {
                let cell = &buffer[(column, row)];
                match cell.fg {
                    Color::Blue if colored => line.push_str(&format!("\x1b[34m{}\x1b[0m", cell.symbol())),
                    Color::Yellow if colored => line.push_str(&format!("\x1b[33m{}\x1b[0m", cell.symbol())),
                    _ => line.push_str(cell.symbol()),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Decimals that tell values of a range apart.
fn digits(range: f64) -> usize {
    if range >= 20.0 { 0 } else { (1.5 - range.log10()).ceil().clamp(1.0, 6.0) as usize }
}

/// About `count` round values inside a range: multiples of 1, 2 or 5 times a power of ten.
fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&step| step >= rough * 0.999).unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run as they are: noise around a power law, measured now and then.
    pub fn a_run() -> Curves {
        let law = |x: f64| 1.9 + 1.4 * (0.02 + x).powf(-0.35);
        let noise = |i: usize| ((i * 7919) % 101) as f64 / 101.0 - 0.5;
        Curves {
            train: (1..=1200).map(|i| (i as f64 * 0.004, law(i as f64 * 0.004) + 0.3 * noise(i))).collect(),
            held_out: (0..=12).map(|i| (i as f64 * 0.4, law(i as f64 * 0.4) + 0.05)).collect(),
            ..Curves::default()
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let check = |range, count, want: &[f64]| {
            let is = ticks(range, count);
            assert!(is.len() == want.len() && is.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-9), "{is:?}");
        };
        check((0.0, 10.0), 5, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        check((2.03, 2.52), 5, &[2.1, 2.2, 2.3, 2.4, 2.5]);
        check((0.0, 0.00042), 4, &[0.0, 0.0002, 0.0004]);
    }

    #[test]
    fn smoothing_keeps_a_line_a_line() {
        let curves = Curves { train: (0..500).map(|i| (i as f64, 3.0 - i as f64 / 400.0)).collect(), ..Curves::default() };
        for (smooth, raw) in curves.smooth().iter().zip(&curves.train).take(480) {
            assert!((smooth.1 - raw.1).abs() < 1e-9);
        }
    }

    #[test]
    fn the_beginning_does_not_squeeze_the_rest() {
        let frame = a_run().frame(5, 5);
        assert!(frame.y.1 < 4.5, "{frame:?}");
        assert!(frame.y.0 > 2.0 && (frame.x.1 - 4.8).abs() < 1e-9, "{frame:?}");
    }

    #[test]
    fn text_has_a_curve_and_both_names() {
        let text = a_run().text(80, 16, false);
        assert!(text.contains("training") && text.contains("held out") && text.contains("bits per byte"), "\n{text}");
        let braille = text.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count();
        assert!(braille > 60, "{braille} cells\n{text}");
    }

    #[test]
    fn a_run_without_points_is_drawn_too() {
        assert!(!Curves::default().text(60, 10, true).is_empty());
        let one = Curves { train: vec![(0.1, 3.0)], held_out: vec![(0.0, f64::NAN)], ..Curves::default() };
        assert!(!one.text(60, 10, true).is_empty());
    }
}
