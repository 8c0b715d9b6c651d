use super::values;
use crate::{Format, dequantize, quantize};

/// The values read back differ by no more than the format's step.
#[test]
fn what_is_quantized_is_near_what_it_was() {
    let values = values(256, 1);
    let range = 1.5;
    for (format, step) in [
        (Format::F32, 0.0),
        (Format::F16, range / 2048.0),
        (Format::Bf16, range / 256.0),
        (Format::Q8_0, range / 127.0),
        (Format::Q4_1, 2.0 * range / 15.0 * 0.51),
        // The end of the range with the other sign is cut off at seven eighths.
        (Format::Q4_0, range / 8.0 * 1.01),
    ] {
        let mut bytes = vec![];
        quantize(format, &values, &mut bytes).unwrap();
        assert_eq!(bytes.len(), format.row_bytes(256).unwrap(), "{}", format.name());
        let mut back = vec![0.0; 256];
        dequantize(format, &bytes, &mut back);
        let worst = values.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= step, "{}: {worst} over {step}", format.name());
        // What lies on the grid stays where it is.
        let mut again = vec![];
        quantize(format, &back, &mut again).unwrap();
        let mut twice = vec![0.0; 256];
        dequantize(format, &again, &mut twice);
        let moved = back.iter().zip(&twice).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(moved <= range / 500.0, "{}: {moved}", format.name());
    }
}

#[test]
fn rows_that_blocks_do_not_divide_are_refused() {
    for format in [Format::Q4_0, Format::Q8_0, Format::Q4K] {
        assert_eq!(format.row_bytes(48), None);
        assert!(quantize(format, &values(48, 1), &mut vec![]).is_none());
    }
    assert!(quantize(Format::Q6K, &values(256, 1), &mut vec![]).is_none());
}

#[test]
fn blocks_of_zeros_stay_zero() {
    for format in [Format::Q4_0, Format::Q4_1, Format::Q8_0] {
        let mut bytes = vec![];
        quantize(format, &[0.0; 32], &mut bytes).unwrap();
        let mut back = [1.0; 32];
        dequantize(format, &bytes, &mut back);
        assert_eq!(back, [0.0; 32], "{}", format.name());
    }
}
