//! The same thing twice, or two things: what verification is learned from and measured on.

use super::compose::{Canvas, Placed, Scenes};
use super::draw::{Draw, For};
use super::light::Light;
use super::{Picture, background};

/// A thing alone in a picture, which it nearly fills.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub picture: Picture,
    pub identity: u32,
}

/// Two views, of which one asks whether they show the same thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub first: View,
    pub second: View,
}

impl Pair {
    pub fn is_same(&self) -> bool {
        self.first.identity == self.second.identity
    }
}

/// The longer side of a thing in a view, as a share of the picture's shorter side.
const SIZE: (f64, f64) = (0.55, 0.9);

impl Scenes {
    /// A stamp seen once more: at another place, in another size, turned and lit otherwise, on another background. Each index is another view.
    ///
    /// # Panics
    /// When there is no such stamp.
    pub fn view(&self, stamp: usize, index: u64) -> View {
        let stamp = self.stamps.get(stamp);
        let seed = crate::sampler::mix(self.seed, u64::from(stamp.identity), 1);
        let draw = &mut Draw::new(seed, For::View, index);
        let (height, width) = (self.options.height, self.options.width);
        let mut canvas = Canvas::new(height, width, background::paint(&self.stamps, height, width, draw));
        let [y, x] = [height, width].map(|side| side as f64 * draw.between(0.42, 0.58));
        let placed = Placed::new(stamp, self.pose(stamp, [x, y], SIZE, draw), Light::drawn(draw));
        let cover = canvas.cover(&placed);
        canvas.lay(&placed, cover);
        View { picture: canvas.finish().picture, identity: stamp.identity }
    }

    /// Half of all pairs show one thing twice, the others two, of which half are of one class where it has two.
    pub fn pair(&self, index: u64) -> Pair {
        let draw = &mut Draw::new(self.seed, For::Pair, index);
        let first = draw.below(self.stamps.len());
        let second = if draw.below(2) == 0 { first } else { self.other(first, draw) };
        let (a, b) = (draw.bits(), draw.bits());
        Pair { first: self.view(first, a), second: self.view(second, b) }
    }

    /// Another stamp than this one; itself where there is no other.
    fn other(&self, than: usize, draw: &mut Draw) -> usize {
        let of_class = draw.below(2) == 0;
        let class = self.stamps.get(than).class;
        let others =
            |alike: bool| (0..self.stamps.len()).filter(move |&i| i != than && (!alike || self.stamps.get(i).class == class));
        let alike = of_class && others(true).next().is_some();
        let count = others(alike).count();
        let place = draw.below(count);
        others(alike).nth(place).unwrap_or(than)
    }
}
