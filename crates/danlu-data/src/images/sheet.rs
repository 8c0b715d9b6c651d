//! Many pictures as one.

use std::io::Cursor;

use anyhow::{Result, ensure};
use image::{GrayImage, ImageFormat, RgbImage};

/// The most pixels of a sheet on a side: what viewers still open.
const MOST: usize = 1 << 15;

/// Pictures beside and below each other as a PNG, `columns` in a row, with a pixel of black between. `pixels` are picture after picture, each
/// plane after plane, of one size `[channels, height, width]`.
///
/// # Errors
/// When there is no picture, their values are not of that size, or the sheet would be too large.
pub fn sheet(pixels: &[u8], [channels, height, width]: [usize; 3], columns: usize) -> Result<Vec<u8>> {
    let each = channels * height * width;
    ensure!(channels == 1 || channels == 3, "a sheet is grey or coloured, not of {channels} channels");
    ensure!(
        each > 0 && !pixels.is_empty() && pixels.len().is_multiple_of(each),
        "{} values are no pictures of {each}",
        pixels.len()
    );
    let count = pixels.len() / each;
    let columns = columns.clamp(1, count);
    let side = |pictures: usize, pixels: usize| pictures.saturating_mul(pixels + 1) - 1;
    let (wide, high) = (side(columns, width), side(count.div_ceil(columns), height));
    ensure!(wide.max(high) <= MOST, "a sheet of {wide}×{high} pixels is too large; draw fewer pictures, or more in a row");
    let mut out = vec![0; channels * wide * high];
    for (place, picture) in pixels.chunks_exact(each).enumerate() {
        let (top, left) = (place / columns * (height + 1), place % columns * (width + 1));
        for (i, &value) in picture.iter().enumerate() {
            let (channel, y, x) = (i / (height * width), i / width % height, i % width);
            out[((top + y) * wide + left + x) * channels + channel] = value;
        }
    }
    let mut png = Cursor::new(vec![]);
    let (wide, high) = (wide as u32, high as u32);
    let fits = "the buffer was made for this size";
    match channels {
        1 => GrayImage::from_raw(wide, high, out).expect(fits).write_to(&mut png, ImageFormat::Png)?,
        _ => RgbImage::from_raw(wide, high, out).expect(fits).write_to(&mut png, ImageFormat::Png)?,
    }
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lie_where_they_should() {
        // Three of 1×2 pixels, in two planes' order for colour.
        let read = |png: &[u8]| image::load_from_memory(png).unwrap();
        let grey = read(&sheet(&[1, 2, 3, 4, 5, 6], [1, 1, 2], 2).unwrap()).into_luma8();
        assert_eq!(grey.dimensions(), (5, 3));
        assert_eq!(grey.into_raw(), [1, 2, 0, 3, 4, 0, 0, 0, 0, 0, 5, 6, 0, 0, 0]);
        let colour = read(&sheet(&[10, 20, 30, 40, 50, 60], [3, 1, 2], 9).unwrap()).into_rgb8();
        assert_eq!((colour.dimensions(), colour.into_raw()), ((2, 1), vec![10, 30, 50, 20, 40, 60]));
        for (pixels, shape) in [(&[][..], [1, 1, 1]), (&[1, 2, 3][..], [1, 1, 2]), (&[1, 2][..], [2, 1, 1])] {
            sheet(pixels, shape, 1).unwrap_err();
        }
    }
}
