//! A family as a picture: a card for each model, its children to the right of it, and on each card what every evaluation set gained or lost
//! from the parent, as a bar with its 95 % interval around a line that is "no change".

use std::fmt::Write as _;

use super::{Member, Row, number, rows, short, signed};
use crate::evaluation::Verdict;
use crate::id::ModelId;
use crate::record::{Level, Record};
use crate::standing::Standing;

const CARD: f64 = 500.0;
const GAP_X: f64 = 76.0;
const GAP_Y: f64 = 30.0;
const MARGIN: f64 = 36.0;
const TOP: f64 = 92.0;
const PAD: f64 = 22.0;
const HEAD: f64 = 66.0;
const LINE: f64 = 20.0;
const ROW: f64 = 40.0;
/// Half the width of a bar's field.
const REACH: f64 = 64.0;

const INK: &str = "#1f2933";
const FAINT: &str = "#7b8794";
const RULE: &str = "#e4e7eb";
const BETTER: &str = "#12805c";
const WORSE: &str = "#c2410c";
const SAME: &str = "#8a94a0";

/// The family as an SVG document.
pub fn picture(root: &Member, asked: &ModelId) -> String {
    let mut cards = Vec::new();
    let height = place(root, 0, TOP, &mut cards);
    let depth = cards.iter().map(|card: &Card| card.depth).max().unwrap_or(0) as f64;
    let width = 2.0 * MARGIN + (depth + 1.0) * CARD + depth * GAP_X;
    let total = TOP + height + 64.0;
    // One scale for all bars, so that they can be compared: a share of the parent's value.
    let shares = cards
        .iter()
        .flat_map(|card| card.rows.iter().filter_map(share))
        .map(|(value, low, high)| value.abs().max(low.abs()).max(high.abs()));
    let scale = shares.filter(|share| share.is_finite()).fold(0.0, f64::max).clamp(0.05, 1.0);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{total}\" viewBox=\"0 0 {width} {total}\" \
         font-family=\"Inter, 'Helvetica Neue', Arial, 'Noto Sans', 'DejaVu Sans', 'Noto Sans CJK SC', sans-serif\" fill=\"{INK}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#f5f7fa\"/>\n"
    );
    text(&mut out, (MARGIN, 46.0), 24.0, "600", INK, "start", &format!("The family of {}", asked.name));
    let about = "what each step gained and lost, measured on the same held-out items as its parent";
    text(&mut out, (MARGIN, 70.0), 14.0, "400", FAINT, "start", about);
    for card in &cards {
        if let Some(parent) = card.parent.and_then(|parent| cards.get(parent)) {
            let (x0, y0) = (parent.x + CARD, parent.y + parent.height.min(HEAD) / 2.0 + 6.0);
            let (x1, y1) = (card.x, card.y + card.height.min(HEAD) / 2.0 + 6.0);
            let middle = (x0 + x1) / 2.0;
            let dash = if card.member.standing == Some(Standing::Candidate) { " stroke-dasharray=\"5 5\"" } else { "" };
            let _ = writeln!(
                out,
                "<path d=\"M{x0:.1} {y0:.1} C{middle:.1} {y0:.1} {middle:.1} {y1:.1} {x1:.1} {y1:.1}\" fill=\"none\" stroke=\"#9fb3c8\" stroke-width=\"2\"{dash}/>\
                 <circle cx=\"{x1:.1}\" cy=\"{y1:.1}\" r=\"4\" fill=\"#9fb3c8\"/>"
            );
        }
    }
    cards.iter().for_each(|card| card.draw(&mut out, asked, scale));
    legend(&mut out, total - 24.0, scale);
    out.push_str("</svg>\n");
    out
}

struct Card<'a> {
    member: &'a Member,
    parent: Option<usize>,
    depth: usize,
    x: f64,
    y: f64,
    height: f64,
    /// Where it comes from, a line each.
    lines: Vec<String>,
    rows: Vec<Row>,
    reasons: Vec<String>,
}

/// Places a member and, to its right, its children, from `y` down; gives the height that they take.
fn place<'a>(member: &'a Member, depth: usize, y: f64, cards: &mut Vec<Card<'a>>) -> f64 {
    let record = member.record.as_ref();
    let lines = record.map(origin).unwrap_or_else(|| vec!["not on this machine".into()]);
    let rows = record.map(rows).unwrap_or_default();
    let gate = record.and_then(|record| record.lineage.gate.as_ref());
    let reasons: Vec<String> = gate
        .filter(|gate| !gate.passed)
        .map(|gate| gate.reasons.iter().flat_map(|reason| wrapped(reason, 66)).collect())
        .unwrap_or_default();
    let body = if rows.is_empty() { 0.0 } else { 14.0 + ROW * rows.len() as f64 };
    let why = if reasons.is_empty() { 0.0 } else { 12.0 + 17.0 * reasons.len() as f64 };
    let height = HEAD + LINE * lines.len() as f64 + body + why + 14.0;
    let index = cards.len();
    let x = MARGIN + depth as f64 * (CARD + GAP_X);
    cards.push(Card { member, parent: None, depth, x, y, height, lines, rows, reasons });
    let mut below = y;
    for child in &member.children {
        let at = cards.len();
        below += place(child, depth + 1, below, cards) + GAP_Y;
        cards[at].parent = Some(index);
    }
    (below - GAP_Y - y).max(height)
}

impl Card<'_> {
    fn draw(&self, out: &mut String, asked: &ModelId, scale: f64) {
        let (x, y) = (self.x, self.y);
        let (member, record) = (self.member, self.member.record.as_ref());
        let level = record.and_then(|record| record.lineage.level);
        let color = match level {
            Some(Level::L0) => "#486581",
            Some(Level::L1) => "#0b7285",
            Some(Level::L2) => "#6741d9",
            None => SAME,
        };
        let edge =
            if member.id == *asked { format!("stroke=\"{color}\" stroke-width=\"2\"") } else { format!("stroke=\"{RULE}\"") };
        let _ = writeln!(
            out,
            "<g><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"14\" fill=\"#102a43\" fill-opacity=\"0.06\"/>\
             <rect x=\"{x}\" y=\"{y}\" width=\"{CARD}\" height=\"{:.1}\" rx=\"12\" fill=\"#ffffff\" {edge}/>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"40\" height=\"26\" rx=\"8\" fill=\"{color}\"/>",
            x - 1.0,
            y + 2.0,
            CARD + 2.0,
            self.height + 1.5,
            self.height,
            x + PAD,
            y + 20.0
        );
        let badge = level.map_or("–", |level| level.as_str());
        text(out, (x + PAD + 20.0, y + 38.0), 14.0, "700", "#ffffff", "middle", badge);
        text(out, (x + PAD + 52.0, y + 40.0), 20.0, "600", INK, "start", &clipped(&member.id.to_string(), 26));
        if let Some(standing) = member.standing {
            let color = match standing {
                Standing::Current => BETTER,
                Standing::Passed => "#486581",
                Standing::Candidate => "#b45309",
                Standing::Withdrawn => SAME,
            };
            let label = standing.as_str();
            let wide = 30.0 + 8.2 * label.len() as f64;
            let left = x + CARD - PAD - wide;
            let _ = writeln!(
                out,
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"24\" rx=\"12\" fill=\"{color}\" fill-opacity=\"0.11\"/>\
                 <circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{color}\"/>",
                y + 21.0,
                left + 12.0,
                y + 33.0
            );
            text(out, (left + 20.0, y + 37.5), 13.0, "600", color, "start", label);
        }
        let mut at = y + HEAD + 8.0;
        for line in &self.lines {
            text(out, (x + PAD, at), 13.0, "400", FAINT, "start", &clipped(line, 66));
            at += LINE;
        }
        if !self.rows.is_empty() {
            let _ = writeln!(
                out,
                "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{RULE}\"/>",
                x + PAD,
                at - 6.0,
                x + CARD - PAD,
                at - 6.0
            );
            at += 14.0;
        }
        for row in &self.rows {
            self.row(out, row, at, scale);
            at += ROW;
        }
        for line in &self.reasons {
            text(out, (x + PAD, at + 6.0), 12.0, "400", "#b45309", "start", line);
            at += 17.0;
        }
        out.push_str("</g>\n");
    }

    /// Name and measure, the value, and the bar of its change.
    fn row(&self, out: &mut String, row: &Row, at: f64, scale: f64) {
        let x = self.x;
        text(out, (x + PAD, at), 14.0, "500", INK, "start", &clipped(&row.name, 22));
        text(out, (x + PAD, at + 15.0), 11.5, "400", FAINT, "start", &row.label);
        text(out, (x + 246.0, at + 6.0), 15.0, "600", INK, "end", &number(row.value));
        let (Some(change), Some((value, low, high))) = (&row.change, share(row)) else { return };
        let color = match row.verdict {
            Some(Verdict::Better) => BETTER,
            Some(Verdict::Worse) => WORSE,
            _ => SAME,
        };
        let middle = x + 334.0;
        // By the square root, so that a change of one per cent is seen beside one of a hundred.
        let reach = |share: f64| middle + share.signum() * (share.abs() / scale).min(1.0).sqrt() * REACH;
        let (bar, from, to) = (reach(value), reach(low), reach(high));
        let _ = writeln!(
            out,
            "<line x1=\"{middle:.1}\" y1=\"{:.1}\" x2=\"{middle:.1}\" y2=\"{:.1}\" stroke=\"#cbd2d9\"/>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" rx=\"2\" fill=\"{color}\" fill-opacity=\"0.85\"/>\
             <path d=\"M{from:.1} {mid:.1}H{to:.1}M{from:.1} {:.1}v8M{to:.1} {:.1}v8\" stroke=\"{INK}\" stroke-opacity=\"0.7\" stroke-width=\"1.2\"/>",
            at - 10.0,
            at + 14.0,
            bar.min(middle),
            at - 4.0,
            (bar - middle).abs().max(1.5),
            at - 2.0,
            at - 2.0,
            mid = at + 2.0
        );
        text(out, (x + CARD - PAD, at + 1.0), 13.0, "600", color, "end", &signed(change.value));
        text(out, (x + CARD - PAD, at + 15.0), 11.0, "400", FAINT, "end", &format!("was {}", number(change.was)));
    }
}

/// A change and its interval as shares of what the parent had.
fn share(row: &Row) -> Option<(f64, f64, f64)> {
    let change = row.change.as_ref()?;
    let was = change.was.abs().max(1e-9);
    Some((change.value / was, change.low / was, change.high / was))
}

/// Where a model comes from.
fn origin(record: &Record) -> Vec<String> {
    let lineage = &record.lineage;
    let mut lines = Vec::new();
    let date = record.created.get(..10).unwrap_or_default();
    let parameters = lineage.facts.get("parameters").and_then(|count| count.as_f64());
    let size = parameters.map(|count| format!("{:.1} M parameters · ", count / 1e6)).unwrap_or_default();
    lines.push(format!("{size}{date}"));
    if let Some(origin) = &lineage.origin {
        lines.push(format!("from {} · {}", origin.from, origin.licence.as_deref().unwrap_or("licence not said")));
    }
    if let Some(recipe) = &lineage.recipe {
        lines.push(format!("recipe {} · {}", recipe.name, short(&recipe.hash)));
    }
    if !lineage.data.is_empty() {
        let names: Vec<&str> = lineage.data.iter().map(|data| data.name.as_str()).collect();
        lines.push(format!("data {}", names.join(", ")));
    }
    lines
}

fn legend(out: &mut String, y: f64, scale: f64) {
    let mut x = MARGIN;
    for (color, label) in [(BETTER, "better by more than chance"), (SAME, "as before"), (WORSE, "worse by more than chance")] {
        let _ = writeln!(out, "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{color}\"/>", y - 10.0);
        text(out, (x + 18.0, y), 12.0, "400", FAINT, "start", label);
        x += 34.0 + 6.6 * label.len() as f64;
    }
    let about = format!(
        "bars: share of the parent's value, the longest {:.0} %, lengths by the square root; whiskers: 95 % interval",
        100.0 * scale
    );
    text(out, (x, y), 12.0, "400", FAINT, "start", &about);
}

fn text(out: &mut String, (x, y): (f64, f64), size: f64, weight: &str, color: &str, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" font-weight=\"{weight}\" fill=\"{color}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn clipped(words: &str, most: usize) -> String {
    if words.chars().count() <= most { words.to_owned() } else { words.chars().take(most - 1).chain(['…']).collect() }
}

fn wrapped(words: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.chars().count() + 1 + word.chars().count() <= most => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
