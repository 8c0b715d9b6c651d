//! What things lie on.

use super::draw::Draw;
use super::stamps::{Stamp, Stamps};

/// Paints a picture to put things on, row after row: one colour, a gradient, noise, or a piece of a stamp so large that it is no thing any
/// more, each as often.
pub(super) fn paint(stamps: &Stamps, height: usize, width: usize, draw: &mut Draw) -> Vec<[f32; 3]> {
    match draw.below(4) {
        0 => vec![draw.color(); height * width],
        1 => gradient(height, width, draw),
        2 => noise(height, width, draw),
        _ => {
            let stamp = stamps.get(draw.below(stamps.len()));
            piece(stamp, height, width, draw).unwrap_or_else(|| gradient(height, width, draw))
        }
    }
}

fn mixed(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|c| a[c] + share * (b[c] - a[c]))
}

/// From one colour to another in a direction.
fn gradient(height: usize, width: usize, draw: &mut Draw) -> Vec<[f32; 3]> {
    let (from, to) = (draw.color(), draw.color());
    let (sin, cos) = draw.between(0.0, std::f64::consts::TAU).sin_cos();
    let (height, width) = (height as f64, width as f64);
    let reach = (cos.abs() * width + sin.abs() * height) / 2.0;
    let places = each(height as usize, width as usize);
    let share = |(y, x): (f64, f64)| 0.5 + ((x - width / 2.0) * cos + (y - height / 2.0) * sin) / (2.0 * reach);
    places.map(|place| mixed(from, to, share(place) as f32)).collect()
}

/// Two colours by smooth noise in two sizes ("value noise").
fn noise(height: usize, width: usize, draw: &mut Draw) -> Vec<[f32; 3]> {
    let (from, to) = (draw.color(), draw.color());
    let coarse = draw.scale(6.0, 48.0);
    let layers = [(coarse, 0.7), (coarse / 3.0, 0.3)].map(|(cell, weight)| {
        let (rows, columns) = ((height as f64 / cell) as usize + 2, (width as f64 / cell) as usize + 2);
        let knots: Vec<f64> = (0..rows * columns).map(|_| draw.between(0.0, 1.0)).collect();
        (cell, weight, columns, knots)
    });
    let value = |(y, x): (f64, f64)| -> f64 {
        let layer = |(cell, weight, columns, knots): &(f64, f64, usize, Vec<f64>)| {
            let (y, x) = (y / cell, x / cell);
            let (row, column) = (y as usize, x as usize);
            let knot = |down: usize, right: usize| knots[(row + down) * columns + column + right];
            let smooth = |t: f64| t * t * (3.0 - 2.0 * t);
            let (down, right) = (smooth(y.fract()), smooth(x.fract()));
            let (upper, lower) = (knot(0, 0) + right * (knot(0, 1) - knot(0, 0)), knot(1, 0) + right * (knot(1, 1) - knot(1, 0)));
            weight * (upper + down * (lower - upper))
        };
        layers.iter().map(layer).sum()
    };
    each(height, width).map(|place| mixed(from, to, value(place) as f32)).collect()
}

/// A quarter of a stamp, or less, drawn over the whole; none where no such piece is opaque.
fn piece(stamp: &Stamp, height: usize, width: usize, draw: &mut Draw) -> Option<Vec<[f32; 3]>> {
    const TRIES: usize = 8;
    let pixels = &stamp.pixels;
    let (high, wide) = (pixels.height() as f64, pixels.width() as f64);
    let side = draw.between(0.12, 0.25) * high.min(wide);
    let (down, right) = (side / height as f64, side / width as f64);
    let opaque = |(top, left): &(f64, f64)| {
        let grid = || [0.0, 0.25, 0.5, 0.75, 1.0].into_iter();
        grid().all(|y| grid().all(|x| pixels.at(0, left + x * side, top + y * side)[3] > 250.0))
    };
    let mut places = (0..TRIES).map(|_| (draw.between(0.0, high - side), draw.between(0.0, wide - side)));
    let (top, left) = places.find(opaque)?;
    let color = |(y, x): (f64, f64)| {
        let [red, green, blue, alpha] = pixels.at(0, left + x * right, top + y * down);
        [red, green, blue].map(|value| value * 255.0 / alpha.max(1.0))
    };
    Some(each(height, width).map(color).collect())
}

/// The middle of each pixel, as y and x.
fn each(height: usize, width: usize) -> impl Iterator<Item = (f64, f64)> {
    (0..height * width).map(move |place| ((place / width) as f64 + 0.5, (place % width) as f64 + 0.5))
}
