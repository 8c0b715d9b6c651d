"""Steps of LoRA tuning with PEFT and transformers, the rival in bench/lora.py. Prints one JSON row.

Conversations are written with the model's template and packed into rows of one length with transformers' own means; answers carry the
loss. The optimizer moves the adapter alone. A plain loop: transformers' Trainer would only add to it.
"""

import argparse
import json
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def rows_of(tokenizer, path, length, count):
    rows, ids, labels = [], [], []
    for record in json.load(open(path)):
        question = "\n\n".join(filter(None, [record["instruction"], record["input"]]))
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}]
        asked = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        asked, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, whole))
        ids += whole
        labels += [-100] * len(asked) + whole[len(asked):]
        while len(ids) >= length:
            rows.append((ids[:length], labels[:length]))
            ids, labels = ids[length:], labels[length:]
        if len(rows) >= count:
            break
    return rows[:count]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--dora", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    if args.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM", use_dora=args.dora)
    model = get_peft_model(model, config)
    model.config.use_cache = False
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4, weight_decay=0.0)
    rows = rows_of(tokenizer, args.data, args.length, args.rows * (args.steps + 2))
    seconds = []
    for step in range(args.steps + 2):
        batch = rows[step * args.rows:(step + 1) * args.rows]
        ids, labels = (torch.tensor([row[which] for row in batch]) for which in (0, 1))
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        loss = loss.item()
        seconds.append(time.perf_counter() - begun)
    median = statistics.median(seconds[2:])
    print(json.dumps(dict(seconds=median, tokens_per_s=args.rows * args.length / median, loss=loss)))


if __name__ == "__main__":
    main()
