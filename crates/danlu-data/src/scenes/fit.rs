//! A labelled picture in the size that a network reads.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::{Instance, Keypoint, Picture, Rle, Scene, Visibility};

/// A part of a picture as it lies in one of another size: larger or smaller as a whole, in the middle, with black beside or above and below
/// it, so that nothing is cut off and nothing is out of shape ("letterboxing").
#[derive(Clone, Debug)]
pub struct Fit {
    /// x and y of the part's corner, its width and its height.
    part: [u32; 4],
    /// The same of where it lies.
    place: [u32; 4],
    /// Height and width of the picture that it is taken from, and of the one that it lies in.
    from: [usize; 2],
    to: [usize; 2],
}

/// Where places of one picture are in another: `x · scale + shift`, along x and y.
#[derive(Clone, Copy)]
struct Map {
    scale: [f64; 2],
    shift: [f64; 2],
}

impl Map {
    fn at(self, point: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|axis| point[axis] * self.scale[axis] + self.shift[axis])
    }

    fn back(self) -> Self {
        Self { scale: self.scale.map(f64::recip), shift: [0, 1].map(|axis| -self.shift[axis] / self.scale[axis]) }
    }
}

impl Fit {
    /// All of a picture of `from`, height and width, in one of `to`.
    pub fn whole(from: [usize; 2], to: [usize; 2]) -> Self {
        Self::part([0.0, 0.0, from[1] as f64, from[0] as f64], from, to)
    }

    /// What of a picture is in a box, or a pixel of it at least.
    pub fn part([x, y, wide, high]: [f64; 4], from: [usize; 2], to: [usize; 2]) -> Self {
        let along = |low: f64, long: f64, end: usize| {
            let first = low.floor().clamp(0.0, end.saturating_sub(1) as f64);
            let last = (low + long).ceil().clamp(first + 1.0, end.max(1) as f64);
            (first as u32, (last - first) as u32)
        };
        let ((left, wide), (top, high)) = (along(x, wide, from[1]), along(y, high, from[0]));
        let scale = (to[1] as f64 / f64::from(wide)).min(to[0] as f64 / f64::from(high));
        let side = |pixels: u32, most: usize| ((f64::from(pixels) * scale).round() as u32).clamp(1, most as u32);
        let (width, height) = (side(wide, to[1]), side(high, to[0]));
        let place = [(to[1] as u32 - width) / 2, (to[0] as u32 - height) / 2, width, height];
        Self { part: [left, top, wide, high], place, from, to }
    }

    fn map(&self) -> Map {
        let scale = [0, 1].map(|axis| f64::from(self.place[axis + 2]) / f64::from(self.part[axis + 2]));
        Map { scale, shift: [0, 1].map(|axis| f64::from(self.place[axis]) - f64::from(self.part[axis]) * scale[axis]) }
    }

    /// The picture.
    ///
    /// # Panics
    /// When it is not of the size that was given.
    pub fn picture(&self, picture: &Picture) -> Picture {
        assert_eq!([picture.height, picture.width], self.from, "height and width are those that were given");
        let [left, top, wide, high] = self.part;
        let part = RgbImage::from_fn(wide, high, |x, y| Rgb(picture.pixel((top + y) as usize, (left + x) as usize)));
        let [right, down, width, height] = self.place;
        let part = imageops::resize(&part, width, height, FilterType::Triangle);
        let [height, width] = self.to;
        let mut all = RgbImage::new(width as u32, height as u32);
        imageops::replace(&mut all, &part, i64::from(right), i64::from(down));
        let plane = |channel: usize| all.pixels().map(move |pixel| pixel.0[channel]).collect::<Vec<u8>>();
        Picture { height, width, pixels: (0..3).flat_map(plane).collect() }
    }

    /// A thing of the picture where it lies now; none of one that is not in the part.
    pub fn instance(&self, instance: &Instance) -> Option<Instance> {
        moved(instance, self.map(), self.part, self.to)
    }

    /// A thing that was seen in what this gives, as it is in the picture itself.
    pub fn back(&self, instance: &Instance) -> Option<Instance> {
        moved(instance, self.map().back(), self.place, self.from)
    }

    pub(super) fn scene<'a>(&self, picture: &Picture, instances: impl IntoIterator<Item = &'a Instance>) -> Scene {
        let instances = instances.into_iter().filter_map(|one| self.instance(one)).collect();
        Scene { picture: self.picture(picture), instances }
    }
}

/// What of a thing is in `part` of its picture, in another picture of `to`.
fn moved(instance: &Instance, map: Map, part: [u32; 4], to: [usize; 2]) -> Option<Instance> {
    let [left, top, wide, high] = part.map(f64::from);
    let inside = |x: f64, y: f64| (left..=left + wide).contains(&x) && (top..=top + high).contains(&y);
    let [x, y, width, height] = instance.bbox;
    let low = map.at([x.max(left), y.max(top)]);
    let end = map.at([(x + width).min(left + wide), (y + height).min(top + high)]);
    let bbox = [low[0], low[1], end[0] - low[0], end[1] - low[1]];
    if bbox[2] <= 0.0 || bbox[3] <= 0.0 {
        return None;
    }
    let point = |point: &Keypoint| {
        let [x, y] = map.at([point.x, point.y]);
        let known = point.visibility != Visibility::Unknown && inside(point.x, point.y);
        if known { Keypoint { x, y, visibility: point.visibility } } else { Keypoint::default() }
    };
    let mask = instance.mask.as_ref().map(|mask| {
        let (back, ends, rows) = (map.back(), ends(mask), mask.height());
        Rle::of_bitmap(to[0] as u32, to[1] as u32, |y, x| {
            // The pixel of the one picture that is in the middle of the other's.
            let [x, y] = back.at([f64::from(x) + 0.5, f64::from(y) + 0.5]);
            inside(x, y)
                && (0.0..f64::from(mask.width())).contains(&x)
                && (0.0..f64::from(rows)).contains(&y)
                && ends.partition_point(|end| *end <= x as u32 * rows + y as u32) % 2 == 1
        })
    });
    Some(Instance {
        class: instance.class,
        bbox,
        area: instance.area * map.scale[0] * map.scale[1],
        mask,
        keypoints: instance.keypoints.iter().map(point).collect(),
        crowd: instance.crowd,
        identity: instance.identity,
    })
}

/// Where each run of a mask ends, so that a pixel is found without a picture of the whole.
fn ends(mask: &Rle) -> Vec<u32> {
    let ends = mask.counts().iter().scan(0, |end, count| {
        *end += count;
        Some(*end)
    });
    ends.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing() -> Instance {
        let mask = Rle::of_bitmap(10, 20, |y, x| (2..6).contains(&y) && (4..12).contains(&x));
        let at = |x: f64, y: f64, visibility| Keypoint { x, y, visibility };
        let keypoints = vec![at(4.5, 2.5, Visibility::Visible), at(19.0, 9.0, Visibility::Hidden), Keypoint::default()];
        Instance { class: 1, bbox: mask.bbox(), area: 32.0, mask: Some(mask), keypoints, crowd: false, identity: Some(3) }
    }

    #[test]
    fn a_picture_and_its_things_keep_their_shape() {
        // 20×10 in 40×40: twice as large, with 10 rows of black above and below.
        let fit = Fit::whole([10, 20], [40, 40]);
        let pixels = (0..3u8).flat_map(|channel| [100 + channel; 200]).collect();
        let picture = fit.picture(&Picture { height: 10, width: 20, pixels });
        assert_eq!((picture.height, picture.width, picture.pixels.len()), (40, 40, 4800));
        assert_eq!(
            (picture.pixel(9, 20), picture.pixel(10, 0), picture.pixel(29, 39)),
            ([0; 3], [100, 101, 102], [100, 101, 102])
        );
        assert_eq!(picture.pixel(30, 20), [0; 3]);
        let found = fit.instance(&thing()).unwrap();
        assert_eq!((found.bbox, found.area), ([8.0, 14.0, 16.0, 8.0], 128.0));
        let mask = found.mask.as_ref().unwrap();
        assert_eq!((mask.bbox(), mask.area()), (found.bbox, 128));
        assert_eq!((found.keypoints[0].x, found.keypoints[0].y), (9.0, 15.0));
        assert_eq!(found.keypoints[2], Keypoint::default());
        // And back.
        assert_eq!(fit.back(&found).unwrap(), thing());
    }

    #[test]
    fn of_a_part_there_is_what_is_in_it() {
        // Columns 8 to 15 and all rows, in a picture of half the height.
        let fit = Fit::part([8.0, -3.0, 8.0, 30.0], [10, 20], [5, 4]);
        let found = fit.instance(&thing()).unwrap();
        assert_eq!(found.bbox, [0.0, 1.0, 2.0, 2.0]);
        assert_eq!(found.mask.unwrap().bbox(), [0.0, 1.0, 2.0, 2.0]);
        assert!(found.keypoints.iter().all(|point| point.visibility == Visibility::Unknown), "they are outside");
        assert_eq!(Fit::part([13.0, 0.0, 7.0, 10.0], [10, 20], [5, 4]).instance(&thing()), None);
        // A box of nothing is a pixel.
        assert_eq!(Fit::part([99.0, 99.0, 0.0, 0.0], [10, 20], [5, 4]).part, [19, 9, 1, 1]);
    }
}
