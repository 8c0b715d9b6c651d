//! Pictures side by side with what is known of them drawn in: boxes, the edges of masks, and points.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

use super::{Instance, Keypoint, Picture, Visibility};

/// The longer side of a picture on the sheet, and what is between two.
const TILE: u32 = 320;
const GAP: u32 = 8;
const COLUMNS: u32 = 4;
/// The most pictures on a sheet: twenty-five rows of them.
const MOST: usize = 100;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
/// Things of one picture are told apart by these, in turn (Okabe and Ito's, for people who see colours otherwise too).
const COLORS: [[u8; 3]; 7] =
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];

/// A sheet of some pictures as PNG.
///
/// # Errors
/// When there are more than a sheet has room for.
pub fn sheet<'a>(pictures: impl IntoIterator<Item = (&'a Picture, &'a [Instance])>) -> Result<Vec<u8>> {
    let pictures: Vec<_> = pictures.into_iter().collect();
    ensure!(pictures.len() <= MOST, "{} pictures are too many for a sheet; {MOST} are drawn on one", pictures.len());
    let count = pictures.len() as u32;
    let (rows, columns) = (count.div_ceil(COLUMNS), count.min(COLUMNS));
    let mut sheet = RgbImage::from_pixel(columns * (TILE + GAP) + GAP, rows * (TILE + GAP) + GAP, PAPER);
    for (place, (picture, instances)) in (0..).zip(pictures) {
        let (column, row) = (place % COLUMNS, place / COLUMNS);
        let at = |n: u32| i64::from(GAP + n * (TILE + GAP));
        imageops::overlay(&mut sheet, &tile(picture, instances), at(column), at(row));
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png).context("cannot encode the sheet")?;
    Ok(png.into_inner())
}

/// A picture in the size of the sheet, with what is in it.
fn tile(picture: &Picture, instances: &[Instance]) -> RgbImage {
    let (width, height) = (picture.width as u32, picture.height as u32);
    let scale = f64::from(TILE) / f64::from(width.max(height).max(1));
    let size = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let whole = RgbImage::from_fn(width, height, |x, y| Rgb(picture.pixel(y as usize, x as usize)));
    // Small pictures are shown as the pixels that they have.
    let filter = if scale > 1.0 { FilterType::Nearest } else { FilterType::Triangle };
    let mut tile = imageops::resize(&whole, size(width), size(height), filter);
    for (instance, color) in instances.iter().zip(COLORS.into_iter().cycle().map(Rgb)) {
        draw(&mut tile, instance, scale, color);
    }
    tile
}

fn draw(tile: &mut RgbImage, instance: &Instance, scale: f64, color: Rgb<u8>) {
    let mut dot = |x: i64, y: i64, color: Rgb<u8>| {
        if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
            && let Some(pixel) = tile.get_pixel_mut_checked(x, y)
        {
            *pixel = color;
        }
    };
    if let Some(mask) = &instance.mask {
        let (width, height) = (i64::from(mask.width()), i64::from(mask.height()));
        let bitmap = mask.bitmap();
        let inside = |x: i64, y: i64| {
            let (x, y) = (((x as f64 + 0.5) / scale).floor() as i64, ((y as f64 + 0.5) / scale).floor() as i64);
            (0..width).contains(&x) && (0..height).contains(&y) && bitmap[(y * width + x) as usize]
        };
        let [left, top, right, bottom] = corners(mask.bbox(), scale);
        for (x, y) in (top..=bottom).flat_map(|y| (left..=right).map(move |x| (x, y))) {
            let edge = || [(1, 0), (-1, 0), (0, 1), (0, -1)].into_iter().any(|(right, down)| !inside(x + right, y + down));
            if inside(x, y) && edge() {
                dot(x, y, color);
            }
        }
    }
    let [left, top, right, bottom] = corners(instance.bbox, scale);
    // A crowd's box is broken.
    let shown = |at: i64| !instance.crowd || at % 8 < 4;
    for x in (left..=right).filter(|x| shown(*x)) {
        dot(x, top, color);
        dot(x, bottom, color);
    }
    for y in (top..=bottom).filter(|y| shown(*y)) {
        dot(left, y, color);
        dot(right, y, color);
    }
    for Keypoint { x, y, visibility } in instance.keypoints.iter().filter(|point| point.visibility != Visibility::Unknown) {
        let (x, y) = ((x * scale) as i64, (y * scale) as i64);
        // Seen ones are full, hidden ones hollow, and both have a dark rim.
        for (right, down) in (-3i64..=3).flat_map(|down| (-3i64..=3).map(move |right| (right, down))) {
            match right.abs().max(down.abs()) {
                3 => dot(x + right, y + down, Rgb([0, 0, 0])),
                2 => dot(x + right, y + down, color),
                _ if *visibility == Visibility::Visible => dot(x + right, y + down, color),
                _ => {}
            }
        }
    }
}

/// The first and last pixels of a box on the sheet.
fn corners([x, y, wide, high]: [f64; 4], scale: f64) -> [i64; 4] {
    [x, y, x + wide - 1.0 / scale, y + high - 1.0 / scale].map(|at| (at * scale).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::Rle;

    #[test]
    fn what_is_known_is_drawn_where_it_is() {
        let mask = Rle::of_bitmap(40, 80, |y, x| (10..20).contains(&y) && (30..60).contains(&x));
        let point = Keypoint { x: 45.0, y: 15.0, visibility: Visibility::Hidden };
        let instance = Instance {
            class: 0,
            bbox: mask.bbox(),
            area: 300.0,
            mask: Some(mask),
            keypoints: vec![point],
            crowd: false,
            identity: None,
        };
        let picture = Picture { height: 40, width: 80, pixels: vec![100; 3 * 40 * 80] };
        // Four times the size.
        let drawn = tile(&picture, &[instance]);
        assert_eq!(drawn.dimensions(), (320, 160));
        let color = |x: u32, y: u32| drawn.get_pixel(x, y).0;
        for (x, y) in [(120, 40), (239, 40), (120, 79), (239, 79), (178, 60), (182, 60)] {
            assert_eq!(color(x, y), COLORS[0], "{x}, {y}");
        }
        for (x, y) in [(119, 40), (240, 60), (150, 39), (150, 50), (180, 60), (0, 0)] {
            assert_eq!(color(x, y), [100; 3], "{x}, {y}");
        }
        assert_eq!(color(177, 60), [0; 3]);
        let none: &[Instance] = &[];
        let read = image::load_from_memory(&sheet([(&picture, none); 5]).unwrap()).unwrap();
        assert_eq!((read.width(), read.height()), (4 * 328 + 8, 2 * 328 + 8));
        assert!(sheet([(&picture, none); 101]).is_err());
    }
}
