//! Skip-gram and CBOW with negative sampling (Mikolov et al. 2013, <https://arxiv.org/abs/1310.4546>): the loss, and its own gradient
//! descent, which touches the rows of a window and no others.
//!
//! As in pWord2Vec (Ji et al. 2016, <https://arxiv.org/abs/1604.04661>) the words of a window share the words that are drawn beside its
//! centre, and a window's rows move once, by the gradient of its whole loss: the original moves them after every pair of words, and draws
//! anew for each. So a window is a few small products of matrices instead of many of vectors.

use std::ops::Range;

use burn::tensor::activation::log_sigmoid;
use burn::tensor::{IndexingUpdateOp, Tensor};

use crate::bridge::{on_cpu, owned, primitive, tensor, values, values_mut};
use crate::kernels::negatives::{self, SLICES, slice_len};
use crate::plain::indices;
use crate::profile::{Part, time};

/// From what a word is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// From each of the words around it.
    SkipGram,
    /// From the mean of the words around it.
    Cbow,
}

/// Windows of words: what stands around, and the words to tell apart, of which the first is the one that stands in the middle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    contexts: Vec<u32>,
    context_ends: Vec<u32>,
    outputs: Vec<u32>,
    output_ends: Vec<u32>,
    widest: [usize; 2],
}

impl Windows {
    /// Adds a window: the words before and after its middle, and the word in the middle with those that are not. One without words around
    /// it or in it has no loss.
    pub fn push(&mut self, around: [&[u32]; 2], outputs: impl IntoIterator<Item = u32>) {
        around.into_iter().for_each(|words| self.contexts.extend_from_slice(words));
        self.context_ends.push(self.contexts.len() as u32);
        self.outputs.extend(outputs);
        self.output_ends.push(self.outputs.len() as u32);
        let last = self.len() - 1;
        let now = [self.contexts(last).len(), self.outputs(last).len()];
        self.widest = [0, 1].map(|i| self.widest[i].max(now[i]));
    }

    /// Adds the windows of another list.
    pub fn append(&mut self, other: &Windows) {
        let [contexts, outputs] = [self.contexts.len() as u32, self.outputs.len() as u32];
        self.contexts.extend_from_slice(&other.contexts);
        self.context_ends.extend(other.context_ends.iter().map(|end| contexts + end));
        self.outputs.extend_from_slice(&other.outputs);
        self.output_ends.extend(other.output_ends.iter().map(|end| outputs + end));
        self.widest = [0, 1].map(|i| self.widest[i].max(other.widest[i]));
    }

    pub fn len(&self) -> usize {
        self.context_ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The words around the middle of a window.
    pub fn contexts(&self, window: usize) -> &[u32] {
        &self.contexts[range(&self.context_ends, window)]
    }

    /// The word in the middle, then those that are not.
    pub fn outputs(&self, window: usize) -> &[u32] {
        &self.outputs[range(&self.output_ends, window)]
    }

    /// How often the word in the middle is predicted, which is what a mean loss is the mean over.
    pub fn predictions(&self, form: Form) -> usize {
        match form {
            Form::SkipGram => self.contexts.len(),
            Form::Cbow => self.len(),
        }
    }

    /// [`Windows::predictions`] of one window.
    pub fn predictions_of(&self, form: Form, window: usize) -> usize {
        match form {
            Form::SkipGram => self.contexts(window).len(),
            Form::Cbow => 1,
        }
    }

    /// The most contexts and the most outputs of a window.
    pub(crate) fn widest(&self) -> [usize; 2] {
        self.widest
    }

    fn one(&self, window: usize) -> Self {
        let mut one = Self::default();
        one.push([self.contexts(window), &[]], self.outputs(window).iter().copied());
        one
    }

    fn check(&self, tables: [&Tensor<2>; 2]) {
        let [[inputs, width], [outputs, other]] = tables.map(Tensor::dims);
        assert_eq!(width, other, "both tables have rows of one length");
        let below = |words: &[u32], rows: usize| words.iter().all(|&word| (word as usize) < rows);
        assert!(below(&self.contexts, inputs) && below(&self.outputs, outputs), "a word of a window is outside the tables");
    }
}

fn range(ends: &[u32], window: usize) -> Range<usize> {
    let begin = if window == 0 { 0 } else { ends[window - 1] as usize };
    begin..ends[window] as usize
}

/// The loss of windows, summed over all: for each prediction `−ln σ(x·y)` of the word that stands there and `−ln σ(−x·y)` of each that does
/// not, with x of the table `input` and y of `output`, both `[words, channels]`. `[1]`, differentiable on any device; the gradient has the
/// size of the tables, which is why training takes [`negative_sampling_step`].
///
/// # Panics
/// When a word is not a row of the tables.
pub fn negative_sampling(input: Tensor<2>, output: Tensor<2>, windows: &Windows, form: Form) -> Tensor<1> {
    windows.check([&input, &output]);
    let device = input.device();
    let width = input.dims()[1];
    let list = |words: Vec<u32>| indices(words.into_iter().map(|word| word as i32), &device);
    // The rows that predict, and of each pair which of them it is, which word, and whether that word stands there.
    let rows = match form {
        Form::SkipGram => input.select(0, list(windows.contexts.clone())),
        Form::Cbow => {
            let shares = (0..windows.len()).flat_map(|w| vec![1.0 / windows.contexts(w).len() as f32; windows.contexts(w).len()]);
            let shares: Vec<f32> = shares.collect();
            let shares = Tensor::<1>::from_floats(&shares[..], &device).unsqueeze_dim::<2>(1);
            let of = (0..windows.len()).flat_map(|w| vec![w as u32; windows.contexts(w).len()]).collect();
            let summed = Tensor::<2>::zeros([windows.len(), width], &device);
            summed.select_assign(0, list(of), input.select(0, list(windows.contexts.clone())) * shares, IndexingUpdateOp::Add)
        }
    };
    let (mut left, mut right, mut signs) = (vec![], vec![], vec![]);
    let mut row = 0;
    for window in 0..windows.len() {
        for _ in 0..windows.predictions_of(form, window) {
            for (i, &word) in windows.outputs(window).iter().enumerate() {
                left.push(row);
                right.push(word);
                signs.push(if i == 0 { 1.0f32 } else { -1.0 });
            }
            row += 1;
        }
    }
    let products = (rows.select(0, list(left)) * output.select(0, list(right))).sum_dim(1).flatten::<1>(0, 1);
    -log_sigmoid(products * Tensor::<1>::from_floats(&signs[..], &device)).sum()
}

/// Each window's part of [`negative_sampling`], without a gradient.
///
/// # Panics
/// When a word is not a row of the tables.
pub fn negative_sampling_losses(input: Tensor<2>, output: Tensor<2>, windows: &Windows, form: Form) -> Vec<f32> {
    windows.check([&input, &output]);
    let (input, output) = (input.inner(), output.inner());
    if !(on_cpu(&input) && on_cpu(&output)) {
        let one = |w| negative_sampling(input.clone(), output.clone(), &windows.one(w), form).into_scalar::<f32>();
        return (0..windows.len()).map(one).collect();
    }
    let width = input.dims()[1];
    let (input, output) = (primitive(input), primitive(output));
    negatives::losses([values(&input), values(&output)], width, windows, form)
}

/// What [`negative_sampling_step`] did.
#[derive(Debug)]
pub struct Moved {
    /// The tables, without autodiff.
    pub input: Tensor<2>,
    pub output: Tensor<2>,
    /// The sum of the windows' losses, each on the rows as they were when its turn came.
    pub loss: f64,
    /// For each table the sum of the squares of what its rows were moved by.
    pub squares: [f64; 2],
}

/// Gradient descent at `rate` on the windows of a batch, each window a step of its own on its own loss. Windows are taken in slices of up to
/// 16, and eight slices at a time start from the same tables and add up their moves. On the CPU the tables change in place when nothing else holds
/// them, so pass them by value and keep no clone.
///
/// # Panics
/// When a word is not a row of the tables.
pub fn negative_sampling_step(input: Tensor<2>, output: Tensor<2>, windows: &Windows, form: Form, rate: f64) -> Moved {
    windows.check([&input, &output]);
    let (input, output) = (input.inner(), output.inner());
    if !(on_cpu(&input) && on_cpu(&output)) {
        return plain_step([input, output], windows, form, rate);
    }
    let width = input.dims()[1];
    let (mut input, mut output) = (owned(primitive(input)), owned(primitive(output)));
    let tables = [values_mut(&mut input), values_mut(&mut output)];
    let done = time(Part::Optimizer, || negatives::step(tables, width, windows, form, rate as f32));
    Moved { input: tensor(input), output: tensor(output), loss: done.loss, squares: done.squares }
}

/// The same by Burn's gradients, which says what the kernel computes.
fn plain_step(mut tables: [Tensor<2>; 2], windows: &Windows, form: Form, rate: f64) -> Moved {
    let mut done = (0.0, [0.0; 2]);
    let scalar = |x: Tensor<1>| f64::from(x.into_scalar::<f32>());
    let slice_len = slice_len(tables[1].dims()[0]);
    let round_len = SLICES * slice_len;
    for round in (0..windows.len()).step_by(round_len) {
        let mut moves = tables.each_ref().map(Tensor::zeros_like);
        for slice in (round..windows.len().min(round + round_len)).step_by(slice_len) {
            let mut own = tables.clone();
            for window in slice..windows.len().min(slice + slice_len) {
                let leaves = own.clone().map(|table| Tensor::from_inner(table).require_grad());
                let [input, output] = leaves.clone();
                let loss = negative_sampling(input, output, &windows.one(window), form);
                done.0 += scalar(loss.clone().inner());
                let mut gradients = loss.backward();
                for (own, leaf) in own.iter_mut().zip(leaves) {
                    if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                        *own = own.clone() - gradient * rate;
                    }
                }
            }
            for (table, own) in own.into_iter().enumerate() {
                let moved = own - tables[table].clone();
                done.1[table] += scalar((moved.clone() * moved.clone()).sum());
                moves[table] = moves[table].clone() + moved;
            }
        }
        for (table, moves) in tables.iter_mut().zip(moves) {
            *table = table.clone() + moves;
        }
    }
    let [input, output] = tables;
    Moved { input, output, loss: done.0, squares: done.1 }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::tests::{as_elsewhere, tensor, to_vec};

    /// Enough for slices of three windows.
    const WORDS: usize = 200;
    const WIDTH: usize = 21;
    const FORMS: [Form; 2] = [Form::SkipGram, Form::Cbow];

    /// Windows of all lengths, some with a word twice.
    fn windows(count: u32) -> Windows {
        let mut windows = Windows::default();
        for i in 0..count {
            let word = |k: u32| (i * 7 + (k * k * 5 + 3 * k) % 9) % WORDS as u32;
            let around: Vec<u32> = (0..1 + i % 7).map(word).collect();
            windows.push([&around[..around.len() / 2], &around[around.len() / 2..]], (10..11 + i % 5).map(word));
        }
        windows
    }

    fn tables() -> [Tensor<2>; 2] {
        [1, 2].map(|seed| tensor([WORDS, WIDTH], seed, &Device::flex()) * 0.5)
    }

    fn stepped(windows: &Windows, form: Form, rate: f64) -> Moved {
        let [input, output] = tables();
        negative_sampling_step(input, output, windows, form, rate)
    }

    #[track_caller]
    fn close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
        assert_eq!(got.len(), want.len(), "{what}");
        let size = want.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
        let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= tolerance * size, "{what}: off by {worst} of {size}");
    }

    /// A window moves its rows by its gradient: Burn's, and that of finite differences of the loss.
    #[test]
    fn a_window_moves_along_its_gradient() {
        for form in FORMS {
            for window in 0..9 {
                let one = windows(9).one(window);
                // A power of two, so that dividing by it loses nothing.
                let rate = 1.0 / 64.0;
                let [input, output] = tables();
                let moved = stepped(&one, form, rate);
                let found = [(&input, moved.input), (&output, moved.output)]
                    .map(|(before, after)| to_vec((before.clone() - after) / rate));
                let leaves = [&input, &output].map(|table| Tensor::<2>::from_inner(table.clone()).require_grad());
                let mut gradients = negative_sampling(leaves[0].clone(), leaves[1].clone(), &one, form).backward();
                for (leaf, found) in leaves.iter().zip(&found) {
                    let gradient = to_vec(leaf.grad_remove(&mut gradients).unwrap());
                    close(&format!("{form:?} {window}"), found, &gradient, 5e-5);
                }
                for (table, found) in found.iter().enumerate() {
                    let direction = tensor([WORDS, WIDTH], 7, &Device::flex());
                    let at = |by: f32| {
                        let mut moved = tables();
                        moved[table] = moved[table].clone() + direction.clone() * by;
                        let [input, output] = moved;
                        f64::from(negative_sampling_losses(input, output, &one, form)[0])
                    };
                    let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
                    let slope: f64 = to_vec(direction.clone()).iter().zip(found).map(|(a, b)| f64::from(a * b)).sum();
                    assert!((difference - slope).abs() < 2e-3 * (1.0 + slope.abs()), "{form:?} {window}: {difference}, {slope}");
                }
            }
        }
    }

    /// Several rounds, the last of them not full, against the same in plain tensors.
    #[test]
    fn steps_agree_with_the_plain_form() {
        for form in FORMS {
            let windows = windows(150);
            assert_eq!(slice_len(WORDS), 3);
            let ours = stepped(&windows, form, 0.05);
            let plain = as_elsewhere(|| stepped(&windows, form, 0.05));
            assert!((ours.loss - plain.loss).abs() < 1e-4 * plain.loss, "{form:?}: {} {}", ours.loss, plain.loss);
            for table in 0..2 {
                let (ours, plain) = (ours.squares[table], plain.squares[table]);
                assert!((ours - plain).abs() < 1e-3 * plain, "{form:?}: {ours} {plain}");
            }
            let [input, output] = tables().map(to_vec);
            let start = [input, output];
            for (table, (ours, plain)) in [(ours.input, plain.input), (ours.output, plain.output)].into_iter().enumerate() {
                let (ours, plain) = (to_vec(ours), to_vec(plain));
                close(&format!("{form:?}"), &ours, &plain, 1e-4);
                assert!(ours.iter().zip(&start[table]).any(|(a, b)| (a - b).abs() > 1e-2), "nothing moved");
            }
        }
    }

    #[test]
    fn losses_of_windows_add_up_to_the_loss() {
        for form in FORMS {
            let windows = windows(600);
            let [input, output] = tables();
            let losses = negative_sampling_losses(input.clone(), output.clone(), &windows, form);
            let plain = as_elsewhere(|| negative_sampling_losses(input.clone(), output.clone(), &windows, form));
            close("each", &losses, &plain, 1e-5);
            let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
            let all = f64::from(negative_sampling(input, output, &windows, form).into_scalar::<f32>());
            assert!((sum - all).abs() < 1e-4 * all, "{sum} {all}");
        }
    }

    /// Descent on the same windows again and again brings the loss down, at word2vec's rate and with every word in every round.
    #[test]
    fn the_loss_falls() {
        for form in FORMS {
            let windows = windows(1000);
            let [mut input, mut output] = tables();
            let mut losses = vec![];
            for _ in 0..30 {
                let moved = negative_sampling_step(input, output, &windows, form, 0.025);
                (input, output) = (moved.input, moved.output);
                losses.push(moved.loss);
            }
            assert!(losses.iter().all(|loss| loss.is_finite()) && losses[29] < 0.95 * losses[0], "{form:?}: {losses:?}");
        }
    }

    #[test]
    fn lists_of_windows_are_joined() {
        let whole = windows(20);
        let mut joined = Windows::default();
        for range in [0..7, 7..7, 7..20] {
            let mut part = Windows::default();
            range.for_each(|i| part.push([whole.contexts(i), &[]], whole.outputs(i).iter().copied()));
            joined.append(&part);
        }
        assert_eq!(joined, whole);
    }

    #[test]
    fn threads_change_no_bit() {
        let windows = windows(700);
        let of = |threads: usize| {
            crate::set_threads(threads);
            let moved = stepped(&windows, Form::SkipGram, 0.025);
            crate::set_threads(0);
            (to_vec(moved.input), to_vec(moved.output), moved.loss, moved.squares)
        };
        assert_eq!(of(1), of(5));
    }

    #[test]
    #[should_panic(expected = "outside the tables")]
    fn a_word_outside_is_refused() {
        let mut windows = Windows::default();
        windows.push([&[1], &[]], [WORDS as u32]);
        stepped(&windows, Form::Cbow, 0.1);
    }
}
