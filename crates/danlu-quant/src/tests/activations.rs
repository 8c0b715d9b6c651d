use super::*;
use crate::{Activations, Error, Isa};

#[test]
fn values_are_off_by_half_a_step_at_most() {
    let (rows, columns) = (3, 96);
    let mut x = values(rows * columns, 5);
    // A block of one large value, one of zeros, one of halves of a step, and one too small for normal numbers.
    x[32..64].fill(0.25);
    x[40] = -1e6;
    x[64..96].fill(0.0);
    x[96..128].iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 + 0.5);
    x[100] = 127.0;
    x[128..160].fill(1e-40);
    let mut held = Activations::new();
    held.set(&x, rows, columns).unwrap();
    for (block, back) in x.chunks_exact(32).zip(held.values().chunks_exact(32)) {
        let largest = block.iter().fold(0.0f32, |far, x| far.max(x.abs()));
        for (x, back) in block.iter().zip(back) {
            assert!((x - back).abs() <= largest / 254.0 * 1.0001 + f32::MIN_POSITIVE, "{x} became {back} beside {largest}");
        }
    }
}

#[test]
fn all_sets_give_the_same_bytes() {
    let (rows, columns) = if cfg!(miri) { (2, 64) } else { (37, 1056) };
    let x = values(rows * columns, 9);
    let mut want = Activations::new();
    want.set_with(Isa::Portable, &x, rows, columns).unwrap();
    for isa in Isa::available() {
        let mut got = Activations::new();
        got.set_with(isa, &x, rows, columns).unwrap();
        for row in 0..rows {
            assert_eq!(got.row(row), want.row(row), "{isa:?}");
            let (bytes, scales) = got.row(row);
            for (bytes, scale) in bytes.chunks_exact(32).zip(scales) {
                let sum = |bytes: &[i8]| bytes.iter().map(|b| i32::from(*b)).sum::<i32>();
                assert_eq!(scale.sum, sum(bytes));
                assert_eq!(scale.halves.map(i32::from), [sum(&bytes[..16]), sum(&bytes[16..])]);
                assert_eq!(scale.scaled_sum, scale.scale * scale.sum as f32);
                assert!(!bytes.contains(&i8::MIN));
            }
        }
    }
}

#[test]
fn memory_is_used_again() {
    let mut x = Activations::new();
    x.set(&[1.0; 128], 2, 64).unwrap();
    x.set(&[2.0; 32], 1, 32).unwrap();
    assert_eq!((x.rows(), x.columns(), x.values()), (1, 32, vec![2.0; 32]));
    x.set(&[3.0; 128], 4, 32).unwrap();
    assert_eq!(x.values(), vec![3.0; 128]);
}

#[test]
fn other_sizes_are_refused_and_nothing_stays() {
    let mut x = Activations::new();
    x.set(&[1.0; 64], 1, 64).unwrap();
    assert!(matches!(x.set(&[1.0; 48], 1, 48), Err(Error::Columns { columns: 48, .. })));
    assert_eq!(x.rows(), 0);
    assert!(matches!(x.set(&[1.0; 63], 2, 32), Err(Error::Length { expected: Some(64), found: 63, .. })));
    assert!(matches!(x.set(&[], usize::MAX, 32), Err(Error::Length { expected: None, .. })));
}
