//! The course of a run as a PNG. Lines are drawn by their distance to each pixel and text from an embedded font, so that the picture is
//! the same on every machine and needs nothing installed.

use std::io::Cursor;
use std::path::Path;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage};

use super::chart::{Curves, Frame};

pub(super) const WIDTH: u32 = 1280;
pub(super) const HEIGHT: u32 = 760;
pub(super) const LEFT: f32 = 96.0;
const RIGHT: f32 = 92.0;
pub(super) const TOP: f32 = 122.0;
pub(super) const BOTTOM: f32 = 76.0;
/// From one frame to the next below it.
const BETWEEN: f32 = 84.0;

pub(super) type Color = [u8; 3];
/// Left, top, right, bottom.
type Area = (f32, f32, f32, f32);
const PAPER: Color = [255, 255, 255];
pub(super) const INK: Color = [33, 37, 41];
pub(super) const FAINT: Color = [108, 117, 125];
pub(super) const GRID: Color = [233, 236, 239];
const NOISE: Color = [198, 219, 245];
const TRAIN: Color = [37, 99, 204];
const HELD_OUT: Color = [217, 95, 14];

/// Writes the picture of `curves` to `path`, under a title and a line that says what was trained.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, curves: &Curves, title: &str, subtitle: &str) -> Result<()> {
    draw(curves, title, subtitle)?.save(path)
}

fn draw(curves: &Curves, title: &str, subtitle: &str) -> Result<Canvas> {
    let mut canvas = Canvas::new()?;
    canvas.text(title, (LEFT, 46.0), 28.0, INK, Anchor::Start);
    canvas.text(subtitle, (LEFT, 76.0), 18.0, FAINT, Anchor::Start);
    let (panels, right) = (curves.panels(), WIDTH as f32 - RIGHT);
    let height = (HEIGHT as f32 - TOP - BOTTOM - BETWEEN * (panels.len() - 1) as f32) / panels.len() as f32;
    for (i, panel) in panels.iter().enumerate() {
        let top = TOP + (height + BETWEEN) * i as f32;
        draw_panel(&mut canvas, panel, (LEFT, top, right, top + height));
    }
    let (middle, bottom) = ((LEFT + right) / 2.0, HEIGHT as f32 - BOTTOM);
    canvas.text(&format!("million {}", curves.counted), (middle, bottom + 58.0), 18.0, FAINT, Anchor::Middle);
    Ok(canvas)
}

/// Draws what has one unit into an area.
fn draw_panel(canvas: &mut Canvas, curves: &Curves, area: Area) {
    let (left, top, right, bottom) = area;
    let frame = curves.frame(8, if bottom - top > 400.0 { 7 } else { 4 });
    let decimals =
        |ticks: &[f64]| ticks.windows(2).next().map_or(1.0, |pair| -(pair[1] - pair[0]).log10().floor().min(0.0)) as usize;
    for &tick in &frame.y_ticks {
        let y = place(&frame, area, (0.0, tick)).1;
        canvas.line(&[(left, y), (right, y)], 1.0, GRID);
        canvas.text(&format!("{tick:.*}", decimals(&frame.y_ticks)), (left - 12.0, y + 6.0), 18.0, FAINT, Anchor::End);
    }
    for &tick in &frame.x_ticks {
        let x = place(&frame, area, (tick, 0.0)).0;
        canvas.line(&[(x, bottom), (x, bottom + 6.0)], 1.0, FAINT);
        canvas.text(&format!("{tick:.*}", decimals(&frame.x_ticks)), (x, bottom + 28.0), 18.0, FAINT, Anchor::Middle);
    }
    canvas.line(&[(left, bottom), (right, bottom)], 1.0, FAINT);

    let path = |points: &[(f64, f64)]| -> Vec<(f32, f32)> {
        points.iter().filter(|p| p.0.is_finite() && p.1.is_finite()).map(|&p| place(&frame, area, p)).collect()
    };
    canvas.clip = Some(area);
    canvas.line(&path(&curves.train), 1.2, NOISE);
    canvas.line(&path(&curves.smooth()), 2.6, TRAIN);
    let held_out = path(&curves.held_out);
    // A line between two points would claim what was not measured.
    if held_out.len() > 2 {
        canvas.line(&held_out, 2.6, HELD_OUT);
    }
    held_out.iter().for_each(|&at| canvas.line(&[at, at], 9.0, HELD_OUT));
    canvas.clip = None;

    canvas.text(&curves.unit, (left, top - 12.0), 18.0, FAINT, Anchor::Start);
    let names = [("training batches", TRAIN, curves.train.is_empty()), ("held out", HELD_OUT, curves.held_out.is_empty())];
    for (i, (name, color, _)) in names.into_iter().filter(|(.., empty)| !empty).enumerate() {
        let y = top + 22.0 + 28.0 * i as f32;
        canvas.line(&[(right - 190.0, y - 6.0), (right - 162.0, y - 6.0)], 3.0, color);
        canvas.text(name, (right - 152.0, y), 18.0, INK, Anchor::Start);
    }
    // The last held-out value is what one looks for.
    if let (Some(&(x, y)), Some(&(_, value))) = (held_out.last(), curves.held_out.last()) {
        canvas.text(&format!("{value:.3}"), (x + 14.0, y + 7.0), 20.0, HELD_OUT, Anchor::Start);
    }
}

fn place(frame: &Frame, (left, top, right, bottom): Area, (x, y): (f64, f64)) -> (f32, f32) {
    let share = |value: f64, (low, high): (f64, f64)| ((value - low) / (high - low)) as f32;
    (left + share(x, frame.x) * (right - left), top + (1.0 - share(y, frame.y)) * (bottom - top))
}

#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A sheet of paper of fixed size.
pub(super) struct Canvas {
    pub(super) image: RgbImage,
    font: FontRef<'static>,
    clip: Option<Area>,
}

impl Canvas {
    pub(super) fn new() -> Result<Self> {
        let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).context("the embedded font cannot be read")?;
        Ok(Self { image: RgbImage::from_pixel(WIDTH, HEIGHT, Rgb(PAPER)), font, clip: None })
    }

    /// Writes it as a PNG.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut png = Cursor::new(Vec::new());
        self.image.write_to(&mut png, ImageFormat::Png).context("cannot encode the picture")?;
        danlu_files::write_atomic_bytes(path, png.get_ref())
    }

    /// A line of round joints through `points`. A pixel takes the colour once, by its nearest segment, so joints are not darker.
    pub(super) fn line(&mut self, points: &[(f32, f32)], width: f32, color: Color) {
        let mut covered = vec![0f32; (WIDTH * HEIGHT) as usize];
        let (left, top, right, bottom) = self.clip.unwrap_or((0.0, 0.0, WIDTH as f32, HEIGHT as f32));
        let reach = width / 2.0 + 1.0;
        for (&(ax, ay), &(bx, by)) in points.iter().zip(&points[1.min(points.len())..]) {
            let columns = (ax.min(bx) - reach).max(left) as u32..((ax.max(bx) + reach).min(right).max(0.0) as u32);
            for x in columns {
                for y in (ay.min(by) - reach).max(top) as u32..((ay.max(by) + reach).min(bottom).max(0.0) as u32) {
                    let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
                    let (dx, dy) = (bx - ax, by - ay);
                    let length = dx * dx + dy * dy;
                    let along = if length > 0.0 { (((px - ax) * dx + (py - ay) * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
                    let distance = (px - ax - along * dx).hypot(py - ay - along * dy);
                    let cell = &mut covered[(y * WIDTH + x) as usize];
                    *cell = cell.max((width / 2.0 + 0.5 - distance).clamp(0.0, 1.0));
                }
            }
        }
        for (pixel, &cover) in self.image.pixels_mut().zip(&covered) {
            blend(pixel, color, cover);
        }
    }

    /// One line of text with its baseline at `at`.
    pub(super) fn text(&mut self, text: &str, at: (f32, f32), size: f32, color: Color, anchor: Anchor) {
        let font = self.font.as_scaled(PxScale::from(size));
        let mut pen = 0.0;
        let mut last = None;
        let mut glyphs = Vec::new();
        for c in text.chars() {
            let id = font.glyph_id(c);
            pen += last.map_or(0.0, |last| font.kern(last, id));
            glyphs.push((id, pen));
            pen += font.h_advance(id);
            last = Some(id);
        }
        let start = at.0
            - match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => pen / 2.0,
                Anchor::End => pen,
            };
        for (id, x) in glyphs {
            let glyph = id.with_scale_and_position(PxScale::from(size), point(start + x, at.1));
            let Some(outline) = self.font.outline_glyph(glyph) else { continue };
            let bounds = outline.px_bounds();
            outline.draw(|dx, dy, cover| {
                let (x, y) = (bounds.min.x as i64 + i64::from(dx), bounds.min.y as i64 + i64::from(dy));
                if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
                    && let Some(pixel) = self.image.get_pixel_mut_checked(x, y)
                {
                    blend(pixel, color, cover);
                }
            });
        }
    }
}

fn blend(pixel: &mut Rgb<u8>, color: Color, cover: f32) {
    if cover > 0.0 {
        for (channel, value) in pixel.0.iter_mut().zip(color) {
            *channel = (f32::from(*channel) * (1.0 - cover) + f32::from(value) * cover).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::chart::tests::a_run;

    #[test]
    fn the_picture_has_both_curves_and_its_words() {
        let image = draw(&a_run(), "up@1", "6.2 M parameters").unwrap().image;
        let count = |color: Color| image.pixels().filter(|p| p.0 == color).count();
        assert!(count(TRAIN) > 1000 && count(HELD_OUT) > 1000 && count(NOISE) > 1000);
        let dark = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            x.flat_map(|x| y.clone().map(move |y| (x, y))).filter(|&(x, y)| image.get_pixel(x, y).0[0] < 180).count()
        };
        assert!(dark(90..300, 15..60) > 200, "the title is written");
        assert!(dark(20..90, 100..700) > 100, "the ticks have numbers");
    }

    #[test]
    fn training_batches_of_another_unit_have_a_frame_of_their_own() {
        let curves = Curves { train_unit: Some("loss".into()), unit: "average precision".into(), ..a_run() };
        let image = draw(&curves, "detect@1", "").unwrap().image;
        let rows = |color: Color| {
            image.enumerate_pixels().filter(|(x, _, p)| *x < 900 && p.0 == color).map(|(_, y, _)| y).collect::<Vec<_>>()
        };
        assert!(
            rows(HELD_OUT).iter().max() < rows(TRAIN).iter().min() && rows(TRAIN).len() > 1000 && rows(HELD_OUT).len() > 1000
        );
    }

    #[test]
    fn nothing_and_nonsense_are_drawn_too() {
        let odd = Curves {
            train: vec![(0.0, f64::INFINITY), (1.0, 2.0), (f64::NAN, 1.0)],
            held_out: vec![(0.5, 1e9)],
            ..Curves::default()
        };
        for curves in [Curves::default(), odd] {
            draw(&curves, "", "\u{4e39}\u{7089}").unwrap();
        }
    }
}
