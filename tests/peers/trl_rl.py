"""Compares advantages, ratios and losses of reinforcement learning with those of TRL on fixed batches.

    cargo build --release --workspace --examples
    python tests/peers/trl_rl.py target/release/examples/rl [PPO]

Three small Llamas with random weights are written: the start model, the one that drew the answers, and the one that is trained; and random
answers with random rewards. TRL's own trainers compute what they compute of them: `GRPOTrainer` and `RLOOTrainer` of the installed TRL, and
`PPOTrainer`, which TRL dropped after 1.12, from the folder PPO into which `pip install --no-deps --target PPO trl==1.12.0` put it. Only what
draws answers is replaced by the fixed ones. All numbers must agree within 1e-4. TRL's correction that
multiplies the divergence by the ratio (`use_bias_correction_kl`) is off: k3 is compared as Schulman defined it.

Needs torch, transformers, tokenizers, datasets and trl.
"""

import json
import pathlib
import random
import subprocess
import sys
import tempfile
import types

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

BOUND, VOCABULARY, END, PAD, GROUP, GROUPS = 1e-4, 96, 1, 2, 4, 3

# Name, danlu's settings, TRL's.
GROUPED = [
    ("grpo", ["rl.kl=0"], dict(beta=0.0, loss_type="dapo")),
    ("grpo kl", ["rl.kl=0.1"], dict(beta=0.1, loss_type="dapo", use_bias_correction_kl=False)),
    ("grpo higher", ["rl.kl=0", "rl.clip_high=0.28"], dict(beta=0.0, loss_type="dapo", epsilon_high=0.28)),
    ("grpo sequence", ["rl.kl=0.1", "rl.average=sequence"], dict(beta=0.1, loss_type="grpo", use_bias_correction_kl=False)),
    ("grpo batch", ["rl.kl=0", "rl.scale=batch"], dict(beta=0.0, loss_type="dapo", scale_rewards="batch")),
    ("dr. grpo", ["rl.kl=0", "rl.scale=none", "rl.average=fixed", "rl.max_tokens=16"],
     dict(beta=0.0, loss_type="dr_grpo", scale_rewards="none", max_completion_length=16)),
    ("gspo", ["rl.kl=0", "rl.average=sequence", "rl.ratio=sequence"],
     dict(beta=0.0, loss_type="grpo", importance_sampling_level="sequence")),
    ("rloo", ["rl.kl=0.05"], dict(beta=0.05)),
]


def tokenizer_of():
    # A special token is found inside other words, so it must be the beginning of none.
    words = {f"t{i}": i for i in range(VOCABULARY - 1)} | {"<|endoftext|>": VOCABULARY - 1}
    for word, token in [("<end>", END), ("<pad>", PAD)]:
        del words[f"t{token}"]
        words[word] = token
    raw = Tokenizer(models.WordLevel(words, unk_token="t0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<pad>", unk_token="t0")


def llama(seed, near=None, apart=0.0):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, initializer_range=0.1, eos_token_id=END, pad_token_id=PAD))
    if near is not None:
        with torch.no_grad():
            for ours, theirs in zip(model.parameters(), near.parameters()):
                ours.copy_(theirs + apart * torch.randn_like(theirs))
    return model.eval()


def answers_of(rng, even):
    found = []
    for _ in range(GROUPS):
        prompt = [rng.randrange(3, VOCABULARY - 1) for _ in range(5 if even else rng.randrange(2, 8))]
        for _ in range(GROUP):
            answer = [rng.randrange(3, VOCABULARY - 1) for _ in range(7 if even else rng.randrange(2, 11))] + [END]
            found.append({"prompt": prompt, "answer": answer, "reward": rng.choice([0.0, 1.0, 1.0, 0.25]) + rng.random()})
    return found


def grouped_of_trl(name, folder, answers, tokenizer, settings):
    """Advantages and loss of GRPOTrainer or RLOOTrainer; what draws answers is replaced."""
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
    trainer_type, config_type = (RLOOTrainer, RLOOConfig) if name == "rloo" else (GRPOTrainer, GRPOConfig)
    settings = dict(max_completion_length=16) | settings
    count = len(answers)
    with tempfile.TemporaryDirectory() as out:
        config = config_type(output_dir=out, per_device_train_batch_size=count, num_generations=GROUP, report_to=[], use_cpu=True, bf16=False,
                             fp16=False, gradient_checkpointing=False, save_strategy="no", epsilon=0.2, num_iterations=2, disable_dropout=True,
                             **settings)
        rewards = [one["reward"] for one in answers]
        data = Dataset.from_list([{"prompt": " ".join(f"t{i}" for i in one["prompt"])} for one in answers])
        model = LlamaForCausalLM.from_pretrained(folder / "old", dtype=torch.float32)
        trainer = trainer_type(model=model, args=config, train_dataset=data, processing_class=tokenizer,
                               reward_funcs=lambda completions, **_: rewards)
        # The start model is another than the one that draws here.
        if trainer.ref_model is not None:
            trainer.ref_model.load_state_dict(LlamaForCausalLM.from_pretrained(folder / "start", dtype=torch.float32).state_dict())
        completions = [one["answer"] for one in answers]
        trainer._generate_single_turn = lambda *_, **__: completions if name == "rloo" else (completions, None)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        inputs = trainer._generate_and_score_completions([{"prompt": row["prompt"]} for row in data])
        moved = LlamaForCausalLM.from_pretrained(folder / "now", dtype=torch.float32)
        trainer.model.load_state_dict(moved.state_dict())
        loss = trainer._compute_loss(trainer.model, inputs)
        return inputs["advantages"].tolist(), loss.item()


def ppo_of_trl(where, folder, answers, tokenizer, heads):
    """What PPOTrainer logs after one update; what draws answers is replaced, and the model of the update is the moved one."""
    sys.path.insert(0, str(where))
    for name in [name for name in sys.modules if name == "trl" or name.startswith("trl.")]:
        del sys.modules[name]
    from trl.experimental.ppo import PPOConfig, PPOTrainer
    from trl.experimental.ppo import ppo_trainer as module

    def actor(which):
        return LlamaForCausalLM.from_pretrained(folder / which, dtype=torch.float32).eval()

    def critic(which):
        made = LlamaForSequenceClassification.from_pretrained(folder / which, num_labels=1, dtype=torch.float32).eval()
        with torch.no_grad():
            made.score.weight.copy_(torch.tensor([heads[which]]))
        return made

    old, now, values = actor("old"), actor("now"), {which: critic(which) for which in ("old", "now")}
    queries = torch.tensor([one["prompt"] for one in answers])
    whole = torch.tensor([one["prompt"] + one["answer"] for one in answers])
    scores = torch.tensor([one["reward"] for one in answers])
    context = queries.shape[1]

    def value_of(which, ids):
        hidden = values[which].model(input_ids=ids).last_hidden_state
        return values[which].score(hidden)

    module.batch_generation = lambda *_: (whole, old(input_ids=whole).logits[:, context - 1:-1])
    train_forward = module.forward

    def forward(model, ids, pad):
        if not hasattr(model, "value_model") and not hasattr(getattr(model, "module", None), "value_model"):
            return train_forward(model, ids, pad)
        # The order of rows is shuffled by the trainer: what is asked is answered.
        return types.SimpleNamespace(logits=now(input_ids=ids).logits), value_of("now", ids)

    module.forward = forward
    module.get_reward = lambda model, ids, *_: (value_of("old", ids), scores, None)
    with tempfile.TemporaryDirectory() as out:
        config = PPOConfig(output_dir=out, per_device_train_batch_size=len(answers), gradient_accumulation_steps=1, num_mini_batches=1,
                           num_ppo_epochs=1, total_episodes=len(answers), response_length=len(answers[0]["answer"]), kl_coef=0.05,
                           cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, gamma=0.98, lam=0.9, temperature=1.0, report_to=[], use_cpu=True,
                           bf16=False, fp16=False, gradient_checkpointing=False, num_sample_generations=0, learning_rate=0.0,
                           local_rollout_forward_batch_size=len(answers), save_strategy="no", missing_eos_penalty=None)
        data = Dataset.from_list([{"input_ids": one["prompt"]} for one in answers])
        trainer = PPOTrainer(args=config, processing_class=tokenizer, model=actor("old"), ref_model=actor("start"), reward_model=critic("old"),
                             train_dataset=data, value_model=critic("old"), eval_dataset=data)
        logged = []
        trainer.log = lambda metrics, *_: logged.append(metrics)
        trainer.train()
    return logged[0]


def ours(binary, folder, case, settings):
    path = folder / "case.json"
    path.write_text(json.dumps(case))
    done = subprocess.run([binary, str(path), *settings], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def main(binary, ppo):
    tokenizer, worst = tokenizer_of(), 0.0

    def compare(name, pairs):
        nonlocal worst
        gaps = {what: max(abs(a - b) for a, b in zip(left, right, strict=True)) for what, (left, right) in pairs.items()}
        worst = max(worst, *gaps.values())
        print(f"{name:14}" + "  ".join(f"{what} {pairs[what][0][0]:+.5f} for {pairs[what][1][0]:+.5f}, apart {gap:.1e}"
                                      for what, gap in gaps.items()), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        start = llama(1)
        old = llama(2, start, 0.02)
        now = llama(3, old, 0.03)
        for name, model in [("start", start), ("old", old), ("now", now)]:
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        where = {name: str(folder / name) for name in ("start", "old", "now")}
        for seed, (name, settings, theirs) in enumerate(GROUPED):
            answers = answers_of(random.Random(seed), even=False)
            kind = "rloo" if name == "rloo" else "grpo"
            found = ours(binary, folder, where | {"answers": answers}, [f"objective.kind={kind}", f"rl.samples={GROUP}", *settings])
            advantages, loss = grouped_of_trl(name, folder, answers, tokenizer, theirs)
            compare(name, {"advantages": ([one[0] for one in found["advantages"]], advantages), "loss": ([found["loss"]], [loss])})
        if ppo is not None:
            rng = random.Random(99)
            answers = answers_of(rng, even=True)
            heads = {which: [rng.uniform(-0.5, 0.5) for _ in range(32)] for which in ("old", "now")}
            case = where | {"answers": answers, "old_head": heads["old"], "now_head": heads["now"]}
            found = ours(binary, folder, case, ["objective.kind=ppo", "rl.samples=1", "rl.kl=0.05", "rl.gamma=0.98", "rl.lambda=0.9"])
            logged = ppo_of_trl(ppo, folder, answers, tokenizer, heads)
            report = found["report"]
            compare("ppo", {
                "policy": ([report["policy_loss"]], [logged["loss/policy_avg"]]),
                "value": ([report["value_loss"]], [logged["loss/value_avg"]]),
                "ratio": ([report["ratio"]], [logged["val/ratio"]]),
                "clipped": ([report["clipped"]], [logged["policy/clipfrac_avg"]]),
                "value clipped": ([report["value_clipped"]], [logged["val/clipfrac_avg"]]),
            })
    print(f"worst {worst:.1e}, bound {BOUND:.0e}")
    sys.exit(0 if worst <= BOUND else "they differ")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else None)
