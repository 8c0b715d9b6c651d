//! How each recipe is made small. To cover a new one, add its row below what it starts from: what it reads, of the files of `data.rs`, and the
//! keys that keep its network and its batches small. Where its steps take less than a millisecond, give it more of them.

/// A recipe and what is changed of it.
pub struct Row {
    /// The file's name in `recipes/`, without its end.
    pub recipe: &'static str,
    /// `key=value` with spaces between, after those of [`ALL`]. Paths are those of `data.rs`.
    pub sets: &'static str,
}

/// What is changed of all recipes. Checkpoints come between the interruption and the kill, and behind both.
pub const ALL: &str =
    "budget.steps=24 checkpoint.every=5 data.held_out=0.2 eval.every=100000 eval.tokens=64 eval.final_tokens=64 sample.tokens=2";

/// Scenes made of a few things, and a network for them.
const CUTOUTS: &str = "data.sources=cutouts scene.held_out=8 image.size=16,16 vit.patch=8 model.layers=1 model.hidden=16 model.heads=2 \
                       model.intermediate=16 batch.examples=4";

const fn row(recipe: &'static str, sets: &'static str) -> Row {
    Row { recipe, sets }
}

/// In the order in which they are trained: a model is there under its recipe's name for the rows below. `up` stands for every model that is
/// fetched.
pub const ROWS: &[Row] = &[
    // Texts.
    row("up", "data.sources=texts model.layers=2 model.hidden=32 model.context=64 tokenizer.vocabulary=300 batch.tokens=256"),
    row(
        "news-zh",
        "data.sources=texts model.layers=1 model.hidden=16 model.context=64 tokenizer.vocabulary=300 batch.tokens=256",
    ),
    row(
        "2013-word2vec",
        "data.sources=texts model.hidden=8 batch.tokens=256 sample.prompts=let budget.steps=400 checkpoint.every=40",
    ),
    row("2018-gpt", "data.sources=texts model.size=10k model.context=64 tokenizer.vocabulary=300 batch.tokens=256"),
    row("2018-bert", "data.sources=texts model.size=10k model.context=64 tokenizer.vocabulary=300 batch.tokens=256"),
    row(
        "l1-office",
        "data.sources=texts data.weights= data.replay=others model.from=up model.context=64 batch.tokens=512 gate.target=texts \
         gate.general=talks.jsonl:answer-bits-per-byte gate.also=more.jsonl:answer-bits-per-byte gate.items=4",
    ),
    // Conversations.
    row("up-chat", "data.sources=talks.jsonl batch.tokens=256 gate.also=texts gate.items=4"),
    row("sft", "data.sources=talks.jsonl model.from=up batch.tokens=256"),
    row("lora", "data.sources=talks.jsonl model.from=up batch.tokens=256 adapter.rank=2"),
    row("qlora", "data.sources=talks.jsonl model.from=up batch.tokens=256 adapter.rank=2"),
    row("distill", "data.sources=talks.jsonl distill.teacher=up-chat distill.layers=1 model.context=64 batch.tokens=256"),
    row(
        "l2-office-qa",
        "data.sources=talks.jsonl data.replay=more.jsonl model.from=office@1 model.context=64 batch.tokens=256 gate.target=talks.jsonl:rouge-l \
         gate.general=texts gate.also=talks.jsonl:answer-bits-per-byte gate.items=4 gate.answer_tokens=2",
    ),
    // Preferences.
    row("up-aligned", "data.sources=pairs.jsonl gate.also=texts,pairs.jsonl:preference-accuracy gate.items=4"),
    row("dpo", "data.sources=pairs.jsonl model.from=up model.context=64"),
    row("reward", "data.sources=pairs.jsonl model.from=up model.context=64 batch.examples=4"),
    // Questions.
    row("grpo", "data.sources=sums.jsonl model.from=up rl.samples=2 rl.max_tokens=4 batch.examples=4"),
    row("rloo", "data.sources=sums.jsonl model.from=up rl.samples=2 rl.max_tokens=4 batch.examples=4"),
    row("ppo", "data.sources=sums.jsonl model.from=up rl.max_tokens=4 batch.examples=4"),
    // Labels.
    row("2018-gpt-task", "data.sources=labels.jsonl model.context=32 batch.examples=8"),
    row("sentiment", "data.sources=labels.jsonl model.context=32 batch.examples=8"),
    // Translation.
    row(
        "2017-transformer",
        "data.sources=paragraphs.jsonl tokenizer.vocabulary=320 model.layers=1 model.hidden=16 model.heads=2 model.intermediate=16 \
         batch.examples=8 eval.tokens=20 translate.beam=2",
    ),
    // Pictures.
    row("1998-lenet5", "data.sources=clothes lenet.channels=2,3 lenet.hidden=8 batch.examples=4"),
    row("1998-lenet5-modern", "data.sources=clothes lenet.channels=4,4 lenet.hidden=8 batch.examples=4"),
    row("2014-gan", "data.sources=clothes gan.latent=4 gan.widths=8,8 gan.scored=16 batch.examples=8 sample.every=20"),
    row("2015-dcgan", "data.sources=clothes gan.latent=4 gan.widths=4,4 gan.scored=16 batch.examples=8 sample.every=20"),
    row(
        "2021-mae",
        "data.sources=clothes model.layers=1 model.hidden=16 model.heads=2 model.intermediate=16 mae.hidden=16 batch.examples=4",
    ),
    row("2020-vit-detect", CUTOUTS),
    row("2020-vit-segment", CUTOUTS),
    row("2020-vit-pose", CUTOUTS),
    row(
        "2020-vit-faces",
        "data.sources=cutouts embed.identity=stamp embed.size=8 image.size=16,16 vit.patch=8 model.layers=1 model.hidden=16 model.heads=2 \
         model.intermediate=16 batch.examples=32 embed.scale=4",
    ),
    row(
        "2020-vit",
        "data.sources=clothes model.from=mae model.layers=1 model.hidden=16 model.heads=2 model.intermediate=16 batch.examples=4",
    ),
    row("pictures-ways", "data.sources=clothes classify.way=features image.limit=30 batch.examples=4"),
];
