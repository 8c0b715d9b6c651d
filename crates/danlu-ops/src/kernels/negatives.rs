//! Negative sampling's gradient descent, window by window, on two tables of rows.
//!
//! The windows of a slice are taken one after another, each on the rows as those before it in the slice left them. The slices of a round
//! run side by side on the tables as they were when the round began and keep their moves apart; then the moves are added up, slice after
//! slice. How windows are cut into slices and rounds depends on their number and that of the words only, so that any number of threads gives
//! the same bits.

use std::ops::Range;

use super::isa::Isa;
use super::simd::{exp, fma, ln, simd_fn};
use super::threads::{SendPtr, for_each_chunk};
use crate::word2vec::{Form, Windows};

/// Slices that see the same tables: as many threads have work at once.
pub(crate) const SLICES: usize = 8;
/// Windows of a slice at most: enough to hide the cost of handing them out. On 70,000 words of English, seen three times at a rate of 0.025,
/// rounds of eight slices of 8, 16 and 32 windows end at a held-out loss of 2.597, 2.597 and 2.595, one window after another at 2.598; at twice
/// the rate slices of 32 are 1 % behind.
const SLICE: usize = 16;
/// A slice has a window for so many words of the vocabulary. A word's moves by all slices of a round are added up though none knew of the
/// others, so that a round must not hold one word too often; where there are few words, each is in many windows.
const WORDS: usize = 64;
/// Floats in a chunk of a row.
const LANES: usize = 16;
/// Windows whose losses a thread takes at a time.
const PIECE: usize = 256;
/// Parts that the rows of a table are shared out in when moves are added up.
const PARTS: usize = 4;

type Chunk = [f32; LANES];

/// Windows that are taken one after another, in tables of so many rows.
pub(crate) fn slice_len(rows: usize) -> usize {
    (rows / WORDS).clamp(1, SLICE)
}

/// What is the same for all windows of a step.
#[derive(Clone, Copy)]
struct Call {
    width: usize,
    /// Chunks of a row; what is beyond the width stays zero.
    chunks: usize,
    form: Form,
    /// None: only the loss is wanted.
    rate: Option<f32>,
}

/// What a step did: the sum of the losses, and for each table the sum of the squares of all moves.
pub(crate) struct Stepped {
    pub(crate) loss: f64,
    pub(crate) squares: [f64; 2],
}

/// Moves both tables, whose rows are `width` long, by gradient descent on each window's loss.
pub(crate) fn step(mut tables: [&mut [f32]; 2], width: usize, windows: &Windows, form: Form, rate: f32) -> Stepped {
    let call = Call { width, chunks: width.div_ceil(LANES), form, rate: Some(rate) };
    let rows = tables.each_ref().map(|table| table.len() / width);
    let slice_len = slice_len(rows[1]);
    let mut slices: Vec<Slice> = (0..SLICES).map(|_| Slice::new(call, windows, rows)).collect();
    let mut done = Stepped { loss: 0.0, squares: [0.0; 2] };
    let isa = Isa::current();
    for first in (0..windows.len()).step_by(SLICES * slice_len) {
        let seen = tables.each_ref().map(|table| &**table);
        for_each_chunk(&mut slices, 1, |i, slices| {
            let begin = (first + i * slice_len).min(windows.len());
            let end = (begin + slice_len).min(windows.len());
            slices.iter_mut().for_each(|slice| run(isa, slice, seen, windows, begin..end));
        });
        done.loss += slices.iter().map(|slice| slice.loss).sum::<f64>();
        let squares = merge(tables.each_mut().map(|table| &mut **table), call, &slices);
        (0..2).for_each(|table| done.squares[table] += squares[table]);
    }
    done
}

/// Each window's loss.
pub(crate) fn losses(tables: [&[f32]; 2], width: usize, windows: &Windows, form: Form) -> Vec<f32> {
    let call = Call { width, chunks: width.div_ceil(LANES), form, rate: None };
    let mut losses = vec![0.0; windows.len()];
    let isa = Isa::current();
    for_each_chunk(&mut losses, PIECE, |i, losses| {
        let mut slice = Slice::new(call, windows, [0; 2]);
        losses_of(isa, &mut slice, tables, windows, i * PIECE, losses);
    });
    losses
}

/// Adds the slices' moves to the tables, in the order of the slices. Each part has the rows whose number leaves its remainder.
fn merge(tables: [&mut [f32]; 2], call: Call, slices: &[Slice]) -> [f64; 2] {
    let bases = tables.map(|table| (table.len() / call.width, SendPtr(table.as_mut_ptr())));
    let mut squares = [0.0; 2 * PARTS];
    let isa = Isa::current();
    for_each_chunk(&mut squares, 1, |i, square| {
        let (table, part) = (i % 2, i / 2);
        let (rows, base) = &bases[table];
        for moves in slices.iter().map(|slice| &slice.moves[table]) {
            let mine = moves.rows.iter().zip(moves.values.chunks_exact(call.chunks));
            for (&row, values) in mine.filter(|(row, _)| **row as usize % PARTS == part) {
                assert!((row as usize) < *rows, "a row that was read is in the table");
                // SAFETY: the row lies in the table, and no other part has it.
                let to = unsafe { std::slice::from_raw_parts_mut(base.get().add(row as usize * call.width), call.width) };
                square[0] += f64::from(add(isa, to, values.as_flattened()));
            }
        }
    });
    std::array::from_fn(|table| squares.iter().skip(table).step_by(2).sum())
}

simd_fn! {
    /// `to += move`; returns the square of the move's length.
    fn add(to: &mut [f32], moved: &[f32]) -> f32 {
        let moved = &moved[..to.len()];
        for (to, moved) in to.iter_mut().zip(moved) {
            *to += moved;
        }
        super::simd::dot::<FMA>(moved, moved)
    }

    /// Takes the windows of a range, one after another.
    fn run(slice: &mut Slice, tables: [&[f32]; 2], windows: &Windows, range: Range<usize>) {
        slice.loss = 0.0;
        slice.moves.iter_mut().for_each(Moves::clear);
        for window in range {
            slice.loss += f64::from(slice.window::<FMA>(tables, windows.contexts(window), windows.outputs(window)));
        }
    }

    /// The losses of the windows from `first` on, of which none moves anything.
    fn losses_of(slice: &mut Slice, tables: [&[f32]; 2], windows: &Windows, first: usize, losses: &mut [f32]) {
        for (i, loss) in losses.iter_mut().enumerate() {
            *loss = slice.window::<FMA>(tables, windows.contexts(first + i), windows.outputs(first + i));
        }
    }
}

/// The rows of a table that a slice moved, and by how much.
struct Moves {
    /// For each row of the table one more than its place among `rows`; 0 where it has not moved.
    places: Vec<u32>,
    rows: Vec<u32>,
    values: Vec<Chunk>,
}

impl Moves {
    fn clear(&mut self) {
        for row in self.rows.drain(..) {
            self.places[row as usize] = 0;
        }
        self.values.clear();
    }

    fn place(&self, row: u32) -> u32 {
        self.places.get(row as usize).copied().unwrap_or(0)
    }

    /// A row of the table with its move so far.
    #[inline(always)]
    fn read(&self, table: &[f32], call: &Call, row: u32, to: &mut [Chunk]) {
        to.as_flattened_mut()[..call.width].copy_from_slice(&table[row as usize * call.width..][..call.width]);
        let place = self.place(row) as usize;
        if place > 0 {
            add_chunks(to, &self.values[(place - 1) * call.chunks..][..call.chunks]);
        }
    }

    #[inline(always)]
    fn add(&mut self, call: &Call, row: u32, by: &[Chunk]) {
        let place = self.place(row) as usize;
        if place > 0 {
            add_chunks(&mut self.values[(place - 1) * call.chunks..][..call.chunks], by);
        } else {
            self.rows.push(row);
            self.places[row as usize] = self.rows.len() as u32;
            self.values.extend_from_slice(by);
        }
    }
}

/// What a thread needs for the windows of a slice.
struct Slice {
    call: Call,
    /// Of the input table, and of the output table.
    moves: [Moves; 2],
    /// A window's rows of both tables, and what they move by.
    x: Vec<Chunk>,
    y: Vec<Chunk>,
    dx: Vec<Chunk>,
    dy: Vec<Chunk>,
    /// `[rows of x, rows of y]`: products, then what a row moves along the other.
    slopes: Vec<f32>,
    terms: Vec<f32>,
    loss: f64,
}

impl Slice {
    fn new(call: Call, windows: &Windows, rows: [usize; 2]) -> Self {
        let [contexts, outputs] = windows.widest();
        let scratch = |rows: usize| vec![[0.0; LANES]; rows * call.chunks];
        Self {
            call,
            moves: rows.map(|rows| Moves { places: vec![0; rows], rows: vec![], values: vec![] }),
            x: scratch(contexts),
            y: scratch(outputs),
            dx: scratch(contexts),
            dy: scratch(outputs),
            slopes: vec![0.0; contexts * outputs],
            terms: vec![0.0; contexts * outputs],
            loss: 0.0,
        }
    }

    /// One window: its loss on the rows of now, and unless that is all, a step of gradient descent on it.
    #[inline(always)]
    fn window<const FMA: bool>(&mut self, tables: [&[f32]; 2], contexts: &[u32], outputs: &[u32]) -> f32 {
        let Self { call, moves, x, y, dx, dy, slopes, terms, .. } = self;
        let (chunks, words) = (call.chunks, outputs.len());
        if contexts.is_empty() || words == 0 {
            return 0.0;
        }
        // Rows are found by their place: iterators over them would divide, which takes as long as a product here.
        let row = |i: usize| i * chunks..(i + 1) * chunks;
        for (i, &word) in contexts.iter().enumerate() {
            moves[0].read(tables[0], call, word, &mut x[row(i)]);
        }
        for (i, &word) in outputs.iter().enumerate() {
            moves[1].read(tables[1], call, word, &mut y[row(i)]);
        }
        // CBOW predicts from the mean, skip-gram from each.
        let cbow = call.form == Form::Cbow;
        let inputs = if cbow { mean(x, contexts.len(), chunks) } else { contexts.len() };
        let pairs = inputs * words;
        let (slopes, terms) = (&mut slopes[..pairs], &mut terms[..pairs]);
        for i in 0..inputs {
            for word in 0..words {
                slopes[i * words + word] = dot::<FMA>(&x[row(i)], &y[row(word)]);
            }
            // The first word is the one that stands there: its loss is that of a wrong word with the opposite product.
            slopes[i * words] = -slopes[i * words];
        }
        let rate = call.rate.unwrap_or(0.0);
        for (slope, term) in slopes.iter_mut().zip(terms.iter_mut()) {
            let product = *slope;
            // ln(1 + e^p), and its derivative.
            let e = exp::<FMA>(-product.abs());
            *term = product.max(0.0) + ln::<FMA>(1.0 + e);
            let share = 1.0 / (1.0 + e);
            *slope = -rate * if product < 0.0 { e * share } else { share };
        }
        let loss = super::simd::sum(terms);
        if call.rate.is_none() {
            return loss;
        }
        (0..inputs).for_each(|i| slopes[i * words] = -slopes[i * words]);
        for i in 0..inputs {
            combine::<FMA>(&mut dx[row(i)], y, |word| slopes[i * words + word], words);
        }
        for word in 0..words {
            combine::<FMA>(&mut dy[row(word)], x, |i| slopes[i * words + word], inputs);
        }
        if cbow {
            let share = 1.0 / contexts.len() as f32;
            dx[row(0)].as_flattened_mut().iter_mut().for_each(|x| *x *= share);
        }
        for (i, &word) in contexts.iter().enumerate() {
            moves[0].add(call, word, &dx[row(if cbow { 0 } else { i })]);
        }
        for (i, &word) in outputs.iter().enumerate() {
            moves[1].add(call, word, &dy[row(i)]);
        }
        loss
    }
}

/// Puts the mean of the first `rows` rows in the place of the first; there is one row then.
#[inline(always)]
fn mean(x: &mut [Chunk], rows: usize, chunks: usize) -> usize {
    let (first, others) = x.split_at_mut(chunks);
    for i in 0..rows - 1 {
        add_chunks(first, &others[i * chunks..(i + 1) * chunks]);
    }
    let share = 1.0 / rows as f32;
    first.as_flattened_mut().iter_mut().for_each(|x| *x *= share);
    1
}

#[inline(always)]
fn add_chunks(to: &mut [Chunk], by: &[Chunk]) {
    for (to, by) in to.iter_mut().zip(by) {
        for lane in 0..LANES {
            to[lane] += by[lane];
        }
    }
}

#[inline(always)]
fn dot<const FMA: bool>(a: &[Chunk], b: &[Chunk]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] = fma::<FMA>(a[lane], b[lane], sums[lane]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// `to = Σ weight(i) · row i` of the first `count` rows.
#[inline(always)]
fn combine<const FMA: bool>(to: &mut [Chunk], rows: &[Chunk], weight: impl Fn(usize) -> f32, count: usize) {
    let chunks = to.len();
    let rows = &rows[..count * chunks];
    for (c, to) in to.iter_mut().enumerate() {
        let mut sums = [0.0; LANES];
        for i in 0..count {
            let (weight, row) = (weight(i), &rows[i * chunks + c]);
            for lane in 0..LANES {
                sums[lane] = fma::<FMA>(weight, row[lane], sums[lane]);
            }
        }
        *to = sums;
    }
}
