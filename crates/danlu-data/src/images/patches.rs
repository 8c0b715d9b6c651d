//! Which patches of a picture are seen.

use crate::sampler::mix;

/// Streams of draws from here on are for patches.
const STREAM: u64 = 1 << 32;

/// The places of `kept` of a picture's `patches`, in their order, each as likely as any other: a function of the seed and the position in the
/// run.
///
/// # Panics
/// When more are to be kept than there are.
pub fn drawn_patches(patches: usize, kept: usize, position: u64, seed: u64) -> Vec<u32> {
    assert!(kept <= patches, "a picture has {patches} patches, of which {kept} cannot be kept");
    let mut places: Vec<u32> = (0..patches as u32).collect();
    for i in 0..kept {
        let other = mix(seed, position, STREAM + i as u64) % (patches - i) as u64;
        places.swap(i, i + other as usize);
    }
    places.truncate(kept);
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_drawn_evenly_and_from_the_position() {
        assert_eq!(drawn_patches(49, 12, 5, 1), drawn_patches(49, 12, 5, 1));
        assert_ne!(drawn_patches(49, 12, 5, 1), drawn_patches(49, 12, 6, 1));
        assert_ne!(drawn_patches(49, 12, 5, 1), drawn_patches(49, 12, 5, 2));
        assert_eq!(drawn_patches(5, 5, 9, 1), [0, 1, 2, 3, 4]);
        assert!(drawn_patches(5, 0, 9, 1).is_empty());
        let mut seen = [0; 10];
        for position in 0..1000 {
            let places = drawn_patches(10, 4, position, 3);
            assert!(places.len() == 4 && places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
            places.into_iter().for_each(|place| seen[place as usize] += 1);
        }
        // 400 each, with a deviation of 15.5.
        assert!(seen.iter().all(|count| (320..480).contains(count)), "{seen:?}");
    }
}
