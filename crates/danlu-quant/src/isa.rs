//! Which instruction set all kernels use, here and above: the best the processor has, or a plainer one that `DANLU_KERNEL` asks for.

use std::sync::OnceLock;

/// An instruction set that kernels are written for. Products in integers give the same bits with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with products of four bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 with products of four bytes: AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 F, which kernels of floats use; products in integers are those of AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 F, and products of four bytes in its encoding, of vectors of 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Isa {
    /// All sets this processor has, the plainest first. Tests run every kernel on each of them.
    pub fn available() -> Vec<Isa> {
        let mut sets = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            sets.push(Isa::Avx2);
            if is_x86_feature_detected!("avxvnni") {
                sets.push(Isa::AvxVnni);
            }
            if is_x86_feature_detected!("avx512f") {
                sets.push(Isa::Avx512);
                if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
                    sets.push(Isa::Avx512Vnni);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            sets.push(Isa::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                sets.push(Isa::NeonDot);
            }
        }
        sets
    }

    /// The name that `DANLU_KERNEL` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => "neon-dot",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => "avx512-vnni",
        }
    }

    /// The set in use, chosen once. `DANLU_KERNEL` may name a plainer one; a name that this processor does not have is reported on standard
    /// error and the best one is used.
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let sets = Isa::available();
            let best = sets[sets.len() - 1];
            let Ok(asked) = std::env::var("DANLU_KERNEL") else { return best };
            sets.iter().copied().find(|isa| isa.name() == asked).unwrap_or_else(|| {
                let names: Vec<_> = sets.iter().map(|isa| isa.name()).collect();
                eprintln!("DANLU_KERNEL={asked} is not one of {}; using {}", names.join(", "), best.name());
                best
            })
        })
    }
}
