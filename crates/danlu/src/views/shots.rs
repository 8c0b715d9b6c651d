//! How much is answered right with how many demonstrations, as a PNG.

use std::path::Path;

use anyhow::Result;

use super::picture::{Anchor, BOTTOM, Canvas, Color, FAINT, GRID, HEIGHT, INK, LEFT, TOP, WIDTH};

/// A task's curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    /// Of each number of demonstrations the share that is right, and the ends of its interval.
    pub points: Vec<(usize, f64, (f64, f64))>,
}

/// Told apart also by people who see fewer colours (Okabe and Ito 2008).
const COLORS: [Color; 7] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233], [90, 90, 90]];
/// Room for names at the right of the lines.
const NAMES: f32 = 240.0;

/// Writes the picture of `lines` to `path`.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, lines: &[Line], title: &str, subtitle: &str) -> Result<()> {
    draw(lines, title, subtitle)?.save(path)
}

fn draw(lines: &[Line], title: &str, subtitle: &str) -> Result<Canvas> {
    let mut canvas = Canvas::new()?;
    canvas.text(title, (LEFT, 46.0), 28.0, INK, Anchor::Start);
    canvas.text(subtitle, (LEFT, 76.0), 18.0, FAINT, Anchor::Start);
    canvas.text("share of answers that are right", (LEFT, TOP - 12.0), 18.0, FAINT, Anchor::Start);

    // Numbers of demonstrations stand at equal distances: what counts is the next one, and they grow in multiples.
    let mut shots: Vec<usize> = lines.iter().flat_map(|line| &line.points).map(|point| point.0).collect();
    shots.sort_unstable();
    shots.dedup();
    let (bottom, right) = (HEIGHT as f32 - BOTTOM, WIDTH as f32 - NAMES);
    let column = |count: usize| {
        let at = shots.iter().position(|&one| one == count).unwrap_or(0) as f32;
        LEFT + 40.0 + at / (shots.len().max(2) - 1) as f32 * (right - LEFT - 80.0)
    };
    let row = |share: f64| TOP + (1.0 - share.clamp(0.0, 1.0) as f32) * (bottom - TOP);
    for tenth in (0..=10).step_by(2) {
        let (share, y) = (f64::from(tenth) / 10.0, row(f64::from(tenth) / 10.0));
        canvas.line(&[(LEFT, y), (right, y)], 1.0, GRID);
        canvas.text(&format!("{share:.1}"), (LEFT - 12.0, y + 6.0), 18.0, FAINT, Anchor::End);
    }
    for &count in &shots {
        canvas.text(&count.to_string(), (column(count), bottom + 28.0), 18.0, FAINT, Anchor::Middle);
    }
    canvas.line(&[(LEFT, bottom), (right, bottom)], 1.0, FAINT);
    canvas.text("demonstrations before the question", ((LEFT + right) / 2.0, bottom + 58.0), 18.0, FAINT, Anchor::Middle);

    let mut last: Vec<f32> = vec![];
    for (i, (line, &color)) in lines.iter().zip(COLORS.iter().cycle()).enumerate() {
        // Intervals beside each other, not upon each other.
        let aside = (i as f32 - (lines.len() as f32 - 1.0) / 2.0) * 7.0;
        let place = |&(count, share, _): &(usize, f64, (f64, f64))| (column(count) + aside, row(share));
        let points: Vec<_> = line.points.iter().filter(|point| point.1.is_finite()).collect();
        canvas.line(&points.iter().map(|point| place(point)).collect::<Vec<_>>(), 2.6, color);
        for point in &points {
            let (x, y) = place(point);
            canvas.line(&[(x, row(point.2.0)), (x, row(point.2.1))], 1.4, color);
            canvas.line(&[(x, y), (x, y)], 9.0, color);
        }
        // Names keep clear of each other.
        let Some(end) = points.last().map(|point| place(point)) else { continue };
        let mut y = end.1 + 6.0;
        while let Some(near) = last.iter().find(|&&other| (other - y).abs() < 22.0) {
            y = near + 24.0;
        }
        last.push(y);
        canvas.text(&line.name, (right + 14.0, y), 18.0, color, Anchor::Start);
    }
    Ok(canvas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_colour_and_nothing_is_drawn_too() {
        let line = |name: &str, from: f64| Line {
            name: name.into(),
            points: [0, 1, 4].map(|count| (count, from + 0.1 * count as f64, (from, from + 0.45))).to_vec(),
        };
        let canvas = draw(&[line("sums", 0.1), line("copies", 0.5)], "smollm2@1", "gpt3").unwrap();
        let count = |color: Color| canvas.image.pixels().filter(|pixel| pixel.0 == color).count();
        assert!(count(COLORS[0]) > 500 && count(COLORS[1]) > 500 && count(COLORS[2]) == 0);
        let one = Line { name: String::new(), points: vec![(3, f64::NAN, (0.0, 2.0))] };
        for lines in [vec![], vec![one], vec![Line { name: "none".into(), points: vec![] }]] {
            draw(&lines, "", "").unwrap();
        }
    }
}
