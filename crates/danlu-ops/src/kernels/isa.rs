//! Which instruction set the kernels of floats use: that of all kernels ([`danlu_quant::Isa`]), as far as it matters to them.

use danlu_quant::Isa as Set;

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
        let mut sets: Vec<Isa> = Set::available().into_iter().map(Isa::from).collect();
        sets.dedup();
        sets
    }

    /// A name for people.
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

    /// The set in use, chosen once: the best, or what `DANLU_KERNEL` asks for.
    pub fn current() -> Isa {
        Set::current().into()
    }
}

impl From<Set> for Isa {
    fn from(set: Set) -> Self {
        match set {
            Set::Portable => Isa::Portable,
            #[cfg(target_arch = "aarch64")]
            Set::Neon | Set::NeonDot => Isa::Neon,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 | Set::AvxVnni => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Avx512Vnni => Isa::Avx512,
        }
    }
}
