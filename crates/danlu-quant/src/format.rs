//! Which formats there are, and how large their blocks.

/// How the numbers of a weight are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    F32,
    F16,
    Bf16,
    /// 32 values `scale × (q − 8)`, with `q` of four bits.
    Q4_0,
    /// 32 values `scale × q + least`, with `q` of four bits.
    Q4_1,
    /// 32 values `scale × q`, with `q` of eight bits and a sign.
    Q8_0,
    /// 256 values `scale × a × q − least × b`, with `q` of four bits and `a`, `b` of six bits for each 32.
    Q4K,
    /// 256 values `scale × a × (q − 32)`, with `q` of six bits and `a` of eight bits for each 16.
    Q6K,
}

impl Format {
    pub const ALL: [Self; 8] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q4K, Self::Q6K];

    /// Values in a block.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Bytes of a row of `columns` values; none when blocks do not divide it.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        columns.is_multiple_of(self.block()).then(|| (columns / self.block()).checked_mul(self.block_bytes()))?
    }

    /// Whether there are products in integers with it ([`crate::Weights`]).
    pub const fn has_products(self) -> bool {
        crate::layout::block_bytes(self).is_some()
    }

    /// The name ggml gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }
}
