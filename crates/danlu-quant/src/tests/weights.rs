use super::*;
use crate::{Error, Weights, dequantize};

/// Nothing is lost: rows come back as they were, in bytes and in values.
#[test]
fn rows_come_back_as_they_were() {
    for format in FORMATS {
        for (out, blocks) in [(1, 1), (8, 2), (13, 3), (16, 1)] {
            let inp = blocks * format.block();
            let bytes = weight(format, out, inp, 7);
            let weights = Weights::new(format, [out, inp], &bytes).unwrap();
            assert_eq!((weights.format(), weights.shape()), (format, [out, inp]));
            let size = format.row_bytes(inp).unwrap();
            for row in 0..out {
                let want = &bytes[row * size..][..size];
                assert_eq!(weights.row_bytes(row).unwrap(), want, "{} row {row}", format.name());
                let (mut got, mut floats) = (vec![0.0; inp], vec![0.0; inp]);
                weights.row(row, &mut got).unwrap();
                dequantize(format, want, &mut floats);
                assert_eq!(bits(&got), bits(&floats));
            }
            assert!(out % 8 != 0 || weights.memory() * 36 <= bytes.len() * 37, "{} takes too much room", format.name());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for format in FORMATS {
        let inp = format.block();
        let bytes = weight(format, 3, inp, 1);
        let new = |shape, bytes| Weights::new(format, shape, bytes).map(|_| ());
        let found = bytes.len();
        assert!(matches!(new([3, inp], &bytes[1..]), Err(Error::Length { expected: Some(e), .. }) if e == found));
        assert!(matches!(new([2, inp], &bytes), Err(Error::Length { .. })));
        assert!(matches!(new([3, inp + 8], &bytes), Err(Error::Columns { .. })));
        assert!(matches!(new([usize::MAX, inp], &bytes), Err(Error::Length { expected: None, .. })));
        assert!(matches!(new([1, usize::MAX / inp * inp], &bytes), Err(Error::Columns { .. } | Error::Length { .. })));
        let weights = Weights::new(format, [3, inp], &bytes).unwrap();
        assert!(matches!(weights.row_bytes(3), Err(Error::Row { row: 3, rows: 3 })));
        assert!(matches!(weights.row(0, &mut [0.0; 5]), Err(Error::Length { .. })));
    }
    for format in [Format::F32, Format::F16, Format::Bf16] {
        assert_eq!(Weights::new(format, [1, 1], &[0; 4]).unwrap_err(), Error::NoProducts(format));
    }
}

/// People read what is wrong.
#[test]
fn errors_say_what_and_where() {
    let error = Weights::new(Format::Q4_0, [2, 32], &[0; 35]).unwrap_err().to_string();
    assert_eq!(error, "a weight of the shape 2×32 has a length of 36, not 35");
    let error = Weights::new(Format::Q4K, [2, 576], &[]).unwrap_err().to_string();
    assert_eq!(error, "rows of 576 values are no whole blocks of Q4_K (256 values each)");
}
