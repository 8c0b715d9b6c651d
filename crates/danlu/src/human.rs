//! Numbers as people read them.

use std::time::Duration;

/// `1.5 GB`, in powers of ten as disks are sold.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// `13.8 M`: parameters, tokens.
pub fn count(n: f64) -> String {
    scaled(n, &["", "k", "M", "G", "T"]).trim_end().to_string()
}

/// `110 GFLOP/s` and the like.
pub fn flops(n: f64) -> String {
    scaled(n, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"])
}

fn scaled(mut n: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while n >= 999.5 && unit + 1 < units.len() {
        n /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || n >= 99.95 { 0 } else { 1 };
    format!("{n:.digits$} {}", units[unit])
}

/// `1,409`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12 s`, `4:05`, `1:02:03`, `3 d 04:00`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 10.0 {
        return format!("{s:.1} s");
    }
    let s = s.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{}:{:02}", s / 60, s % 60),
        3600..86_400 => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
        _ => format!("{} d {:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60),
    }
}

/// [`duration`] of seconds; what is not a time is a dash.
pub fn seconds(s: f64) -> String {
    Duration::try_from_secs_f64(s).map_or("–".to_string(), duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let check = |is: String, want: &str| assert_eq!(is, want);
        check(bytes(0), "0 B");
        check(bytes(999), "999 B");
        check(bytes(1_000), "1.0 kB");
        check(bytes(999_999), "1.0 MB");
        check(bytes(123_456_789), "123 MB");
        check(count(13_770_000.0), "13.8 M");
        check(count(950.0), "950");
        check(flops(1.1e11), "110 GFLOP");
        check(thousands(0), "0");
        check(thousands(1_234_567), "1,234,567");
        check(seconds(3.25), "3.2 s");
        check(seconds(59.6), "1:00");
        check(seconds(3_723.0), "1:02:03");
        check(seconds(f64::NAN), "–");
    }
}
