//! Scenes: things on a background, with what is known of them.

use anyhow::{Result, ensure};

use super::draw::{Draw, For};
use super::light::Light;
use super::stamps::{OPAQUE, Stamp, Stamps};
use super::{Instance, Keypoint, Picture, Rle, Visibility, background};

/// What scenes are like.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub height: usize,
    pub width: usize,
    /// The fewest and the most things that are put into one; fewer lie in it where there is no place.
    pub things: (usize, usize),
    /// The longer side of a thing at least and at most, as a share of the picture's shorter side.
    pub size: (f64, f64),
    /// Degrees that a thing is turned by at most, to either side.
    pub rotation: f64,
    /// The share of a thing that others and the picture's edge leave to be seen.
    pub least_visible: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { height: 128, width: 128, things: (1, 6), size: (0.2, 0.6), rotation: 30.0, least_visible: 0.4 }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let side = 16..=2048;
        ensure!(
            side.contains(&self.height) && side.contains(&self.width),
            "a scene of {}×{} cannot be made; a side has 16 to 2048 pixels",
            self.height,
            self.width
        );
        let (fewest, most) = self.things;
        ensure!(fewest <= most && (1..=1000).contains(&most), "{fewest} to {most} things in a scene: give 1 to 1000 at most");
        let (low, high) = self.size;
        ensure!(
            low > 0.0 && low <= high && high <= 1.5,
            "sizes of {low} to {high} times the picture: give 0 to 1.5, the smaller first"
        );
        ensure!((0.0..=180.0).contains(&self.rotation), "things cannot be turned by {} degrees; give 0 to 180", self.rotation);
        ensure!((0.0..=1.0).contains(&self.least_visible), "a share of {} cannot be seen of a thing", self.least_visible);
        Ok(())
    }
}

/// Which scenes: no index gives the same scene on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Train,
    HeldOut,
}

/// All scenes that can be made of some stamps. Any of them is made from the seed, its side and its index alone, on any thread.
pub struct Scenes {
    pub(super) stamps: Stamps,
    pub(super) options: Options,
    pub(super) seed: u64,
}

/// A picture with what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    pub picture: Picture,
    /// From the one that lies lowest.
    pub instances: Vec<Instance>,
}

/// Places that are tried for a thing.
const TRIES: usize = 8;
/// Pixels of a thing that are seen at least.
const LEAST_PIXELS: usize = 24;

impl Scenes {
    /// # Errors
    /// When there is no stamp, or a scene cannot be as the options say.
    pub fn new(stamps: Stamps, options: Options, seed: u64) -> Result<Self> {
        options.check()?;
        ensure!(!stamps.is_empty(), "there is no stamp to make scenes of");
        Ok(Self { stamps, options, seed })
    }

    pub fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    pub fn scene(&self, side: Side, index: u64) -> Scene {
        let purpose = match side {
            Side::Train => For::Train,
            Side::HeldOut => For::HeldOut,
        };
        let draw = &mut Draw::new(self.seed, purpose, index);
        let Options { height, width, things: (fewest, most), .. } = self.options;
        let mut canvas = Canvas::new(height, width, background::paint(&self.stamps, height, width, draw));
        for _ in 0..fewest + draw.below(most - fewest + 1) {
            for _ in 0..TRIES {
                let stamp = self.stamps.get(draw.below(self.stamps.len()));
                let center = [draw.between(0.0, width as f64), draw.between(0.0, height as f64)];
                let placed = Placed::new(stamp, self.pose(stamp, center, self.options.size, draw), Light::drawn(draw));
                if canvas.put(&placed, self.options.least_visible) {
                    break;
                }
            }
        }
        canvas.finish()
    }

    /// A stamp's size and turn, at a place.
    pub(super) fn pose(&self, stamp: &Stamp, center: [f64; 2], (low, high): (f64, f64), draw: &mut Draw) -> Pose {
        let side = self.options.height.min(self.options.width) as f64 * draw.scale(low, high);
        let longer = stamp.pixels.height().max(stamp.pixels.width()) as f64;
        let turn = draw.between(-self.options.rotation, self.options.rotation).to_radians();
        Pose { center, scale: side / longer, sin: turn.sin(), cos: turn.cos() }
    }
}

/// Where a stamp lies: its middle, how much larger it is than its pixels, and how far it is turned.
#[derive(Clone, Copy)]
pub(super) struct Pose {
    center: [f64; 2],
    scale: f64,
    sin: f64,
    cos: f64,
}

impl Pose {
    /// Where in the picture a place of the stamp is.
    fn to_picture(self, stamp: &Stamp, [x, y]: [f64; 2]) -> [f64; 2] {
        let (x, y) = (x - stamp.pixels.width() as f64 / 2.0, y - stamp.pixels.height() as f64 / 2.0);
        let turned = [self.cos * x - self.sin * y, self.sin * x + self.cos * y];
        std::array::from_fn(|axis| self.center[axis] + self.scale * turned[axis])
    }

    fn to_stamp(self, stamp: &Stamp, [x, y]: [f64; 2]) -> [f64; 2] {
        let (x, y) = ((x - self.center[0]) / self.scale, (y - self.center[1]) / self.scale);
        let (width, height) = (stamp.pixels.width() as f64, stamp.pixels.height() as f64);
        [self.cos * x + self.sin * y + width / 2.0, self.cos * y - self.sin * x + height / 2.0]
    }
}

/// A stamp as it lies, with its pixels beyond the picture's edge too.
pub(super) struct Placed<'a> {
    stamp: &'a Stamp,
    pose: Pose,
    left: i64,
    top: i64,
    width: usize,
    /// Row after row from its corner, colours times opacity, of 255.
    rgba: Vec<[f32; 4]>,
}

impl<'a> Placed<'a> {
    pub fn new(stamp: &'a Stamp, pose: Pose, light: Light) -> Self {
        let (half_width, half_height) = (stamp.pixels.width() as f64 / 2.0, stamp.pixels.height() as f64 / 2.0);
        let reach_x = pose.scale * (pose.cos.abs() * half_width + pose.sin.abs() * half_height);
        let reach_y = pose.scale * (pose.sin.abs() * half_width + pose.cos.abs() * half_height);
        let [x, y] = pose.center;
        let (left, right) = ((x - reach_x).floor() as i64 - 1, (x + reach_x).ceil() as i64 + 1);
        let (top, bottom) = ((y - reach_y).floor() as i64 - 1, (y + reach_y).ceil() as i64 + 1);
        let level = stamp.pixels.level(pose.scale);
        let rows = (top..bottom).flat_map(|y| (left..right).map(move |x| [x as f64 + 0.5, y as f64 + 0.5]));
        let rgba = rows.map(|place| {
            let [x, y] = pose.to_stamp(stamp, place);
            light.on(stamp.pixels.at(level, x, y))
        });
        let rgba = rgba.collect();
        Self { stamp, pose, left, top, width: (right - left) as usize, rgba }
    }

    /// Each pixel with its row and column in the picture, which may be outside.
    fn pixels(&self) -> impl Iterator<Item = (i64, i64, [f32; 4])> {
        let at = move |place: usize| (self.top + (place / self.width) as i64, self.left + (place % self.width) as i64);
        self.rgba.iter().enumerate().map(move |(place, rgba)| (at(place).0, at(place).1, *rgba))
    }
}

fn is_opaque(rgba: [f32; 4]) -> bool {
    rgba[3] >= f32::from(OPAQUE)
}

/// A picture that is being put together.
pub(super) struct Canvas<'a> {
    height: usize,
    width: usize,
    colors: Vec<[f32; 3]>,
    /// Of each pixel the place among `things` of what is seen there, from 1.
    on_top: Vec<u16>,
    things: Vec<Thing<'a>>,
}

/// A thing's pixels, those in the picture, and of each thing that lies there already those that it would hide.
pub(super) struct Cover {
    whole: usize,
    seen: usize,
    below: Vec<usize>,
}

struct Thing<'a> {
    stamp: &'a Stamp,
    pose: Pose,
    /// Its pixels, and those that are seen.
    whole: usize,
    seen: usize,
}

impl<'a> Canvas<'a> {
    pub fn new(height: usize, width: usize, colors: Vec<[f32; 3]>) -> Self {
        Self { height, width, colors, on_top: vec![0; height * width], things: vec![] }
    }

    /// Where in the picture a row and column are.
    fn place(&self, y: i64, x: i64) -> Option<usize> {
        let (y, x) = (usize::try_from(y).ok()?, usize::try_from(x).ok()?);
        (y < self.height && x < self.width).then(|| y * self.width + x)
    }

    /// Puts a thing on top, unless it or one below it would then be seen too little; whether it did.
    pub fn put(&mut self, placed: &Placed<'a>, least_visible: f64) -> bool {
        let cover = self.cover(placed);
        let enough = |seen: usize, whole: usize| seen >= LEAST_PIXELS && seen as f64 >= least_visible * whole as f64;
        let mut below = self.things.iter().zip(&cover.below);
        let fits = enough(cover.seen, cover.whole) && below.all(|(thing, gone)| enough(thing.seen - gone, thing.whole));
        if fits {
            self.lay(placed, cover);
        }
        fits
    }

    /// What a thing would cover.
    pub fn cover(&self, placed: &Placed) -> Cover {
        let mut cover = Cover { whole: 0, seen: 0, below: vec![0; self.things.len()] };
        for (y, x, _) in placed.pixels().filter(|(.., rgba)| is_opaque(*rgba)) {
            cover.whole += 1;
            if let Some(place) = self.place(y, x) {
                cover.seen += 1;
                if let Some(below) = usize::from(self.on_top[place]).checked_sub(1) {
                    cover.below[below] += 1;
                }
            }
        }
        cover
    }

    pub fn lay(&mut self, placed: &Placed<'a>, cover: Cover) {
        self.things.iter_mut().zip(cover.below).for_each(|(thing, gone)| thing.seen -= gone);
        self.things.push(Thing { stamp: placed.stamp, pose: placed.pose, whole: cover.whole, seen: cover.seen });
        let number = self.things.len() as u16;
        for (y, x, rgba) in placed.pixels() {
            let Some(place) = self.place(y, x) else { continue };
            let below = 1.0 - rgba[3] / 255.0;
            self.colors[place].iter_mut().zip(rgba).for_each(|(color, value)| *color = value + below * *color);
            if is_opaque(rgba) {
                self.on_top[place] = number;
            }
        }
    }

    pub fn finish(self) -> Scene {
        let (height, width) = (self.height as u32, self.width as u32);
        let instance = |(number, thing): (u16, &Thing)| {
            let mask = Rle::of_bitmap(height, width, |y, x| self.on_top[y as usize * self.width + x as usize] == number);
            Instance {
                class: thing.stamp.class,
                bbox: mask.bbox(),
                area: f64::from(mask.area()),
                mask: Some(mask),
                keypoints: thing.stamp.points.iter().map(|point| self.keypoint(thing, number, *point)).collect(),
                crowd: false,
                identity: Some(thing.stamp.identity),
            }
        };
        let instances = (1..).zip(&self.things).map(instance).collect();
        let planes = (0..3).flat_map(|c| self.colors.iter().map(move |color| color[c].round().clamp(0.0, 255.0) as u8));
        let picture = Picture { height: self.height, width: self.width, pixels: planes.collect() };
        Scene { picture, instances }
    }

    /// A point is seen where its thing is on top within a pixel: it lies on the thing's edge, and half of the pixels there are not its.
    fn keypoint(&self, thing: &Thing, number: u16, point: [f64; 2]) -> Keypoint {
        let [x, y] = thing.pose.to_picture(thing.stamp, point);
        let (row, column) = (y.floor() as i64, x.floor() as i64);
        if self.place(row, column).is_none() {
            return Keypoint::default();
        }
        let mut near = (-1..=1).flat_map(|down| (-1..=1).map(move |right| (row + down, column + right)));
        let seen = near.any(|(y, x)| self.place(y, x).is_some_and(|place| self.on_top[place] == number));
        Keypoint { x, y, visibility: if seen { Visibility::Visible } else { Visibility::Hidden } }
    }
}
