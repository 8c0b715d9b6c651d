use super::*;
use crate::{Activations, Error, Isa, Weights, dequantize, products, products_with, threads};

fn activations(x: &[f32], rows: usize) -> Activations {
    let mut held = Activations::new();
    held.set(x, rows, x.len() / rows).unwrap();
    held
}

/// Rows of the input, rows of the weight, blocks in a row.
const SHAPES: &[(usize, usize, usize)] = if cfg!(miri) {
    &[(1, 9, 1), (3, 17, 1)]
} else {
    &[(1, 1, 1), (1, 7, 3), (1, 40, 2), (2, 8, 1), (3, 33, 2), (4, 64, 2), (5, 100, 5), (67, 21, 2), (130, 9, 1), (1, 2000, 4)]
};

/// A result is the product of what the weights and the bytes of the input stand for, but for the rounding of floats; and of the input
/// itself, but for half a step of each value.
#[test]
fn they_are_the_products_of_the_values() {
    for format in FORMATS {
        for &(rows, out, blocks) in SHAPES {
            let inp = blocks * format.block();
            let (bytes, x) = (weight(format, out, inp, 3), values(rows * inp, 4));
            let mut w = vec![0.0; out * inp];
            dequantize(format, &bytes, &mut w);
            let held = activations(&x, rows);
            let rounded = held.values();
            let mut y = vec![f32::NAN; rows * out];
            products(&mut y, &held, &[&Weights::new(format, [out, inp], &bytes).unwrap()]).unwrap();
            for (row, y) in y.chunks_exact(out).enumerate() {
                for (w, y) in w.chunks_exact(inp).zip(y) {
                    let at = row * inp..(row + 1) * inp;
                    let (mut exact, mut size, mut real, mut step) = (0.0, 0.0, 0.0, 0.0);
                    for ((w, b), x) in w.iter().zip(&rounded[at.clone()]).zip(&x[at]) {
                        let [w, b, x] = [w, b, x].map(|v| f64::from(*v));
                        exact += w * b;
                        size += (w * b).abs();
                        real += w * x;
                        step += w.abs() * 1.5 / 254.0 * 1.001;
                    }
                    // Offsets are taken from sums that are as large as they are; for Q4_1 and Q4_K both are floats.
                    let rounding = (size + step * 127.0) * 1e-6;
                    let what = format!("{} {rows}×{out}×{inp}", format.name());
                    assert!((exact - f64::from(*y)).abs() <= rounding, "{what}: {y}, not {exact}");
                    assert!((real - f64::from(*y)).abs() <= step + rounding, "{what}: {y} is too far from {real}");
                }
            }
        }
    }
}

#[test]
fn all_sets_give_the_same_bits() {
    for format in FORMATS {
        for &(rows, out, blocks) in SHAPES {
            let inp = blocks * format.block();
            let weights = Weights::new(format, [out, inp], &weight(format, out, inp, 11)).unwrap();
            let x = activations(&values(rows * inp, 12), rows);
            let mut want = vec![f32::NAN; rows * out];
            products_with(Isa::Portable, &mut want, &x, &[&weights]).unwrap();
            for isa in Isa::available() {
                let mut got = vec![f32::NAN; rows * out];
                products_with(isa, &mut got, &x, &[&weights]).unwrap();
                assert_eq!(bits(&got), bits(&want), "{} {rows}×{out}×{inp} {isa:?}", format.name());
            }
        }
    }
}

/// Sums in few bits do not overflow, whatever the bytes.
#[test]
#[cfg_attr(miri, ignore = "too slow, and about other sets than the portable one")]
fn the_largest_bytes_have_room() {
    let inp = 512;
    for format in FORMATS {
        for fill in [0x00, 0x77, 0x7f, 0x80, 0x81, 0x88, 0xff] {
            let mut bytes = vec![fill; 9 * inp / format.block() * format.block_bytes()];
            for block in bytes.chunks_exact_mut(format.block_bytes()) {
                let scales: &[usize] = match format {
                    Format::Q6K => &[208],
                    Format::Q4_1 | Format::Q4K => &[0, 2],
                    _ => &[0],
                };
                scales.iter().for_each(|at| block[*at..at + 2].copy_from_slice(&[0, 0x3c]));
            }
            let weights = Weights::new(format, [9, inp], &bytes).unwrap();
            let x: Vec<f32> = (0..3 * inp).map(|i| if i < inp || i % 3 == 0 { 1.0 } else { -1.0 }).collect();
            let x = activations(&x, 3);
            let mut want = vec![0.0; 27];
            products_with(Isa::Portable, &mut want, &x, &[&weights]).unwrap();
            let mut w = vec![0.0; 9 * inp];
            dequantize(format, &bytes, &mut w);
            let exact: f64 = w[..inp].iter().map(|w| f64::from(*w)).sum();
            assert!(
                (exact - f64::from(want[0])).abs() <= exact.abs() * 1e-5 + 0.1,
                "{} {fill:x}: {} {exact}",
                format.name(),
                want[0]
            );
            for isa in Isa::available() {
                let mut got = vec![0.0; 27];
                products_with(isa, &mut got, &x, &[&weights]).unwrap();
                assert_eq!(bits(&got), bits(&want), "{} {fill:x} {isa:?}", format.name());
            }
        }
    }
}

/// A row's result does not depend on the rows beside it, nor on the number of threads.
#[test]
fn rows_stand_alone() {
    let (rows, out) = if cfg!(miri) { (3, 9) } else { (70, 200) };
    for format in FORMATS {
        let inp = format.block();
        let weights = Weights::new(format, [out, inp], &weight(format, out, inp, 21)).unwrap();
        let x = values(rows * inp, 22);
        let mut all = vec![0.0; rows * out];
        products(&mut all, &activations(&x, rows), &[&weights]).unwrap();
        for (x, want) in x.chunks_exact(inp).zip(all.chunks_exact(out)) {
            let mut got = vec![0.0; out];
            products(&mut got, &activations(x, 1), &[&weights]).unwrap();
            assert_eq!(bits(&got), bits(want), "{}", format.name());
        }
    }
}

#[test]
fn several_weights_lie_side_by_side() {
    let (rows, inp) = (3, 256);
    let x = activations(&values(rows * inp, 31), rows);
    let outs = [(Format::Q4_0, 20), (Format::Q6K, 0), (Format::Q6K, 9), (Format::Q8_0, 300), (Format::Q4K, 1)];
    let weights: Vec<Weights> = outs
        .iter()
        .map(|&(format, out)| Weights::new(format, [out, inp], &weight(format, out, inp, out as u32)).unwrap())
        .collect();
    let width: usize = outs.iter().map(|(_, out)| out).sum();
    let mut together = vec![f32::NAN; rows * width];
    products(&mut together, &x, &weights.iter().collect::<Vec<_>>()).unwrap();
    let mut column = 0;
    for weight in &weights {
        let out = weight.shape()[0];
        let mut alone = vec![f32::NAN; rows * out];
        products(&mut alone, &x, &[weight]).unwrap();
        for row in 0..rows {
            assert_eq!(bits(&together[row * width + column..][..out]), bits(&alone[row * out..][..out]));
        }
        column += out;
    }
}

/// A row with a value that is not a number has no numbers as results; the others are what they were.
#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let inp = 256;
    for format in FORMATS {
        let weights = Weights::new(format, [10, inp], &weight(format, 10, inp, 41)).unwrap();
        let mut x = values(3 * inp, 42);
        let mut want = vec![0.0; 30];
        products(&mut want, &activations(&x, 3), &[&weights]).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[inp + 77] = bad;
            for isa in Isa::available() {
                let mut got = vec![0.0; 30];
                products_with(isa, &mut got, &activations(&x, 3), &[&weights]).unwrap();
                assert!(got[10..20].iter().all(|y| y.is_nan()), "{} {isa:?}", format.name());
                assert_eq!(bits(&got[..10]), bits(&want[..10]));
                assert_eq!(bits(&got[20..]), bits(&want[20..]));
            }
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors_and_write_nothing() {
    let weights = Weights::new(Format::Q8_0, [4, 64], &weight(Format::Q8_0, 4, 64, 1)).unwrap();
    let mut y = [7.0; 8];
    let narrow = activations(&[1.0; 32], 1);
    assert_eq!(products(&mut y[..4], &narrow, &[&weights]), Err(Error::Width { weight: [4, 64], columns: 32 }));
    let x = activations(&[1.0; 128], 2);
    assert!(matches!(products(&mut y[..7], &x, &[&weights]), Err(Error::Length { expected: Some(8), found: 7, .. })));
    assert!(matches!(products(&mut y, &x, &[&weights, &weights]), Err(Error::Length { expected: Some(16), .. })));
    assert_eq!(y, [7.0; 8]);
    // No rows, no weights and no columns are products too.
    products(&mut [], &Activations::new(), &[]).unwrap();
    products(&mut [], &x, &[]).unwrap();
    let empty = Weights::new(Format::Q4_0, [3, 0], &[]).unwrap();
    let mut none = Activations::new();
    none.set(&[], 2, 0).unwrap();
    let mut zeros = [1.0; 6];
    products(&mut zeros, &none, &[&empty]).unwrap();
    assert_eq!(zeros, [0.0; 6]);
}

/// One thread, and more than there are pieces.
#[test]
fn the_number_of_threads_changes_nothing() {
    let inp = 512;
    let weights = Weights::new(Format::Q4_1, [150, inp], &weight(Format::Q4_1, 150, inp, 51)).unwrap();
    let x = activations(&values(inp, 52), 1);
    let run = |n| {
        threads::set_threads(n);
        let mut y = vec![0.0; 150];
        products(&mut y, &x, &[&weights]).unwrap();
        bits(&y)
    };
    let (one, five) = (run(1), run(5));
    threads::set_threads(0);
    assert_eq!(one, five);
}
