"""Compares the losses of learning from preferences with those of TRL, step by step.

    cargo build --release -p danlu-train --example preference
    python tests/peers/trl_preference.py target/release/examples/preference

A small Llama with random weights and random pairs is written; danlu trains it and prints the order of its rows and the loss of every step;
TRL trains the same weights on the same rows in the same order. Losses of 20 steps must agree within 1e-3 for each loss both have. The
reward model starts from a folder that transformers wrote, and the trained one is read and scores there as here.

Needs torch, transformers, tokenizers, datasets and trl.
"""

import json
import pathlib
import random
import sys
import tempfile

import program
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import SequentialSampler
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

BOUND, STEPS, BATCH, RATE, VOCABULARY = 1e-3, 20, 4, 1e-3, 96
END = 1

# Name, danlu's settings, TRL's trainer and configuration.
CASES = [
    ("dpo", ["preference.loss=dpo"], DPOTrainer, DPOConfig, dict(loss_type=["sigmoid"], beta=0.1)),
    ("ipo", ["preference.loss=ipo"], DPOTrainer, DPOConfig, dict(loss_type=["ipo"], beta=0.1)),
    ("hinge", ["preference.loss=hinge"], DPOTrainer, DPOConfig, dict(loss_type=["hinge"], beta=0.1)),
    ("robust", ["preference.loss=robust", "preference.label_smoothing=0.1"], DPOTrainer, DPOConfig,
     dict(loss_type=["robust"], beta=0.1, label_smoothing=0.1)),
    ("simpo", ["preference.loss=simpo", "preference.beta=2", "preference.gamma=1"], CPOTrainer, CPOConfig,
     dict(loss_type="simpo", beta=2.0, simpo_gamma=1.0, cpo_alpha=0.0)),
    ("orpo", ["preference.loss=orpo"], ORPOTrainer, ORPOConfig, dict(beta=0.1)),
    ("kto", ["preference.loss=kto"], KTOTrainer, KTOConfig, dict(loss_type="kto", beta=0.1)),
    ("reward", ["objective.kind=reward", "preference.center=0.05"], RewardTrainer, RewardConfig,
     dict(center_rewards_coefficient=0.05)),
]
# What the trained reward model scores: prompts with answers, all of which end.
SCORED = [[5, 6, 7, END], [8, END], [9, 10, 11, 12, 13, END]]


def word(token):
    # Special tokens are found inside of words, so none may be the beginning of another.
    return {0: "<unk>", END: "<end>", 2: "<pad>", VOCABULARY - 1: "<|endoftext|>"}.get(token, f"t{token}")


def tokenizer_of():
    words = {word(token): token for token in range(VOCABULARY)}
    raw = Tokenizer(models.WordLevel(words, unk_token=word(0)))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=word(END), pad_token=word(2), unk_token=word(0))


def rows_of(name, rng):
    def tokens(count):
        return [rng.randrange(3, VOCABULARY - 1) for _ in range(count)]

    rows = []
    for i in range(24):
        # TRL's orpo counts the prompt among the answer and means over all tokens of a batch: with prompts of one token and answers of one
        # length both come to the mean over each answer.
        prompt = tokens(1 if name == "orpo" else rng.randrange(2, 8))
        length = (lambda: 7) if name == "orpo" else (lambda: rng.randrange(3, 12))
        chosen, rejected = tokens(length()) + [END], tokens(length()) + [END]
        rows.append({"prompt": prompt, "answer": chosen, "good": i % 3 != 0} if name == "kto"
                    else {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def text(ids):
    return "".join(f"{word(token)} " for token in ids)


def of_trl(name, folder, rows, order, trainer_type, config_type, settings, tokenizer):
    def row(i):
        one = rows[i]
        # The trainers put the end there themselves.
        words = {key: text(one[key]).strip() for key in one if key != "good"}
        words["prompt"] += " "
        if name == "kto":
            return {"prompt": words["prompt"], "completion": words["answer"], "label": one["good"]}
        return words

    data = Dataset.from_list([row(i) for i in order])

    class InOrder(trainer_type):
        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as out:
        config = config_type(
            output_dir=out, per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE, lr_scheduler_type="constant",
            warmup_steps=0, weight_decay=0.0, max_grad_norm=0.0, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, logging_steps=1,
            report_to=[], save_strategy="no", max_length=64, use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False,
            disable_tqdm=True, disable_dropout=True, **settings)
        kind = LlamaForSequenceClassification if name == "reward" else LlamaForCausalLM
        model = kind.from_pretrained(folder, dtype=torch.float32)
        trainer = InOrder(model=model, args=config, train_dataset=data, processing_class=tokenizer)
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main(binary):
    tokenizer = tokenizer_of()
    worst = 0.0
    for seed, (name, settings, trainer, config, theirs) in enumerate(CASES):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        kind = LlamaForSequenceClassification if name == "reward" else LlamaForCausalLM
        model = kind(LlamaConfig(
            num_labels=1 if name == "reward" else 2, vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, initializer_range=0.1, eos_token_id=END, pad_token_id=2))
        rows = rows_of(name, rng)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
            settings = [*settings, f"budget.steps={STEPS}", f"batch.examples={BATCH}", f"optimizer.rate={RATE}", f"optimizer.embedding_rate={RATE}"]
            first, *steps = program.rows(binary, folder, folder / "pairs.jsonl", *settings)
            if name == "reward":
                last = steps.pop()
                read = LlamaForSequenceClassification.from_pretrained(last["folder"], dtype=torch.float32)
                longest = max(map(len, SCORED))
                padded = torch.tensor([ids + [2] * (longest - len(ids)) for ids in SCORED])
                theirs_scores = read(input_ids=padded, attention_mask=(padded != 2).long()).logits[:, 0].tolist()
                apart = max(abs(a - b) for a, b in zip(last["scores"], theirs_scores))
                print(f"reward   the trained model's scores there and here differ by at most {apart:.1e}", flush=True)
                worst = max(worst, apart)
            ours = [step["loss"] for step in steps]
            reference = of_trl(name, folder, rows, first["order"], trainer, config, theirs, tokenizer)
        assert len(ours) == len(reference) == STEPS, (len(ours), len(reference))
        gap = max(abs(a - b) for a, b in zip(ours, reference))
        worst = max(worst, gap)
        print(f"{name:8} loss {ours[0]:.4f} to {ours[-1]:.4f}; TRL {reference[0]:.4f} to {reference[-1]:.4f}; largest difference {gap:.1e}", flush=True)
    print(f"worst {worst:.1e}, bound {BOUND:.0e}")
    sys.exit(0 if worst <= BOUND else "the losses differ")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
