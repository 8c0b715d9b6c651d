"""Whole steps of TRL's GRPOTrainer on the CPU, for grpo_step.py: python trl_grpo.py MODEL PROMPTS STEPS SAMPLES TOKENS BETA CHECKPOINTING"""

import json
import re
import resource
import sys
import tempfile
import time

import torch

torch.set_num_threads(2)

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

model_folder, prompts, steps, samples, tokens, beta, checkpointing = sys.argv[1:]
steps, samples, tokens = int(steps), int(samples), int(tokens)
tokenizer = AutoTokenizer.from_pretrained(model_folder)
rows = [json.loads(line) for line in open(prompts)]
GROUPS = 4


def reward(completions, **_):
    return [1.0 if re.search(r"(?i)[a-m][^a-z]*$", text) else 0.0 for text in completions]


class Clock(TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.begun = time.perf_counter()

    def on_step_end(self, args, state, *_, **__):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps({"who": "trl" if checkpointing == "0" else "trl-checkpointing", "step": state.global_step,
                          "seconds": time.perf_counter() - self.begun, "peak_mb": peak}), flush=True)


with tempfile.TemporaryDirectory() as out:
    config = GRPOConfig(
        output_dir=out, per_device_train_batch_size=8, gradient_accumulation_steps=GROUPS * samples // 8, num_generations=samples,
        max_completion_length=tokens, beta=float(beta), learning_rate=1e-6, lr_scheduler_type="constant", max_steps=steps, logging_steps=1000,
        report_to=[], use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=checkpointing == "1", save_strategy="no", shuffle_dataset=False,
        temperature=1.0, top_p=1.0, top_k=0, disable_tqdm=True, generation_kwargs={"min_new_tokens": tokens}, max_grad_norm=1.0)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    trainer = GRPOTrainer(model=model, args=config, train_dataset=Dataset.from_list([{"prompt": row["text"]} for row in rows]),
                          processing_class=tokenizer, reward_funcs=reward, callbacks=[Clock()])
    trainer.train()
