"""Compares danlu's decoders, and its model that translates, with those of `transformers`, in both directions.

    cargo build --release -p danlu-models --example logits
    python tests/peers/transformers_parity.py target/release/examples/logits
    python tests/peers/transformers_parity.py --fixtures crates/danlu-models/tests/fixtures

For each architecture: a model with random weights (norms and biases too, so that none is one or zero by luck) is saved by
`transformers`; danlu loads it and prints logits; danlu saves it; `transformers` loads that. Both must give the logits of the
first model within 1e-4. With --fixtures, small models and their logits are written for the tests that need no Python.

Needs torch, transformers and safetensors.
"""

import argparse
import copy
import json
import pathlib
import sys
import tempfile

import program
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MarianConfig, MarianMTModel, Qwen3Config

BOUND = 1e-4
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16, rope_theta=500.0)


def llama(**changes):
    shape = dict(vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
                 bos_token_id=1, eos_token_id=2)
    return {**shape, **changes}


GPT2 = dict(vocab_size=61, n_positions=64, n_embd=16, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
LARGE = dict(vocab_size=499, hidden_size=96, intermediate_size=160, num_hidden_layers=4, num_attention_heads=6)

# Name, configuration, type of the saved numbers. The first five are small enough for fixtures.
CASES = [
    ("llama", LlamaConfig(**llama()), torch.float32),
    ("llama3-rope-tied-bf16", LlamaConfig(**llama(tie_word_embeddings=True, rope_parameters=LLAMA3)), torch.bfloat16),
    ("qwen3-f16", Qwen3Config(**llama(head_dim=6)), torch.float16),
    ("gpt2", GPT2Config(**GPT2), torch.float32),
    ("gpt2-untied-bf16", GPT2Config(**{**GPT2, "tie_word_embeddings": False, "n_inner": 40}), torch.bfloat16),
    ("llama-large", LlamaConfig(**llama(**LARGE, num_key_value_heads=3, head_dim=20)), torch.float32),
    ("llama-linear-rope", LlamaConfig(**llama(rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=1e4))), torch.float32),
    ("qwen3-large-tied", Qwen3Config(**llama(**LARGE, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True)), torch.float32),
    ("gpt2-large", GPT2Config(**{**GPT2, "vocab_size": 499, "n_embd": 96, "n_layer": 4, "n_head": 6}), torch.float32),
]
SMALL = CASES[:5]


def model_of(config, dtype, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if parameter.dim() == 1 and "norm" in name or ".ln_" in name and name.endswith("weight") else 0.0
            deviation = 0.2 if parameter.dim() == 1 else 0.1
            # Rounded to the saved type, but computed in 32 bits: then the logits do not depend on how a peer multiplies small floats.
            parameter.copy_((scale + deviation * torch.randn_like(parameter)).to(dtype))
    return model.eval()


def ids_of(config, count, seed):
    return torch.randint(0, config.vocab_size, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def save(model, dtype, folder):
    # A copy, since rope's frequencies are rounded with the parameters and would stay so.
    copy.deepcopy(model).to(dtype).save_pretrained(folder)


def danlu(binary, *arguments):
    return torch.tensor(program.rows(binary, *arguments))


def compare(binary):
    worst = 0.0
    for seed, (name, config, dtype) in enumerate(CASES):
        model = model_of(config, dtype, seed)
        ids = ids_of(config, 48, seed)
        expected = logits_of(model, ids)
        with tempfile.TemporaryDirectory() as folder:
            theirs, ours, sharded = (pathlib.Path(folder) / part for part in ("theirs", "ours", "sharded"))
            save(model, dtype, theirs)
            listed = ",".join(map(str, ids))
            imported = danlu(binary, theirs, listed, ours)
            danlu(binary, ours, listed, sharded, 10_000)
            assert len(list(sharded.glob("*.safetensors"))) > 1, "the model was to be written as several files"
            again = danlu(binary, sharded, listed)
            gaps = [(imported - expected).abs().max().item(), (again - imported).abs().max().item()]
            for exported in (ours, sharded):
                loaded, report = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32, output_loading_info=True)
                problems = {kind: keys for kind, keys in report.items() if keys}
                assert not problems, f"{name}: transformers reports {problems}"
                gaps.append((logits_of(loaded.eval(), ids) - expected).abs().max().item())
        worst = max(worst, *gaps)
        shown = "  ".join(f"{what} {gap:.1e}" for what, gap in zip(("import", "reload", "export", "sharded"), gaps))
        print(f"{name:24} logits up to {expected.abs().max().item():.2f}  largest differences: {shown}")
    worst = max(worst, compare_marian(binary))
    print(f"worst {worst:.1e}, bound {BOUND:.0e}")
    sys.exit(0 if worst <= BOUND else "the logits differ")


def compare_marian(binary):
    config = MarianConfig(vocab_size=61, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4,
                          encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=32, activation_function="relu",
                          scale_embedding=True, share_encoder_decoder_embeddings=True, tie_word_embeddings=True, dropout=0.0,
                          pad_token_id=3, eos_token_id=1, bos_token_id=None, decoder_start_token_id=1, forced_eos_token_id=1)
    torch.manual_seed(9)
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                scale = 1.0 if "layer_norm.weight" in name else 0.0
                parameter.copy_(scale + (0.2 if parameter.dim() == 1 else 0.1) * torch.randn_like(parameter))
        model.tie_weights()
    source, target = ids_of(config, 11, 1), ids_of(config, 7, 2)

    def theirs_of(model):
        with torch.no_grad():
            return model(input_ids=torch.tensor([source + [1]]), decoder_input_ids=torch.tensor([[1] + target])).logits[0]

    expected = theirs_of(model)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = (pathlib.Path(folder) / part for part in ("theirs", "ours"))
        model.save_pretrained(theirs)
        listed = ",".join(map(str, source)) + "/" + ",".join(map(str, target))
        imported = danlu(binary, theirs, listed, ours)
        loaded, report = MarianMTModel.from_pretrained(ours, dtype=torch.float32, output_loading_info=True)
        problems = {kind: keys for kind, keys in report.items() if keys}
        assert not problems, f"marian: transformers reports {problems}"
        gaps = [(imported - expected).abs().max().item(), (theirs_of(loaded.eval()) - expected).abs().max().item()]
    print(f"{'marian':24} logits up to {expected.abs().max().item():.2f}  largest differences: import {gaps[0]:.1e}  export {gaps[1]:.1e}")
    return max(gaps)


def fixtures(folder):
    for seed, (name, config, dtype) in enumerate(SMALL):
        model, ids = model_of(config, dtype, seed), ids_of(config, 24, seed)
        rows = [[round(value, 6) for value in row] for row in logits_of(model, ids)[-4:].tolist()]
        save(model, dtype, folder / name)
        (folder / name / "generation_config.json").unlink(missing_ok=True)
        (folder / name / "expected.json").write_text(json.dumps({"ids": ids, "last_logits": rows}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", help="danlu's `logits` example")
    parser.add_argument("--fixtures", type=pathlib.Path, help="write the fixtures to this folder")
    arguments = parser.parse_args()
    if arguments.fixtures:
        fixtures(arguments.fixtures)
    elif arguments.binary:
        compare(arguments.binary)
    else:
        parser.error("name the `logits` example, or --fixtures")
