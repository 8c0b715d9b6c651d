//! A fast 64-bit hash for words and n-grams, the same on every machine. It is folded multiplication, as in wyhash; it does not resist
//! an adversary, and where that matters (exact duplicates, manifests) BLAKE3 is used.

const KEYS: [u64; 4] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

/// Mixes two words into one.
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ KEYS[0]) * u128::from(b ^ KEYS[1]);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hashes bytes.
pub(crate) fn bytes(text: &[u8]) -> u64 {
    let mut state = KEYS[2] ^ text.len() as u64;
    let (chunks, rest) = text.as_chunks::<8>();
    for chunk in chunks {
        state = fold(state, u64::from_le_bytes(*chunk));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = fold(state, u64::from_le_bytes(last) ^ KEYS[3]);
    }
    state
}

/// Hashes of all runs of `n` values, each computed from the one before by a rolling polynomial.
pub(crate) fn windows(values: &[u64], n: usize) -> impl Iterator<Item = u64> {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    let top = BASE.wrapping_pow(n as u32);
    let mut state = 0u64;
    values.iter().enumerate().filter_map(move |(i, value)| {
        state = state.wrapping_mul(BASE).wrapping_add(*value);
        if i >= n {
            state = state.wrapping_sub(values[i - n].wrapping_mul(top));
        }
        (i + 1 >= n).then(|| fold(state, n as u64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_windows_hash_equally_wherever_they_are() {
        let values: Vec<u64> = "the cat saw the cat run".split(' ').map(|word| bytes(word.as_bytes())).collect();
        let pairs: Vec<_> = windows(&values, 2).collect();
        assert_eq!(pairs.len(), 5);
        assert_eq!(pairs[0], pairs[3]);
        assert_eq!(pairs.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert_eq!(windows(&values, 7).count(), 0);
        let moved: Vec<_> = windows(&values[1..], 5).collect();
        assert_eq!(moved[0], windows(&values, 5).nth(1).unwrap());
    }

    #[test]
    fn every_bit_of_the_input_matters() {
        let text = *b"seventeen letters";
        let base = bytes(&text);
        for bit in 0..text.len() * 8 {
            let mut other = text;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!((bytes(&other) ^ base).count_ones() > 8, "bit {bit}");
        }
        assert_ne!(bytes(b"a"), bytes(b"a\0"));
    }
}
