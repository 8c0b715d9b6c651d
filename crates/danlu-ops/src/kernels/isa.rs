//! Which instruction set the kernels use: the best the processor has, or what `DANLU_KERNEL` asks for.

use std::sync::OnceLock;

/// An instruction set that a kernel is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// All sets this processor has, the plainest first. Tests run every kernel on each of them.
    pub fn available() -> Vec<Isa> {
        let mut sets = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(Isa::Avx2);
            if is_x86_feature_detected!("avx512f") {
                sets.push(Isa::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        sets.push(Isa::Neon);
        sets
    }

    /// The name that `DANLU_KERNEL` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
        }
    }

    /// The set in use, chosen once. `DANLU_KERNEL` may name a plainer one; a name that this processor does not have is
    /// reported on standard error and the best one is used.
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
