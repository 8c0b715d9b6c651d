/// How the channels of packed queries, keys and values are divided: `heads` query heads, then `kv_heads` key heads, then
/// `kv_heads` value heads, each of `head_dim` channels. With fewer key heads than query heads, query head `h` reads key
/// head `h / group()` ("GQA", Ainslie et al. 2023, <https://arxiv.org/abs/2305.13245>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels of one head.
    pub head_dim: usize,
}

impl Heads {
    /// Channels of the packed queries, keys and values.
    pub fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Channels of the queries, which are also those of attention's output.
    pub fn q(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Channels of the keys, and of the values.
    pub fn kv(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    pub(crate) fn check(&self, qkv_channels: usize) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "{} query heads cannot share {} key heads evenly",
            self.heads,
            self.kv_heads
        );
        assert_eq!(qkv_channels, self.qkv(), "qkv has {qkv_channels} channels, {self:?} needs {}", self.qkv());
    }
}
