use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::backward::{Saved, backward_with};
use super::forward::forward_with;
use super::paged::attention_paged_with;
use super::*;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn tables(positions: usize, head_dim: usize) -> (Vec<f32>, Vec<f32>) {
    let angle = |i: usize| {
        let (position, pair) = (i / (head_dim / 2), i % (head_dim / 2));
        position as f64 / 10000f64.powf(2.0 * pair as f64 / head_dim as f64)
    };
    let all = 0..positions * (head_dim / 2);
    (all.clone().map(|i| angle(i).cos() as f32).collect(), all.map(|i| angle(i).sin() as f32).collect())
}

/// Attention and its gradient by their definitions, in f64.
struct Naive {
    y: Vec<f64>,
    lse: Vec<f64>,
    dqkv: Vec<f64>,
}

fn naive(shape: &Attention, qkv: &[f32], dy: &[f32], segments: &[Range<usize>]) -> Naive {
    let (dim, width, out, half) = (shape.head_dim, shape.row_width(), shape.q_width(), shape.head_dim / 2);
    let tokens = qkv.len() / width;
    let mut all = Naive { y: vec![0.0; tokens * out], lse: vec![0.0; tokens * shape.heads], dqkv: vec![0.0; tokens * width] };
    let turn = |row: &mut [f64], position: usize, direction: f64| {
        if let Some((cos, sin)) = shape.rope {
            for i in 0..half {
                let (c, s) = (f64::from(cos[position * half + i]), direction * f64::from(sin[position * half + i]));
                (row[i], row[i + half]) = (row[i] * c - row[i + half] * s, row[i + half] * c + row[i] * s);
            }
        }
    };
    for segment in segments {
        for h in 0..shape.heads {
            let kv = h / shape.group();
            let columns = [h * dim, out + kv * dim, out + (shape.kv_heads + kv) * dim];
            let part = |column: usize, turned: bool| -> Vec<Vec<f64>> {
                let row = |(position, token): (usize, usize)| {
                    let mut row: Vec<f64> = qkv[token * width + column..][..dim].iter().map(|&x| f64::from(x)).collect();
                    if turned {
                        turn(&mut row, position, 1.0);
                    }
                    row
                };
                segment.clone().enumerate().map(row).collect()
            };
            let (q, k, v) = (part(columns[0], true), part(columns[1], true), part(columns[2], false));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (mut dq, mut dk) = (vec![vec![0.0; dim]; q.len()], vec![vec![0.0; dim]; q.len()]);
            for i in 0..q.len() {
                let scale = 1.0 / (dim as f64).sqrt();
                let scores: Vec<f64> = (0..shape.visible(i, q.len())).map(|j| dot(&q[i], &k[j]) * scale).collect();
                let lse = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
                let token = segment.start + i;
                all.lse[token * shape.heads + h] = lse;
                let p: Vec<f64> = scores.iter().map(|s| (s - lse).exp()).collect();
                let y = &mut all.y[token * out + h * dim..][..dim];
                let dy: Vec<f64> = dy[token * out + h * dim..][..dim].iter().map(|&x| f64::from(x)).collect();
                for (c, y) in y.iter_mut().enumerate() {
                    *y = p.iter().zip(&v).map(|(p, v)| p * v[c]).sum();
                }
                let mean = dot(y, &dy);
                for j in 0..p.len() {
                    let ds = p[j] * (dot(&dy, &v[j]) - mean) * scale;
                    for c in 0..dim {
                        dq[i][c] += ds * k[j][c];
                        dk[j][c] += ds * q[i][c];
                        all.dqkv[(segment.start + j) * width + columns[2] + c] += p[j] * dy[c];
                    }
                }
            }
            for i in 0..q.len() {
                turn(&mut dq[i], i, -1.0);
                turn(&mut dk[i], i, -1.0);
                for c in 0..dim {
                    all.dqkv[(segment.start + i) * width + columns[0] + c] += dq[i][c];
                    all.dqkv[(segment.start + i) * width + columns[1] + c] += dk[i][c];
                }
            }
        }
    }
    all
}

fn assert_close(what: &str, got: &[f32], want: &[f64]) {
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() <= 2e-5 * want.abs().max(1.0), "{what} at {i}: {got} instead of {want}");
    }
}

fn check(heads: usize, kv_heads: usize, head_dim: usize, rope: bool, lengths: &[usize]) {
    check_masked(heads, kv_heads, head_dim, rope, true, lengths);
    check_masked(heads, kv_heads, head_dim, rope, false, lengths);
}

fn check_masked(heads: usize, kv_heads: usize, head_dim: usize, rope: bool, causal: bool, lengths: &[usize]) {
    let tables = tables(lengths.iter().copied().max().unwrap_or(0), head_dim);
    let shape = Attention { heads, kv_heads, head_dim, causal, rope: rope.then_some((&tables.0, &tables.1)) };
    let mut segments = Vec::new();
    let mut tokens = 0;
    for &len in lengths {
        segments.push(tokens..tokens + len);
        tokens += len;
    }
    let qkv: Vec<f32> = values(tokens * shape.row_width(), 1).iter().map(|x| x * 1.5).collect();
    let dy = values(tokens * shape.q_width(), 2);
    let want = naive(&shape, &qkv, &dy, &segments);
    for isa in Isa::available() {
        let what = |name: &str| format!("{isa:?} {heads}/{kv_heads}×{head_dim} rope {rope} causal {causal} {lengths:?} {name}");
        let (mut y, mut lse) = (vec![f32::NAN; tokens * shape.q_width()], vec![f32::NAN; tokens * heads]);
        forward_with(isa, &shape, &mut y, &mut lse, &qkv, &segments);
        assert_close(&what("y"), &y, &want.y);
        assert_close(&what("lse"), &lse, &want.lse);
        let mut dqkv = vec![f32::NAN; tokens * shape.row_width()];
        backward_with(isa, &shape, &mut dqkv, Saved { dy: &dy, y: &y, lse: &lse, qkv: &qkv }, &segments);
        assert_close(&what("dqkv"), &dqkv, &want.dqkv);
    }
}

#[test]
fn segments_of_all_lengths() {
    check(2, 2, 32, true, &[1]);
    check(2, 2, 32, true, &[1, 2, 3, 11, 12, 13, 31, 32, 33, 50]);
    check(1, 1, 64, false, &[97, 5, 200]);
}

#[test]
fn heads_of_all_sizes() {
    for head_dim in [2, 8, 16, 24, 40, 64, 80, 96, 128] {
        check(2, 1, head_dim, true, &[37, 20]);
    }
    check(1, 1, 7, false, &[19]);
}

#[test]
fn queries_that_share_keys() {
    check(6, 2, 16, true, &[60, 3, 130]);
    check(4, 1, 32, false, &[25]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape(
        group in 1usize..3, kv_heads in 1usize..3, half in 1usize..25, rope: bool, lengths in prop::collection::vec(1usize..45, 1..5),
    ) {
        check(group * kv_heads, kv_heads, 2 * half, rope, &lengths);
    }
}

#[test]
fn a_segment_longer_than_the_second_cache_holds() {
    check(1, 1, 16, true, &[700]);
}

#[test]
fn a_cache_filled_in_any_steps_gives_the_same_rows() {
    let (heads, kv_heads, head_dim, tokens, capacity) = (4, 2, 32, 60, 64);
    let tables = tables(tokens, head_dim);
    let shape = Attention { heads, kv_heads, head_dim, causal: true, rope: Some((&tables.0, &tables.1)) };
    let qkv = values(tokens * shape.row_width(), 1);
    let want = naive(&shape, &qkv, &vec![0.0; tokens * shape.q_width()], std::slice::from_ref(&(0..tokens)));
    for steps in [vec![60], vec![1; 60], vec![20, 1, 1, 8, 30], vec![3, 57]] {
        let mut caches = [vec![0f32; kv_heads * capacity * head_dim], vec![0f32; kv_heads * capacity * head_dim]];
        let mut y = vec![0f32; tokens * shape.q_width()];
        let mut past = 0;
        for &rows in &steps {
            let [k, v] = &mut caches;
            let new = past..past + rows;
            let y = &mut y[new.start * shape.q_width()..new.end * shape.q_width()];
            attention_cached(&shape, y, &qkv[new.start * shape.row_width()..new.end * shape.row_width()], k, v, capacity, past);
            past += rows;
        }
        assert_close(&format!("steps {steps:?}"), &y, &want.y);
    }
}

/// Reads texts, `[tokens, …]` each, in steps of so many tokens of every text that is still so long; the rows of each text.
fn read_paged(isa: Isa, shape: &Attention, format: KvFormat, texts: &[Vec<f32>], steps: &[usize]) -> Vec<Vec<f32>> {
    let (width, out) = (shape.row_width(), shape.q_width());
    let mut pages: Vec<Vec<Arc<Page>>> = vec![vec![]; texts.len()];
    let mut read = vec![vec![]; texts.len()];
    let mut past = 0;
    for step in steps {
        let at = |text: &Vec<f32>, token: usize| token.min(text.len() / width);
        let (mut qkv, mut counts) = (vec![], vec![]);
        for (text, pages) in texts.iter().zip(&mut pages) {
            let new = &text[at(text, past) * width..at(text, past + step) * width];
            store_paged(shape, format, pages, at(text, past), new);
            counts.push(new.len() / width);
            qkv.extend_from_slice(new);
        }
        let mut first = 0;
        let mut sequences = vec![];
        for ((text, pages), &count) in texts.iter().zip(&pages).zip(&counts) {
            sequences.push(Rows { first, count, past: at(text, past), pages });
            first += count;
        }
        let mut y = vec![f32::NAN; first * out];
        attention_paged_with(isa, shape, &mut y, &qkv, &sequences);
        let mut rest = &y[..];
        for (read, count) in read.iter_mut().zip(counts) {
            let (own, others) = rest.split_at(count * out);
            read.extend_from_slice(own);
            rest = others;
        }
        past += step;
    }
    read
}

/// One token at a time, a few as when guesses are read along, and many as of a prompt.
const STEPS: [&[usize]; 4] = [&[1; 300], &[7; 43], &[3, 200, 1, 1, 5, 90], &[31, 1, 1, 97, 6, 2, 30, 132]];

fn texts(shape: &Attention, values: impl Fn(usize, u64) -> Vec<f32>) -> Vec<Vec<f32>> {
    [300, 129, 9].iter().map(|tokens| values(tokens * shape.row_width(), *tokens as u64)).collect()
}

/// Groups of one to seven queries, and heads that registers do not fit into evenly.
#[test]
fn pages_give_the_same_rows_however_they_are_read() {
    for (heads, kv_heads, head_dim) in [(9, 3, 64), (2, 2, 40), (4, 1, 8), (7, 1, 20), (4, 2, 6)] {
        let tables = tables(300, head_dim);
        let shape = Attention { heads, kv_heads, head_dim, causal: true, rope: Some((&tables.0, &tables.1)) };
        let texts = texts(&shape, values);
        let want: Vec<Vec<f64>> = texts
            .iter()
            .map(|text| {
                let tokens = text.len() / shape.row_width();
                naive(&shape, text, &vec![0.0; tokens * shape.q_width()], std::slice::from_ref(&(0..tokens))).y
            })
            .collect();
        for isa in Isa::available() {
            let one = read_paged(isa, &shape, KvFormat::F32, &texts, STEPS[0]);
            let few = read_paged(isa, &shape, KvFormat::F32, &texts, STEPS[1]);
            assert!(one == few, "{isa:?} {heads}/{kv_heads}×{head_dim}: a token depends on those it is read with");
            for steps in STEPS {
                let what = format!("{isa:?} {heads}/{kv_heads}×{head_dim} {steps:?}");
                for (got, want) in read_paged(isa, &shape, KvFormat::F32, &texts, steps).iter().zip(&want) {
                    assert_close(&what, got, want);
                }
                for (got, want) in read_paged(isa, &shape, KvFormat::F16, &texts, steps).iter().zip(&want) {
                    for (got, want) in got.iter().zip(want) {
                        assert!((f64::from(*got) - want).abs() < 4e-3, "{what} in halves: {got} instead of {want}");
                    }
                }
            }
        }
    }
}

/// Where nothing is rounded, halves change no bit.
#[test]
fn halves_that_hold_the_numbers_give_what_floats_give() {
    let shape = Attention { heads: 6, kv_heads: 2, head_dim: 44, causal: true, rope: None };
    let coarse =
        |count: usize, seed: u64| -> Vec<f32> { values(count, seed).iter().map(|x| (x * 256.0).round() / 128.0).collect() };
    let texts = texts(&shape, coarse);
    for isa in Isa::available() {
        for steps in STEPS {
            let [floats, halves] = KvFormat::ALL.map(|format| read_paged(isa, &shape, format, &texts, steps));
            assert!(floats == halves, "{isa:?} {steps:?}");
        }
    }
}

#[test]
fn what_halves_have_no_room_for_is_kept_as_their_largest() {
    let shape = Attention { heads: 1, kv_heads: 1, head_dim: 8, causal: true, rope: None };
    let mut qkv = vec![0.0; 24];
    qkv[16..19].copy_from_slice(&[1e6, -1e6, 3.0]);
    let read = read_paged(Isa::current(), &shape, KvFormat::F16, &[qkv], &[1]);
    assert_eq!(read[0], [65504.0, -65504.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}
