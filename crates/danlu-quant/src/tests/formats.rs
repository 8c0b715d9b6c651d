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
}

/// Uniform values lose a step over √12 in the mean, and a little to scales of six and eight bits; none is farther off than two steps and a half.
#[test]
fn searches_find_scales_that_lose_little() {
    let count = if cfg!(miri) { 256 } else { 64 * 256 * 3 };
    let values = values(count, 4);
    for (format, step) in [(Format::Q4K, 3.0 / 15.0), (Format::Q6K, 1.5 / 32.0)] {
        let mut bytes = vec![7];
        quantize(format, &values, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes.len()), (7, 1 + format.row_bytes(count).unwrap()), "what was there stays");
        let mut back = vec![0.0; count];
        dequantize(format, &bytes[1..], &mut back);
        let gaps = || values.iter().zip(&back).map(|(a, b)| (a - b).abs());
        let mean = (gaps().map(|gap| gap * gap).sum::<f32>() / count as f32).sqrt();
        assert!(mean < 1.3 * step / 12f32.sqrt(), "{}: {mean}", format.name());
        assert!(gaps().all(|gap| gap < 2.5 * step), "{}", format.name());
    }
    // Blocks of one value, of either sign, and of one that is alone, are as good as exact.
    for value in [1.0f32, -1.0, 3.0e4, -1.0e-2] {
        for format in [Format::Q4K, Format::Q6K] {
            for others in [value, 0.0] {
                let mut block = [others; 256];
                block[37] = value;
                let (mut bytes, mut back) = (vec![], [0.0; 256]);
                quantize(format, &block, &mut bytes).unwrap();
                dequantize(format, &bytes, &mut back);
                let worst = block.iter().zip(back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 0.02 * value.abs(), "{} of {value} among {others}: {worst}", format.name());
            }
        }
    }
}

#[test]
fn blocks_of_zeros_stay_zero() {
    for format in [Format::Q4_0, Format::Q4_1, Format::Q8_0, Format::Q4K, Format::Q6K] {
        let mut bytes = vec![];
        quantize(format, &[0.0; 256], &mut bytes).unwrap();
        let mut back = [1.0; 256];
        dequantize(format, &bytes, &mut back);
        assert_eq!(back, [0.0; 256], "{}", format.name());
    }
}
