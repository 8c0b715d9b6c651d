//! Prompt tuning (Lester et al. 2021, <https://arxiv.org/abs/2104.08691>): learned vectors that stand before every document.

use burn::module::Param;
use burn::tensor::Tensor;
use danlu_ops::{Ids, LayerCache, Segments};

type Prompt<'a> = Option<&'a Param<Tensor<2>>>;

/// How many vectors there are.
pub(crate) fn len(prompt: Prompt) -> usize {
    prompt.map_or(0, |prompt| prompt.lazy_shape()[0])
}

/// Runs `layers` with the prompt before every segment of `x` `[tokens, hidden]`, and takes its rows out of the result again. Positions
/// count from the prompt's first vector; documents still do not see each other.
pub(crate) fn around(
    prompt: Prompt,
    x: Tensor<2>,
    segments: &Segments,
    layers: impl FnOnce(Tensor<2>, &Segments) -> Tensor<2>,
) -> Tensor<2> {
    let Some(prompt) = prompt else { return layers(x, segments) };
    let count = len(Some(prompt)) as u32;
    // Rows of the prompt and then of x, as rows of one table; and where the rows of x are once the prompts are between them.
    let (mut from, mut back, mut starts) = (vec![], vec![], vec![]);
    for segment in segments.iter() {
        starts.push(from.len() as u32);
        from.extend(0..count);
        back.extend((from.len()..from.len() + segment.len()).map(|i| i as u32));
        from.extend(segment.map(|i| count + i as u32));
    }
    // Rows now differ in length, but a batch of one row and many segments is the same to attention.
    let segments = Segments::new(1, from.len(), starts);
    let table = Tensor::cat(vec![prompt.val().cast(x.dtype()), x], 0);
    let y = layers(danlu_ops::embedding(table, &Ids::from(from)), &segments);
    danlu_ops::embedding(y, &Ids::from(back))
}

/// `x` with the prompt before it when nothing has been read yet.
pub(crate) fn before_first(prompt: Prompt, x: Tensor<2>, caches: &[LayerCache]) -> Tensor<2> {
    match prompt {
        Some(prompt) if caches.iter().all(LayerCache::is_empty) => Tensor::cat(vec![prompt.val().cast(x.dtype()), x], 0),
        _ => x,
    }
}
