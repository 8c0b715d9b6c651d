//! Which instruction set the products use: the best the processor has, or a plainer one that `DANLU_KERNEL` asks for.

use std::sync::OnceLock;

/// An instruction set that the products are written for. All give the same bits.
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
    /// The same in AVX-512's encoding, of vectors of 256 bits.
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
            if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
                sets.push(Isa::Avx512Vnni);
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

    /// A name for people.
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
            Isa::Avx512Vnni => "avx512-vnni",
        }
    }

    /// The set in use, chosen once: the best, unless `DANLU_KERNEL` names a plainer one of these. Other values of the variable are for
    /// the kernels of floats, which report what they do not know.
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let sets = Isa::available();
            let asked = std::env::var("DANLU_KERNEL").unwrap_or_default();
            sets.iter().copied().find(|isa| isa.name() == asked).unwrap_or(sets[sets.len() - 1])
        })
    }
}
