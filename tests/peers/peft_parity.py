"""Compares tuning through the program with transformers and PEFT: the losses of 20 steps, for full tuning and for every adapter.

    danlu models pull smollm2
    python tests/peers/peft_parity.py target/release/danlu MODEL_FOLDER [CASE ...]

MODEL_FOLDER is the registered model (`danlu models show smollm2` names it). `danlu train` tunes it on conversations written here. Every
update sees all of them, so that the order within one is no matter; which tokens carry loss is found here by writing each conversation up to
its answers with transformers' own template, not taken from danlu. The weights an adapter begins with are those that a run of danlu with a
rate of zero keeps, and PEFT reads them from its folder. Losses must agree within 1e-3. What the run kept is then loaded by PEFT, and must
give the loss that danlu's adapter has.

Needs torch, transformers and peft.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

BOUND, STEPS, CONTEXT = 1e-3, 20, 96
ADAPTER = ["adapter.rank=8", "optimizer.rate=5e-4"]
CASES = {
    "sft": ["optimizer.rate=5e-5"],
    "last-layers": ["tune.part=last-layers", "tune.layers=3", "optimizer.rate=1e-4"],
    "lora": ["adapter.kind=lora", *ADAPTER],
    "rslora": ["adapter.kind=rslora", *ADAPTER],
    "dora": ["adapter.kind=dora", *ADAPTER],
    "lora-two-targets": ["adapter.kind=lora", 'adapter.targets=["q_proj", "v_proj"]', "adapter.alpha=16", *ADAPTER],
    "prompt": ["adapter.kind=prompt", "adapter.tokens=8", "optimizer.rate=1e-2"],
}
# Openings that the conversations share: which of them are held out is danlu's choice, and its samples show it.
OPENINGS = {
    "What does a furnace do?": ["It turns fuel into heat.", "It heats what is put into it, and keeps the heat in."],
    "Name a metal that melts easily.": ["Tin melts at 232 °C.", "Gallium melts in the hand."],
    "How much is six times seven?": ["42", "Six times seven is forty-two."],
    "Who keeps the fire?": ["The apprentice does, from evening to morning.", "Whoever is awake."],
    "炼丹是什么意思？": ["在炉中炼制丹药。", "如今也指训练大模型。"],
    "Write a line about the sea.": ["The sea keeps what it is given.", "Grey under grey, and never still."],
}


def talks():
    for i, (opening, answers) in enumerate(OPENINGS.items()):
        for answer in answers:
            messages = [{"role": "user", "content": opening}, {"role": "assistant", "content": answer}]
            if i % 2:
                messages += [{"role": "user", "content": "Is that so?"}, {"role": "assistant", "content": "It is, as far as I know."}]
            yield messages


RECIPE = f"""[data]
sources = ["DATA"]
held_out = 0.1
[model]
from = "FOLDER"
context = {CONTEXT}
[objective]
kind = "sft"
[optimizer]
kind = "adamw"
beta1 = 0.9
beta2 = 0.999
epsilon = 1e-8
weight_decay = 0.0
clip = 0.0
schedule = "constant"
warmup = 0.0
[sample]
tokens = 1
[eval]
every = 1000
[budget]
steps = {STEPS}
"""


class Danlu:
    """The program, in a home of its own with the conversations and a recipe."""

    def __init__(self, binary, home, folder):
        self.binary, self.home, self.recipe = binary, home, home / "recipe.toml"
        data = home / "talks.jsonl"
        data.write_text("\n".join(json.dumps({"messages": messages}) for messages in talks()))
        self.recipe.write_text(RECIPE.replace("DATA", str(data)).replace("FOLDER", str(folder)))
        # How many rows the conversations are packed into, so that an update is all of them.
        rows = int(re.search(r"conversations in (\d+) rows", self.run("plan")).group(1))
        self.batch = [f"batch.tokens={rows * CONTEXT}", f"batch.micro_tokens={rows * CONTEXT}"]

    def run(self, verb, *settings):
        command = [self.binary, verb, str(self.recipe), *(part for setting in settings for part in ("--set", setting))]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "DANLU_HOME": str(self.home)})
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout + done.stderr

    def train(self, name, *settings):
        """The losses, the openings held out, and the folder of what was kept."""
        self.run("train", f"name={name}", *self.batch, *settings)
        rows = [json.loads(line) for line in (self.home / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        held_out = {row["prompt"].strip() for row in rows if row["kind"] == "sample"}
        return [row["loss"] for row in rows if row["kind"] == "train"], held_out, self.home / "models" / f"{name}@1"


def encode(tokenizer, messages):
    """The tokens, and which of them the assistant says, its end of turn included."""
    def write(count, prompt):
        return tokenizer.apply_chat_template(messages[:count], add_generation_prompt=prompt, tokenize=False)

    text, carries = write(len(messages), False), []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(write(i, True))
            carries.append((start, start + len(message["content"] + "<|im_end|>")))
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    mask = [any(a >= start and b <= end for start, end in carries) for a, b in read["offset_mapping"]]
    return read["input_ids"], mask


def loss_of(model, batch):
    ids, attention, targets = batch
    logits = model(input_ids=ids, attention_mask=attention).logits
    # Learned tokens stand before the text, and have logits too.
    logits = logits[:, logits.shape[1] - ids.shape[1]:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten(), ignore_index=-100)


def batch_of(tokenizer, chats):
    rows = [encode(tokenizer, chat) for chat in chats]
    longest = max(len(ids) for ids, _ in rows)
    pad = lambda row, filler: row + [filler] * (longest - len(row))
    ids = torch.tensor([pad(ids, 0) for ids, _ in rows])
    attention = torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows])
    targets = torch.tensor([pad([i if carries else -100 for i, carries in zip(ids, mask)], -100) for ids, mask in rows])
    return ids, attention, targets


def of_peer(folder, adapter, batch, settings):
    given = dict(setting.split("=", 1) for setting in settings)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    if given.get("tune.part") == "last-layers":
        kept = [f"layers.{i}." for i in range(model.config.num_hidden_layers - int(given["tune.layers"]), model.config.num_hidden_layers)]
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name == "model.norm.weight" or any(part in name for part in kept)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=float(given["optimizer.rate"]), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, loss_of(model, batch).item(), sum(parameter.numel() for parameter in trained)


def loads(folder, kept, is_adapter, batch):
    """The loss of what danlu kept, as transformers and PEFT read it."""
    model = AutoModelForCausalLM.from_pretrained(folder if is_adapter else kept, dtype=torch.float32)
    if is_adapter:
        model = PeftModel.from_pretrained(model, kept)
    with torch.no_grad():
        return loss_of(model, batch).item()


def main(binary, folder, names):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    worst = 0.0
    for name in names or CASES:
        settings = CASES[name]
        is_adapter = any(setting.startswith("adapter.kind") for setting in settings)
        with tempfile.TemporaryDirectory() as home:
            danlu = Danlu(binary, pathlib.Path(home), folder)
            adapter = danlu.train(f"{name}-start", *settings, "optimizer.rate=0", "budget.steps=1")[2] if is_adapter else None
            ours, held_out, kept = danlu.train(name, *settings)
            chats = [chat for chat in talks() if chat[0]["content"] not in held_out]
            assert 0 < len(held_out) < 4 and len(chats) >= 6, held_out
            batch = batch_of(tokenizer, chats)
            theirs, after, trained = of_peer(folder, adapter, batch, settings)
            read = loads(folder, kept, is_adapter, batch)
        assert len(ours) == len(theirs) == STEPS, (len(ours), len(theirs))
        gap = max(abs(a - b) for a, b in zip(ours, theirs))
        worst = max(worst, gap, abs(read - after))
        print(f"{name:16} {trained:>11,} trained  loss {ours[0]:.4f} to {ours[-1]:.4f}; theirs {theirs[0]:.4f} to {theirs[-1]:.4f}; largest difference "
              f"{gap:.1e}; kept {read:.4f}, theirs {after:.4f}", flush=True)
    print(f"worst {worst:.1e}, bound {BOUND:.0e}")
    sys.exit(0 if worst <= BOUND else "the losses differ")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), sys.argv[3:])
