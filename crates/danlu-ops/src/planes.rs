/// What a row of `[images, channels × height × width]` is: an image of `channels` planes, one after the other, each `height` rows of
/// `width` values. Flattening for a linear layer is no work, and the order is that of `torch`'s `flatten`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Planes {
    /// Values of one plane.
    pub fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Values of one image.
    pub fn len(&self) -> usize {
        self.channels * self.plane()
    }

    /// Whether an image has no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn check(&self, width: usize) {
        assert!(!self.is_empty(), "an image of {self:?} has no values");
        assert_eq!(width, self.len(), "rows have {width} values; {self:?} has {}", self.len());
    }
}
