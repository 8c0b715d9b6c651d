use super::draw::Draw;

/// The light that falls on a thing: its brightness, its colour and how far it drowns differences.
#[derive(Clone, Copy)]
pub(super) struct Light {
    gain: [f32; 3],
    contrast: f32,
}

impl Light {
    pub fn drawn(draw: &mut Draw) -> Self {
        let brightness = draw.scale(0.6, 1.3);
        let gain = std::array::from_fn(|_| (brightness * draw.between(0.9, 1.1)) as f32);
        Self { gain, contrast: draw.between(0.7, 1.2) as f32 }
    }

    /// Colours times opacity under this light; the opacity stays.
    pub fn on(&self, [red, green, blue, alpha]: [f32; 4]) -> [f32; 4] {
        let grey = alpha / 2.0;
        let mut lit = [red, green, blue, alpha];
        for (value, gain) in lit.iter_mut().zip(self.gain) {
            *value = (gain * (grey + self.contrast * (*value - grey))).clamp(0.0, alpha);
        }
        lit
    }
}
