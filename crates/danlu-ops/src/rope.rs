use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use crate::plain::indices;
use crate::precision::wide;

/// Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>) in the half-split form of `transformers`:
/// channel `i` of a head turns together with channel `i + head_dim / 2`. Cloning shares the tables.
#[derive(Clone, Debug)]
pub struct Rope {
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// The same on the device last asked for.
    there: Mutex<Option<(Device, [Tensor<2>; 2])>>,
}

impl Rope {
    /// Tables for positions `0..max_position` with angles `position / theta^(2i / head_dim)`.
    pub fn new(head_dim: usize, theta: f64, max_position: usize) -> Self {
        assert!(head_dim.is_multiple_of(2), "rope turns channels in pairs, but a head has {head_dim}");
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| theta.powf(-(i as f64) / half as f64)).collect();
        Self::from_frequencies(&frequencies, max_position)
    }

    /// Tables for given angular frequencies, one for each pair of channels: the way in for scaled variants.
    pub fn from_frequencies(frequencies: &[f64], max_position: usize) -> Self {
        let angles = (0..max_position).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { tables: Arc::new(Tables { half: frequencies.len(), cos, sin, there: Mutex::new(None) }) }
    }

    /// Positions the tables cover.
    pub fn max_position(&self) -> usize {
        self.tables.cos.len() / self.tables.half.max(1)
    }

    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        2 * self.tables.half
    }

    /// Cosines, `[max_position, head_dim / 2]`.
    pub fn cos(&self) -> &[f32] {
        &self.tables.cos
    }

    /// Sines, `[max_position, head_dim / 2]`.
    pub fn sin(&self) -> &[f32] {
        &self.tables.sin
    }

    pub(crate) fn check(&self, head_dim: usize, positions: usize) {
        assert_eq!(self.head_dim(), head_dim, "the rope tables are for heads of {} channels", self.head_dim());
        assert!(
            positions <= self.max_position(),
            "a segment of {positions} tokens is longer than the {} positions of the rope tables",
            self.max_position()
        );
    }

    /// Cosines and sines of the given positions as tensors `[positions, 1, head_dim / 2]`.
    fn gather(&self, positions: &[u32], device: &Device) -> [Tensor<3>; 2] {
        let (half, device) = (self.tables.half, device.clone().inner());
        let mut there = self.tables.there.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, tables) = there.take_if(|(where_, _)| *where_ == device).unwrap_or_else(|| {
            let shape = [self.max_position(), half];
            let tables = [self.cos(), self.sin()].map(|table| Tensor::from_data(TensorData::new(table.to_vec(), shape), &device));
            (device.clone(), tables)
        });
        let rows = indices(positions.iter().map(|&p| p as i32), &device);
        *there = Some((device, tables.clone()));
        tables.map(|table| table.select(0, rows.clone()).reshape([positions.len(), 1, half]))
    }

    /// Plain-tensor form: turns `x` `[tokens, heads, head_dim]` by each token's position.
    pub(crate) fn plain(&self, x: Tensor<3>, positions: &[u32]) -> Tensor<3> {
        let [cos, sin] = self.gather(positions, &x.device());
        let (half, narrow) = (self.tables.half, x.dtype());
        let x = wide(x);
        let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        Tensor::cat(vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin], 2).cast(narrow)
    }
}
