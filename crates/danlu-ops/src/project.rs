//! The CPU form of projections.

use std::sync::Arc;

use burn::backend::DispatchTensor;
use burn::backend::flex::{FlexTensor, Layout};
use burn_std::Shape;

use crate::before::Remake;
use crate::bridge::{Operation, owned, values, values_mut};
use crate::buffer::Buffer;
use crate::kernels::simd::row_dot;
use crate::kernels::{Isa, Mat, MatMut, gemm, gemm_few, gemv, simd};
use crate::linear::{Projection, Weight};
use crate::nf4::Nf4;
use crate::profile::{Part, time};
use crate::rows::{column_dots, column_sums, copy, for_each_piece, rows_per_piece};

/// Tokens under which weights are read row by row for one token after the other …
const FEW: usize = 8;
/// … and up to which they are read where they are, since packing them would take as long as the product.
const SOME: usize = 128;
/// Tokens from which adapters are added to the weights instead of to the outputs.
const MANY: usize = 256;

/// Inputs are `x` and whatever the outputs name by their places.
pub(crate) struct Project {
    pub(crate) inputs: usize,
    pub(crate) outputs: Vec<Output>,
    /// Makes `x` again, which then is not kept.
    pub(crate) remake: Option<Remake>,
}

/// One of the projections: its width, and which inputs of the operation are its tensors.
pub(crate) struct Output {
    width: usize,
    weight: Held,
    /// Whether the weight is a parameter as it is, to whose gradient that of the product is added in place.
    parameter: bool,
    bias: Option<usize>,
    adapter: Option<Adapter>,
}

enum Held {
    At(usize),
    Nf4(Arc<Nf4>),
}

struct Adapter {
    a: usize,
    b: usize,
    magnitude: Option<usize>,
    rank: usize,
    scale: f32,
}

/// The inputs, the first of which is empty when the backward pass needs no `x` or makes it again, and the outputs when DoRA needs them.
pub(crate) struct Saved {
    tensors: Vec<FlexTensor>,
    y: Option<FlexTensor>,
}

impl Output {
    pub(crate) fn new(part: &Projection, place: &mut impl FnMut(DispatchTensor) -> usize) -> Self {
        let [width, _] = part.weight.dims();
        let parameter = matches!(&part.weight, Weight::Float(weight) if weight.is_require_grad() && part.adapter.is_none());
        let weight = match &part.weight {
            Weight::Float(weight) => Held::At(place(weight.clone().into_dispatch())),
            Weight::Nf4(blocks) => Held::Nf4(blocks.clone()),
            Weight::Blocks(_) => unreachable!("projections in blocks are no operation with a gradient"),
        };
        let bias = part.bias.clone().map(|bias| place(bias.into_dispatch()));
        let adapter = part.adapter.as_ref().map(|adapter| Adapter {
            a: place(adapter.a.clone().into_dispatch()),
            b: place(adapter.b.clone().into_dispatch()),
            magnitude: adapter.magnitude.clone().map(|magnitude| place(magnitude.into_dispatch())),
            rank: adapter.a.dims()[0],
            scale: adapter.scale as f32,
        });
        Output { width, weight, parameter, bias, adapter }
    }

    fn magnitude(&self) -> Option<usize> {
        self.adapter.as_ref()?.magnitude
    }

    /// The weight as it lies in memory, unless something has to be done to it first.
    fn as_it_is<'a>(&self, tensors: &'a [FlexTensor], merged: bool) -> Option<&'a [f32]> {
        match &self.weight {
            Held::At(place) if !merged || self.adapter.is_none() => Some(values(&tensors[*place])),
            _ => None,
        }
    }

    /// Writes the weight, with the adapter merged into it when asked for; then also what DoRA multiplies each row by.
    fn write(&self, tensors: &[FlexTensor], merged: bool, to: &mut [f32]) -> Option<Vec<f32>> {
        match &self.weight {
            Held::At(place) => copy(to, values(&tensors[*place])),
            Held::Nf4(blocks) => blocks.dequantize(to),
        }
        let adapter = self.adapter.as_ref().filter(|_| merged)?;
        let inputs = to.len() / self.width;
        let b = adapter.scaled_b(tensors, None);
        gemm(
            MatMut::row_major(to, self.width, inputs),
            Mat::row_major(&b, self.width, adapter.rank),
            Mat::row_major(values(&tensors[adapter.a]), adapter.rank, inputs),
            true,
        );
        let magnitude = values(&tensors[adapter.magnitude?]);
        let mut factors = vec![0.0; self.width];
        let rows = rows_per_piece(self.width, inputs);
        for_each_piece([to, &mut factors], [rows * inputs, rows], |i, [to, factors]| {
            let magnitude = &magnitude[i * rows..];
            for ((row, factor), magnitude) in to.chunks_exact_mut(inputs).zip(factors).zip(magnitude) {
                *factor = magnitude / row_dot(Isa::current(), row, row).sqrt().max(f32::MIN_POSITIVE);
                simd::scale(Isa::current(), row, *factor);
            }
        });
        Some(factors)
    }
}

impl Adapter {
    /// B with the adapter's scale, and DoRA's factor of each row, on it.
    fn scaled_b(&self, tensors: &[FlexTensor], factors: Option<&[f32]>) -> Buffer {
        let mut b = Buffer::copy_of(values(&tensors[self.b]));
        for (i, row) in b.chunks_exact_mut(self.rank).enumerate() {
            let factor = self.scale * factors.map_or(1.0, |factors| factors[i]);
            row.iter_mut().for_each(|b| *b *= factor);
        }
        b
    }
}

/// All weights below each other: where they are, one for each output, or in one matrix that was made.
enum Weights<'a> {
    AsTheyAre(Vec<&'a [f32]>),
    Made(Buffer),
}

impl Weights<'_> {
    /// Each matrix, with the column of the outputs that its first row gives.
    fn parts(&self, inputs: usize) -> impl Iterator<Item = (usize, Mat<'_>)> {
        let all = match self {
            Self::AsTheyAre(weights) => weights.clone(),
            Self::Made(weights) => vec![&weights[..]],
        };
        all.into_iter().scan(0, move |next, weight| {
            let (start, rows) = (*next, weight.len() / inputs.max(1));
            *next += rows;
            Some((start, Mat::row_major(weight, rows, inputs)))
        })
    }
}

impl Project {
    fn width(&self) -> usize {
        self.outputs.iter().map(|output| output.width).sum()
    }

    /// The outputs, each with the column it begins at.
    fn columns(&self) -> impl Iterator<Item = (usize, &Output)> {
        self.outputs.iter().scan(0, |next, output| {
            let start = *next;
            *next += output.width;
            Some((start, output))
        })
    }

    /// All weights, and DoRA's factors for each output that has them. Copying weights that lie apart into one matrix would take as long as
    /// packing them does.
    fn weights<'a>(&self, tensors: &'a [FlexTensor], merged: bool) -> (Weights<'a>, Vec<Option<Vec<f32>>>) {
        let as_they_are: Option<Vec<&[f32]>> = self.outputs.iter().map(|output| output.as_it_is(tensors, merged)).collect();
        if let Some(weights) = as_they_are {
            return (Weights::AsTheyAre(weights), self.outputs.iter().map(|_| None).collect());
        }
        let mut all = Buffer::new(self.width() * self.inputs);
        let mut rest = &mut all[..];
        let mut factors = Vec::new();
        for output in &self.outputs {
            let part;
            (part, rest) = rest.split_at_mut(output.width * self.inputs);
            factors.push(output.write(tensors, merged, part));
        }
        (Weights::Made(all), factors)
    }

    /// `x Aᵀ` of all adapters side by side, `[tokens, Σ rank]`.
    fn narrow(&self, tensors: &[FlexTensor], x: &[f32], ranks: usize) -> Buffer {
        let tokens = x.len() / self.inputs;
        let mut u = Buffer::new(tokens * ranks);
        let all = self.all_a(tensors, ranks);
        gemm(
            MatMut::row_major(&mut u, tokens, ranks),
            Mat::row_major(x, tokens, self.inputs),
            Mat::row_major(&all, ranks, self.inputs).t(),
            false,
        );
        u
    }

    fn all_a(&self, tensors: &[FlexTensor], ranks: usize) -> Buffer {
        let mut all = Buffer::new(ranks * self.inputs);
        let mut rest = &mut all[..];
        for adapter in self.outputs.iter().filter_map(|output| output.adapter.as_ref()) {
            let part;
            (part, rest) = rest.split_at_mut(adapter.rank * self.inputs);
            part.copy_from_slice(values(&tensors[adapter.a]));
        }
        all
    }

    /// What making a matrix of all weights is counted as.
    fn making(&self) -> Part {
        let plain = |output: &Output| output.adapter.is_none() && matches!(output.weight, Held::At(_));
        if self.outputs.iter().all(plain) { Part::Gemm } else { Part::Adapter }
    }

    fn ranks(&self) -> usize {
        self.outputs.iter().filter_map(|output| output.adapter.as_ref()).map(|adapter| adapter.rank).sum()
    }

    /// Adds `scale (x Aᵀ) Bᵀ` to the outputs.
    fn add_adapters(&self, tensors: &[FlexTensor], y: &mut [f32], x: &[f32]) {
        let (width, ranks, tokens) = (self.width(), self.ranks(), x.len() / self.inputs);
        if ranks == 0 {
            return;
        }
        let u = self.narrow(tensors, x, ranks);
        let mut first = 0;
        for (start, output) in self.columns() {
            let Some(adapter) = &output.adapter else { continue };
            let b = adapter.scaled_b(tensors, None);
            gemm(
                MatMut::new(&mut y[start..], tokens, output.width, width),
                Mat::new(&u[first..], tokens, adapter.rank, ranks, 1),
                Mat::row_major(&b, output.width, adapter.rank).t(),
                true,
            );
            first += adapter.rank;
        }
    }

    /// The products of few tokens, as in decoding, whose time is that of reading the weights once: no weight is copied or packed.
    fn few(&self, tensors: &[FlexTensor], y: &mut [f32], x: &[f32], merged: bool) {
        let (width, tokens) = (self.width(), x.len() / self.inputs);
        let plain = |output: &Output| {
            let weight = output.as_it_is(tensors, merged).filter(|_| output.bias.is_none())?;
            Some(Mat::row_major(weight, output.width, self.inputs))
        };
        if tokens >= FEW
            && let Some(weights) = self.outputs.iter().map(plain).collect::<Option<Vec<Mat>>>()
        {
            gemm_few(MatMut::row_major(y, tokens, width), Mat::row_major(x, tokens, self.inputs), &weights);
            return;
        }
        for (start, output) in self.columns() {
            let mut made = Buffer::new(0);
            let weight = match output.as_it_is(tensors, merged) {
                Some(weight) => weight,
                None => {
                    made = Buffer::new(output.width * self.inputs);
                    output.write(tensors, merged, &mut made);
                    &made
                }
            };
            let rows = (Mat::row_major(x, tokens, self.inputs), Mat::row_major(weight, output.width, self.inputs));
            if tokens >= FEW && output.bias.is_none() {
                gemm_few(MatMut::new(&mut y[start..], tokens, output.width, width), rows.0, &[rows.1]);
                continue;
            }
            let mut part = Buffer::new(tokens * output.width);
            if tokens < FEW {
                gemv(&mut part, weight, x, tokens);
            } else {
                gemm_few(MatMut::row_major(&mut part, tokens, output.width), rows.0, &[rows.1]);
            }
            drop(made);
            for (y, part) in y.chunks_exact_mut(width).zip(part.chunks_exact(output.width)) {
                let y = &mut y[start..start + output.width];
                match output.bias {
                    Some(bias) => {
                        let bias = values(&tensors[bias]);
                        y.iter_mut().zip(part).zip(bias).for_each(|((y, part), bias)| *y = part + bias);
                    }
                    None => y.copy_from_slice(part),
                }
            }
        }
    }

    fn biases(&self, tensors: &[FlexTensor]) -> Option<Vec<f32>> {
        self.outputs.iter().any(|output| output.bias.is_some()).then(|| {
            let one = |output: &Output| match output.bias {
                Some(bias) => values(&tensors[bias]).to_vec(),
                None => vec![0.0; output.width],
            };
            self.outputs.iter().flat_map(one).collect()
        })
    }

    fn forward(&self, tensors: Vec<FlexTensor>, needed: &[bool]) -> (FlexTensor, Option<Saved>) {
        let width = self.width();
        let x = values(&tensors[0]);
        let tokens = x.len() / self.inputs;
        let mut y = Buffer::new(tokens * width);
        let merged = tokens >= MANY || self.outputs.iter().any(|output| output.magnitude().is_some());
        // A bias is added before the sums of deep products here and after them there, and results must not depend on how many tokens
        // are read together.
        let biased = self.outputs.iter().any(|output| output.bias.is_some());
        if tokens < FEW || tokens <= SOME && !biased {
            time(Part::Gemm, || self.few(&tensors, &mut y, x, merged));
        } else {
            let (weights, _) = time(self.making(), || self.weights(&tensors, merged));
            let biases = self.biases(&tensors);
            time(Part::Gemm, || {
                if let Some(biases) = &biases {
                    let rows = rows_per_piece(tokens, width);
                    for_each_piece([&mut y], [rows * width], |_, [y]| {
                        y.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(biases));
                    });
                }
                let x = Mat::row_major(x, tokens, self.inputs);
                for (start, weight) in weights.parts(self.inputs) {
                    let y = MatMut::new(&mut y[start..], tokens, weight.rows(), width);
                    gemm(y, x, weight.t(), biases.is_some());
                }
            });
        }
        if !merged {
            time(Part::Adapter, || self.add_adapters(&tensors, &mut y, x));
        }
        let y = y.into_tensor([tokens, width]);
        let saved = needed.contains(&true).then(|| self.save(tensors, &y, needed));
        (y, saved)
    }

    fn save(&self, mut tensors: Vec<FlexTensor>, y: &FlexTensor, needed: &[bool]) -> Saved {
        if self.remake.is_some() || !self.reads_input(needed) {
            tensors[0] = Buffer::new(0).into_tensor([0, self.inputs]);
        }
        let magnitudes = self.outputs.iter().any(|output| output.magnitude().is_some_and(|place| needed[place]));
        Saved { tensors, y: magnitudes.then(|| y.clone()) }
    }

    /// Whether the backward pass reads `x`: where a weight or an adapter is trained.
    fn reads_input(&self, needed: &[bool]) -> bool {
        self.outputs.iter().any(|output| {
            let adapter = output.adapter.as_ref().is_some_and(|adapter| needed[adapter.a] || needed[adapter.b]);
            adapter || matches!(output.weight, Held::At(place) if needed[place])
        })
    }

    fn backward(&self, found: Vec<Option<FlexTensor>>, saved: Saved, dy: FlexTensor, needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let Saved { mut tensors, y } = saved;
        let (width, inputs) = (self.width(), self.inputs);
        let dy = values(&dy);
        let tokens = dy.len() / width;
        if let Some(remake) = self.remake.as_ref().filter(|_| self.reads_input(needed)) {
            tensors[0] = remake().into_tensor([tokens, inputs]);
        }
        let mut gradients = vec![None; needed.len()];
        let biased = self.outputs.iter().any(|output| output.bias.is_some_and(|place| needed[place]));
        if biased {
            let mut sums = Buffer::new(width);
            time(Part::Activation, || column_sums(&mut sums, dy));
            let sums = sums.into_tensor([width]);
            for (start, output) in self.columns() {
                if let Some(place) = output.bias {
                    gradients[place] = Some(sums.narrow(0, start, output.width));
                }
            }
        }
        let mut factors: Vec<Option<Vec<f32>>> = self.outputs.iter().map(|_| None).collect();
        let lengths = self.outputs.iter().any(|output| output.magnitude().is_some());
        if needed[0] || lengths {
            let weights;
            (weights, factors) = time(self.making(), || self.weights(&tensors, true));
            if needed[0] {
                time(Part::Gemm, || {
                    let mut dx = Buffer::new(tokens * inputs);
                    for (start, weight) in weights.parts(inputs) {
                        let dy = Mat::new(&dy[start.min(dy.len())..], tokens, weight.rows(), width, 1);
                        gemm(MatMut::row_major(&mut dx, tokens, inputs), dy, weight, start > 0);
                    }
                    gradients[0] = Some(dx.into_tensor([tokens, inputs]));
                });
            }
        }
        time(Part::Gemm, || self.weight_gradients(&tensors, dy, &factors, needed, found, &mut gradients));
        time(Part::Adapter, || self.adapter_gradients(&tensors, dy, &factors, needed, &mut gradients));
        if let Some(y) = &y {
            time(Part::Adapter, || self.magnitude_gradients(&tensors, values(y), dy, needed, &mut gradients));
        }
        gradients
    }

    /// Added to those in `found`, which the weights have from elsewhere.
    fn weight_gradients(
        &self,
        tensors: &[FlexTensor],
        dy: &[f32],
        factors: &[Option<Vec<f32>>],
        needed: &[bool],
        mut found: Vec<Option<FlexTensor>>,
        gradients: &mut [Option<FlexTensor>],
    ) {
        let (width, inputs) = (self.width(), self.inputs);
        let tokens = dy.len() / width;
        let place = |output: &Output| match output.weight {
            Held::At(place) if needed[place] => Some(place),
            _ => None,
        };
        let x = Mat::row_major(values(&tensors[0]), values(&tensors[0]).len() / inputs, inputs);
        // The gradients of all in one product, where those there are lie below each other too, as this leaves them.
        if let Some(places) = self.outputs.iter().map(place).collect::<Option<Vec<usize>>>() {
            let fresh = places.iter().all(|&place| found[place].is_none());
            let earlier = below_each_other(&places, &mut found, [width, inputs]);
            if fresh || earlier.is_some() {
                let mut dw = earlier.map_or_else(|| Buffer::new(width * inputs).into_tensor([width, inputs]), owned);
                let to = values_mut(&mut dw);
                gemm(MatMut::row_major(to, width, inputs), Mat::row_major(dy, tokens, width).t(), x, !fresh);
                for ((start, output), factors) in self.columns().zip(factors) {
                    scale_rows(&mut to[start * inputs..][..output.width * inputs], factors.as_deref());
                }
                for ((start, output), place) in self.columns().zip(places) {
                    gradients[place] = Some(dw.narrow(0, start, output.width));
                }
                return;
            }
        }
        for ((start, output), factors) in self.columns().zip(factors) {
            let Some(place) = place(output) else { continue };
            let shape = [output.width, inputs];
            let earlier = found[place].take();
            let fresh = earlier.is_none();
            let mut dw = earlier.map_or_else(|| Buffer::new(output.width * inputs).into_tensor(shape), owned);
            let to = values_mut(&mut dw);
            let dy = Mat::new(&dy[start..], tokens, output.width, width, 1);
            gemm(MatMut::row_major(to, output.width, inputs), dy.t(), x, !fresh);
            scale_rows(to, factors.as_deref());
            gradients[place] = Some(dw);
        }
    }

    fn adapter_gradients(
        &self,
        tensors: &[FlexTensor],
        dy: &[f32],
        factors: &[Option<Vec<f32>>],
        needed: &[bool],
        gradients: &mut [Option<FlexTensor>],
    ) {
        let trained = |adapter: &&Adapter| needed[adapter.a] || needed[adapter.b];
        if !self.outputs.iter().filter_map(|output| output.adapter.as_ref()).any(|adapter| trained(&adapter)) {
            return;
        }
        let (width, inputs, ranks) = (self.width(), self.inputs, self.ranks());
        let x = values(&tensors[0]);
        let tokens = dy.len() / width;
        let u = self.narrow(tensors, x, ranks);
        let mut du = Buffer::new(tokens * ranks);
        let mut first = 0;
        for ((start, output), factors) in self.columns().zip(factors) {
            let Some(adapter) = &output.adapter else { continue };
            let rank = adapter.rank;
            let dy = Mat::new(&dy[start..], tokens, output.width, width, 1);
            let b = adapter.scaled_b(tensors, factors.as_deref());
            gemm(MatMut::new(&mut du[first..], tokens, rank, ranks), dy, Mat::row_major(&b, output.width, rank), false);
            if needed[adapter.b] {
                // Its transpose is the product that keeps the kernel's tiles full.
                let mut transposed = Buffer::new(rank * output.width);
                let u = Mat::new(&u[first..], tokens, rank, ranks, 1);
                gemm(MatMut::row_major(&mut transposed, rank, output.width), u.t(), dy, false);
                let mut db = Buffer::new(output.width * rank);
                for (i, row) in db.chunks_exact_mut(rank).enumerate() {
                    let factor = adapter.scale * factors.as_ref().map_or(1.0, |factors| factors[i]);
                    row.iter_mut().enumerate().for_each(|(j, db)| *db = factor * transposed[j * output.width + i]);
                }
                gradients[adapter.b] = Some(db.into_tensor([output.width, rank]));
            }
            first += rank;
        }
        let mut da = Buffer::new(ranks * inputs);
        gemm(
            MatMut::row_major(&mut da, ranks, inputs),
            Mat::row_major(&du, tokens, ranks).t(),
            Mat::row_major(x, tokens, inputs),
            false,
        );
        let da = da.into_tensor([ranks, inputs]);
        let mut first = 0;
        for adapter in self.outputs.iter().filter_map(|output| output.adapter.as_ref()) {
            gradients[adapter.a] = Some(da.narrow(0, first, adapter.rank));
            first += adapter.rank;
        }
    }

    /// An output is its magnitude times something that does not depend on it, so the gradient is `Σ dy · y / magnitude`.
    fn magnitude_gradients(
        &self,
        tensors: &[FlexTensor],
        y: &[f32],
        dy: &[f32],
        needed: &[bool],
        gradients: &mut [Option<FlexTensor>],
    ) {
        let width = self.width();
        let mut dots = vec![0.0; width];
        column_dots(&mut dots, dy, y);
        let mut sums = vec![0.0; width];
        column_sums(&mut sums, dy);
        for (start, output) in self.columns() {
            let Some(place) = output.magnitude().filter(|&place| needed[place]) else { continue };
            let bias = output.bias.map(|place| values(&tensors[place]));
            let mut gradient = Buffer::new(output.width);
            for (i, (gradient, &magnitude)) in gradient.iter_mut().zip(values(&tensors[place])).enumerate() {
                let without_bias = dots[start + i] - bias.map_or(0.0, |bias| bias[i] * sums[start + i]);
                *gradient = if magnitude == 0.0 { 0.0 } else { without_bias / magnitude };
            }
            gradients[place] = Some(gradient.into_tensor([output.width]));
        }
    }
}

/// The tensor of which those at `places` are the rows, from the first to the last, taken out of `found`; none when they are something else.
fn below_each_other(places: &[usize], found: &mut [Option<FlexTensor>], shape: [usize; 2]) -> Option<FlexTensor> {
    let first = found[*places.first()?].as_ref()?.bytes();
    let (memory, bytes) = (first.as_ptr(), first.len());
    let mut next = 0;
    for &place in places {
        let part = found[place].as_ref()?;
        if part.bytes().as_ptr() != memory || part.layout().start_offset() != next || !part.is_contiguous() {
            return None;
        }
        next += part.layout().num_elements();
    }
    if next != shape[0] * shape[1] || next * size_of::<f32>() != bytes {
        return None;
    }
    // The others let go of the memory, so that it may be written where it is.
    let parts: Vec<FlexTensor> = places.iter().filter_map(|&place| found[place].take()).collect();
    parts.into_iter().next().map(|part| part.with_layout(Layout::contiguous(Shape::new(shape))))
}

fn scale_rows(matrix: &mut [f32], factors: Option<&[f32]>) {
    let Some(factors) = factors else { return };
    let columns = matrix.len() / factors.len();
    for (row, factor) in matrix.chunks_exact_mut(columns).zip(factors) {
        simd::scale(Isa::current(), row, *factor);
    }
}

impl<const N: usize> Operation<N> for Project {
    type Saved = Saved;

    fn forward(&self, inputs: [FlexTensor; N], needed: [bool; N]) -> (FlexTensor, Option<Saved>) {
        self.forward(inputs.into(), &needed)
    }

    fn backward(&self, saved: Saved, dy: FlexTensor, needed: [bool; N]) -> [Option<FlexTensor>; N] {
        self.add_backward(std::array::from_fn(|_| None), saved, dy, needed)
    }

    fn adds(&self) -> [bool; N] {
        let mut adds = [false; N];
        for output in self.outputs.iter().filter(|output| output.parameter) {
            if let Held::At(place) = output.weight {
                adds[place] = true;
            }
        }
        adds
    }

    fn add_backward(
        &self,
        found: [Option<FlexTensor>; N],
        saved: Saved,
        dy: FlexTensor,
        needed: [bool; N],
    ) -> [Option<FlexTensor>; N] {
        let mut gradients = self.backward(found.into(), saved, dy, &needed).into_iter();
        std::array::from_fn(|i| gradients.next().flatten().filter(|_| needed[i]))
    }
}
