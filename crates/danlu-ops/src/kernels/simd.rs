//! Element-wise kernels without intrinsics: a loop is written once in plain Rust and compiled for every instruction set.

/// Defines functions that are compiled once for each instruction set and take the [`Isa`](super::Isa) to run on as their first argument.
///
/// The body may use `FMA`, a constant that says whether the set has a fused multiply-add; it passes it on as `fma::<FMA>(a, b, c)`.
/// Functions that the body calls must be `#[inline(always)]`, or they would be compiled for the plain set.
macro_rules! simd_fn {
    ($($(#[$attribute:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$attribute])*
        $vis fn $name(isa: $crate::kernels::Isa, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(unused)]
            fn body<const FMA: bool>($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
            fn avx512($($arg: $type),*) $(-> $result)? {
                body::<true>($($arg),*)
            }
            match isa {
                $crate::kernels::Isa::Portable => body::<false>($($arg),*),
                #[cfg(target_arch = "aarch64")]
                $crate::kernels::Isa::Neon => body::<true>($($arg),*),
                // SAFETY: an `Isa` other than the portable one is only made where the processor has it.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Isa::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    )*};
}
pub(crate) use simd_fn;

/// a·b + c, in one instruction where there is one. Without it the plain form is used: the exact one would be a library call.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// e^x to about 2 units in the last place; 0 below -87, infinity is not reached (3.2e38 above 88.7), NaN stays NaN. Cephes' `expf`.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves the nearest integer in the low bits
    let high = if x > 88.7 { 88.7 } else { x };
    let t = fma::<FMA>(high, std::f32::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, high);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = fma::<FMA>(p, r, 1.398_199_9e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 0.166_666_65);
    p = fma::<FMA>(p, r, 0.5);
    let p = fma::<FMA>(p * r, r, r + 1.0);
    // 2^n in two factors, since 2^128 has no float of its own.
    let n = (t.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let value = p * power(half) * power(n.wrapping_sub(half));
    if x < -87.0 { 0.0 } else { value }
}

/// ln(x) of a normal number above zero, to about 1e-7 of it or, near one, of `x - 1`. Cephes' `logf`.
#[inline(always)]
pub fn ln<const FMA: bool>(x: f32) -> f32 {
    // x = m · 2^n with m from sqrt(1/2) to sqrt(2): what is added to the bits carries into the exponent where the mantissa is larger.
    const HALF_ROOT: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_add(0x3f80_0000 - HALF_ROOT);
    let n = ((bits >> 23) as i32 - 127) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff) + HALF_ROOT) - 1.0;
    let s = m * m;
    let mut p = 7.037_683_6e-2;
    p = fma::<FMA>(p, m, -0.115_146_1);
    p = fma::<FMA>(p, m, 0.116_769_99);
    p = fma::<FMA>(p, m, -0.124_201_41);
    p = fma::<FMA>(p, m, 0.142_493_23);
    p = fma::<FMA>(p, m, -0.166_680_57);
    p = fma::<FMA>(p, m, 0.200_007_15);
    p = fma::<FMA>(p, m, -0.249_999_94);
    p = fma::<FMA>(p, m, 0.333_333_3);
    let p = fma::<FMA>(p * m, s, fma::<FMA>(n, -2.121_944_4e-4, -0.5 * s));
    fma::<FMA>(n, 0.693_359_4, m + p)
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// The hyperbolic tangent, to about 1e-7.
#[inline(always)]
pub fn tanh<const FMA: bool>(x: f32) -> f32 {
    // tanh is odd, and e^(-2|x|) cannot overflow. Near 0 the difference 1 - e loses digits, so the series takes over.
    let e = exp::<FMA>(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    let s = x * x;
    let near = x * fma::<FMA>(fma::<FMA>(fma::<FMA>(-17.0 / 315.0, s, 2.0 / 15.0), s, -1.0 / 3.0), s, 1.0);
    if x.abs() < 0.2 { near } else { far }
}

/// The error function, to about 1e-7: a polynomial near 0, and `1 - e^p` with a polynomial p beyond.
#[inline(always)]
pub fn erf<const FMA: bool>(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let mut far = fma::<FMA>(-1.728_534_7e-5, t, 3.831_971_3e-4);
    far = fma::<FMA>(far, s, fma::<FMA>(-3.883_964_4e-3, t, 2.425_462_2e-2));
    far = fma::<FMA>(far, t, -0.106_777_88);
    far = fma::<FMA>(far, t, -0.634_846_7);
    far = fma::<FMA>(far, t, -0.128_717_51);
    far = fma::<FMA>(far, t, -t);
    let far = (1.0 - exp::<FMA>(far)).copysign(x);
    let mut near = -5.967_617e-4;
    near = fma::<FMA>(near, s, 4.991_194_2e-3);
    near = fma::<FMA>(near, s, -2.676_813_5e-2);
    near = fma::<FMA>(near, s, 0.112_819_925);
    near = fma::<FMA>(near, s, -0.376_125_34);
    near = fma::<FMA>(near, s, 0.128_379_17);
    let near = fma::<FMA>(near, x, x);
    if t > 0.927_734_4 { far } else { near }
}

/// Lanes of a reduction: fixed, so that sums are taken in the same order on every instruction set.
const LANES: usize = 32;

/// Folds `f(sum, i)` over `0..n` in 32 interleaved lanes, then adds the lanes up in a fixed order.
#[inline(always)]
pub fn sum_by(n: usize, f: impl Fn(f32, usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum = f(*sum, i + lane);
        }
        i += LANES;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    (whole..n).fold(lanes[0], f)
}

/// Σ a·b; both slices must be of one length.
#[inline(always)]
pub fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    sum_by(a.len(), |sum, i| fma::<FMA>(a[i], b[i], sum))
}

/// Σ x
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    sum_by(x.len(), |sum, i| sum + x[i])
}

/// The largest element; -∞ of none. NaN is passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(x, *lane);
        }
    }
    lanes.iter().chain(chunks.remainder()).copied().fold(f32::NEG_INFINITY, larger)
}

simd_fn! {
    /// x ← e^(x - shift) in place; returns the sum.
    pub fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
        for x in x.iter_mut() {
            *x = exp::<FMA>(*x - shift);
        }
        sum(x)
    }

    /// The largest element.
    pub fn row_max(x: &[f32]) -> f32 {
        max(x)
    }

    /// Σ a·b.
    pub fn row_dot(a: &[f32], b: &[f32]) -> f32 {
        dot::<FMA>(a, b)
    }

    /// x ← x·factor.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x.iter_mut() {
            *x *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    simd_fn! {
        fn map_all(x: &[f32], exps: &mut [f32], tanhs: &mut [f32]) {
            for i in 0..x.len() {
                exps[i] = exp::<FMA>(x[i]);
                tanhs[i] = tanh::<FMA>(x[i]);
            }
        }
    }

    #[test]
    fn exp_and_tanh_agree_with_the_library() {
        let x: Vec<f32> = (-90_000..89_000).map(|i| i as f32 * 1e-3 + 1e-4).collect();
        let (mut exps, mut tanhs) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for isa in Isa::available() {
            map_all(isa, &x, &mut exps, &mut tanhs);
            for ((&x, &e), &t) in x.iter().zip(&exps).zip(&tanhs) {
                if (-87.0..88.7).contains(&x) {
                    let want = f64::from(x).exp();
                    assert!((f64::from(e) - want).abs() <= 3e-7 * want, "{isa:?} e^{x} = {want}, not {e}");
                }
                let want = f64::from(x).tanh();
                assert!((f64::from(t) - want).abs() <= 5e-7 * want.abs().max(1e-3), "{isa:?} tanh {x} = {want}, not {t}");
            }
            let special = [f32::NAN, f32::NEG_INFINITY, -100.0, 0.0];
            let (mut e, mut t) = ([1.0; 4], [1.0; 4]);
            map_all(isa, &special, &mut e, &mut t);
            assert!(e[0].is_nan() && t[0].is_nan());
            assert_eq!((&e[1..], &t[1..]), (&[0.0, 0.0, 1.0][..], &[-1.0, -1.0, 0.0][..]));
        }
    }

    simd_fn! {
        fn ln_all(x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = ln::<FMA>(x);
            }
        }
    }

    #[test]
    fn ln_agrees_with_the_library() {
        let mut x: Vec<f32> = (-8700..8800).map(|i| (i as f32 * 1e-2).exp()).collect();
        x.extend((1..4000).map(|i| i as f32 * 5e-4));
        x.extend([f32::MIN_POSITIVE, f32::MAX, 1.0]);
        let mut y = vec![0.0; x.len()];
        for isa in Isa::available() {
            ln_all(isa, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y).filter(|(x, _)| x.is_normal()) {
                let want = f64::from(x).ln();
                assert!((f64::from(y) - want).abs() <= 2e-7 * want.abs(), "{isa:?} ln {x} = {want}, not {y}");
            }
        }
    }

    simd_fn! {
        fn erf_all(x: &[f32], y: &mut [f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = erf::<FMA>(x);
            }
        }
    }

    #[test]
    fn erf_agrees_with_its_series() {
        let series = |x: f64| {
            let mut term = x;
            let mut sum = x;
            for n in 1..120 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        };
        let x: Vec<f32> = (-3500..3500).map(|i| i as f32 * 1e-3 + 1e-5).collect();
        let mut y = vec![0.0; x.len()];
        for isa in Isa::available() {
            erf_all(isa, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let want = series(f64::from(x));
                assert!((f64::from(y) - want).abs() <= 3e-7 * want.abs() + 1e-9, "{isa:?} erf {x} = {want}, not {y}");
            }
            let mut far = [0.0; 6];
            erf_all(isa, &[4.0, -5.0, 30.0, -1e30, f32::INFINITY, f32::NAN], &mut far);
            assert_eq!(far[..5], [1.0, -1.0, 1.0, -1.0, 1.0]);
            assert!(far[5].is_nan());
        }
    }

    #[test]
    fn reductions_of_any_length() {
        for n in [0, 1, 5, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            for isa in Isa::available() {
                assert_eq!(row_dot(isa, &x, &x), x.iter().map(|x| x * x).sum::<f32>());
                assert_eq!(row_max(isa, &x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }
}
