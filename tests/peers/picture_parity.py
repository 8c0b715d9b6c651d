"""Compares danlu's Vision Transformer and masked autoencoder with those of `transformers`, in both directions.

    cargo build --release --workspace --examples
    python tests/peers/picture_parity.py target/release/examples/logits

For each: a model with random weights (norms, biases and positions too) is saved by `transformers`; danlu loads it, prints the logits of made-up
pictures, or the loss of what is hidden in each, and saves it; `transformers` loads that. Both must agree with the first model within 1e-4.
Grey and coloured pictures, square and not, with and without biases of queries, keys and values; the autoencoder with and without normalized
pixels, in 32-bit floats and bfloat16.

Needs torch and transformers.
"""

import argparse
import copy
import json
import pathlib
import sys
import tempfile

import program
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

BOUND = 1e-4
SHAPE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80, patch_size=4)
DECODER = dict(decoder_hidden_size=24, decoder_num_hidden_layers=2, decoder_num_attention_heads=3, decoder_intermediate_size=40)
# transformers leaves `id2label` out where there are two classes.
CLASSES = dict(num_labels=5)
CASES = [
    ("vit grey", ViTConfig(image_size=28, num_channels=1, **SHAPE, **CLASSES), torch.float32),
    ("vit colour, not square", ViTConfig(image_size=[16, 24], num_channels=3, qkv_bias=False, **SHAPE, **CLASSES), torch.float32),
    ("vit bf16", ViTConfig(image_size=12, num_channels=3, **SHAPE, **CLASSES), torch.bfloat16),
    ("mae grey", ViTMAEConfig(image_size=28, num_channels=1, norm_pix_loss=True, **SHAPE, **DECODER), torch.float32),
    ("mae colour", ViTMAEConfig(image_size=16, num_channels=3, mask_ratio=0.5, **SHAPE, **DECODER), torch.float32),
    ("mae bf16", ViTMAEConfig(image_size=16, num_channels=3, norm_pix_loss=True, **SHAPE, **DECODER), torch.bfloat16),
]


def is_mae(config):
    return config.model_type == "vit_mae"


def model_of(config, dtype, seed):
    torch.manual_seed(seed)
    model = (ViTMAEForPreTraining if is_mae(config) else ViTForImageClassification)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            deviation = 0.2 if parameter.dim() == 1 else 0.1
            # Rounded to the saved type, but computed in 32 bits.
            parameter.copy_((scale + deviation * torch.randn_like(parameter)).to(dtype))
    return model.eval()


def sides(config):
    size = config.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def asked(config, seed):
    """Pictures, and of each a number for every patch: the patches with the lowest are seen."""
    generator = torch.Generator().manual_seed(seed)
    height, width = sides(config)
    pictures = torch.randn(3, config.num_channels, height, width, generator=generator)
    noise = torch.rand(3, height // config.patch_size * (width // config.patch_size), generator=generator)
    return pictures, noise


def answers(model, pictures, noise):
    with torch.no_grad():
        if not is_mae(model.config):
            return model(pixel_values=pictures).logits
        one = lambda picture, noise: model(pixel_values=picture[None], noise=noise[None]).loss.reshape(1)
        return torch.stack([one(*both) for both in zip(pictures, noise)])


def danlu(binary, folder, pictures, kept, save=None):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"pictures": pictures.flatten(1).tolist(), "kept": kept}, file)
        file.flush()
        return torch.tensor(program.rows(binary, folder, file.name, *([save] if save else [])))


def compare(binary):
    worst = 0.0
    for seed, (name, config, dtype) in enumerate(CASES):
        model = model_of(config, dtype, seed)
        pictures, noise = asked(config, seed)
        expected = answers(model, pictures, noise)
        count = int(noise.shape[1] * (1 - config.mask_ratio)) if is_mae(config) else 0
        kept = [sorted(row.argsort()[:count].tolist()) for row in noise]
        with tempfile.TemporaryDirectory() as folder:
            theirs, ours = (pathlib.Path(folder) / part for part in ("theirs", "ours"))
            copy.deepcopy(model).to(dtype).save_pretrained(theirs)
            found = danlu(binary, theirs, pictures, kept, ours)
            again = danlu(binary, ours, pictures, kept)
            loaded, report = type(model).from_pretrained(ours, dtype=torch.float32, output_loading_info=True)
            problems = {kind: keys for kind, keys in report.items() if keys}
            assert not problems, f"{name}: transformers reports {problems}"
            exported = answers(loaded.eval(), pictures, noise)
        assert found.shape == expected.shape, (name, found.shape, expected.shape)
        gaps = [(one - expected).abs().max().item() for one in (found, again, exported)]
        worst = max(worst, *gaps)
        shown = "  ".join(f"{what} {gap:.1e}" for what, gap in zip(("import", "reload", "export"), gaps))
        print(f"{name:24} up to {expected.abs().max().item():.2f}  largest differences: {shown}")
    print(f"worst {worst:.1e}, bound {BOUND:.0e}")
    sys.exit(0 if worst <= BOUND else "the models differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="danlu's `logits` example")
    compare(parser.parse_args().binary)
