"""The rival of danlu's example `translate`: an equal encoder and decoder in PyTorch, trained on the same batches in the same order.

    python bench/torch_transformer.py FOLDER [--mode eager|compile]

Reads FOLDER/data.json, writes the translations to FOLDER/torch-MODE.ids.json, and prints one JSON row. The model is `nn.Transformer`'s layers
without its last norms (post-norm, ReLU, no dropout), sines for positions, one scaled embedding for both sides and the output; Adam with the
same rates, label smoothing and clipping; rows filled up with padding, which is how PyTorch takes texts of different lengths.
"""

import argparse, json, math, os, resource, time
import torch, torch.nn as nn, torch.nn.functional as F


def sines(context, width):
    half = width // 2
    angles = torch.arange(context).double()[:, None] / 10000 ** (2 * torch.arange(half).double() / width)[None]
    return torch.cat([angles.sin(), angles.cos()], -1).float()


class Transformer(nn.Module):
    def __init__(self, vocabulary, model):
        super().__init__()
        width, heads, inner, layers = model["hidden"], model["heads"], model["intermediate"], model["layers"]
        self.width = width
        self.embed = nn.Embedding(vocabulary, width)
        options = dict(dim_feedforward=inner, dropout=0.0, activation="relu", batch_first=True, norm_first=False)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, heads, **options), layers, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, heads, **options), layers)
        self.register_buffer("positions", sines(model["context"] + 1, width))
        for name, parameter in self.named_parameters():
            # Queries, keys and values are one matrix there and three here.
            for part in parameter.chunk(3) if name.endswith("in_proj_weight") else [parameter]:
                if part.dim() > 1:
                    nn.init.xavier_normal_(part.data)
                elif name.endswith("bias"):
                    nn.init.zeros_(part.data)
        nn.init.normal_(self.embed.weight, 0, width**-0.5)

    def look_up(self, ids):
        return self.embed(ids) * math.sqrt(self.width) + self.positions[: ids.shape[1]]

    def read(self, sources, hidden):
        return self.encoder(self.look_up(sources), src_key_padding_mask=hidden)

    def write(self, memory, hidden, written):
        causal = nn.Transformer.generate_square_subsequent_mask(written.shape[1])
        return self.decoder(self.look_up(written), memory, tgt_mask=causal, memory_key_padding_mask=hidden, tgt_is_causal=True)

    def forward(self, sources, hidden, written):
        return F.linear(self.write(self.read(sources, hidden), hidden, written), self.embed.weight)


def padded(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def batch(pairs, end):
    sources = [source + [end] for source, _ in pairs]
    lengths = torch.tensor([len(row) for row in sources])
    sources = padded(sources, end)
    hidden = torch.arange(sources.shape[1])[None] >= lengths[:, None]
    return sources, hidden, padded([[end] + target for _, target in pairs], end), padded([target + [end] for _, target in pairs], -100)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights")
    parser.add_argument("--device", default="cpu", help="beside another than the CPU the seconds say nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    # Even the CPU, set as the default, makes each small operation slower.
    if args.device != "cpu":
        torch.set_default_device(args.device)
    data = json.load(open(os.path.join(args.folder, "data.json")))
    end, steps, rows = data["end"], data["steps"], data["batch"]
    optimizer_spec, smoothing = data["optimizer"], data["translate"]["smoothing"]
    model = Transformer(data["vocabulary"], data["model"])
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=optimizer_spec["rate"], betas=(optimizer_spec["beta1"], optimizer_spec["beta2"]),
                                 eps=optimizer_spec["epsilon"])
    warmup = max(5, round(optimizer_spec["warmup"] * steps))
    share = lambda step: (step + 1) / (warmup + 1) if step < warmup else math.sqrt((warmup + 1) / (step + 1))
    forward = torch.compile(model, dynamic=True) if args.mode == "compile" else model
    seconds, tokens = 0.0, 0
    for step in range(steps):
        pairs = [data["train"][i] for i in data["order"][step * rows:(step + 1) * rows]]
        begun = time.perf_counter()
        sources, hidden, written, targets = batch(pairs, end)
        for group in optimizer.param_groups:
            group["lr"] = optimizer_spec["rate"] * share(step)
        optimizer.zero_grad(set_to_none=True)
        logits = forward(sources, hidden, written)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, label_smoothing=smoothing)
        loss.backward()
        if optimizer_spec["clip"] > 0:
            nn.utils.clip_grad_norm_(model.parameters(), optimizer_spec["clip"])
        optimizer.step()
        # The first steps of a compiled model are its compilation.
        if args.mode == "eager" or step >= 3:
            seconds += time.perf_counter() - begun
            tokens += sum(len(source) + len(target) + 2 for source, target in pairs)
        if step % 50 == 0:
            print(json.dumps({"step": step + 1, "loss": loss.item()}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    model.eval()
    held_out = data["held_out"]
    with torch.no_grad():
        total, count = 0.0, 0
        for at in range(0, len(held_out), rows):
            sources, hidden, written, targets = batch(held_out[at:at + rows], end)
            logits = model(sources, hidden, written)
            total += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum").item()
            count += (targets != -100).sum().item()
        begun = time.perf_counter()
        found = [None] * len(held_out)
        order = sorted(range(len(held_out)), key=lambda i: len(held_out[i][0]))
        for at in range(0, len(order), 256):
            places = order[at:at + 256]
            sources, hidden, _, _ = batch([held_out[i] for i in places], end)
            memory = model.read(sources, hidden)
            written = torch.full((len(places), 1), end)
            ended = torch.zeros(len(places), dtype=torch.bool)
            longest = max(2 * len(held_out[i][0]) + 10 for i in places)
            while not ended.all() and written.shape[1] < min(longest, data["model"]["context"]):
                states = model.write(memory, hidden, written)[:, -1]
                token = F.linear(states, model.embed.weight).argmax(-1)
                token[ended] = end
                ended |= token == end
                written = torch.cat([written, token[:, None]], 1)
            for i, row in zip(places, written[:, 1:].tolist()):
                found[i] = row[: row.index(end)] if end in row else row
        translating = time.perf_counter() - begun
    json.dump(found, open(os.path.join(args.folder, f"torch-{args.mode}.ids.json"), "w"))
    print(json.dumps(dict(
        who=f"torch-{torch.__version__}-{args.mode}", steps=steps, parameters=parameters, seconds=round(seconds, 2),
        tokens_per_s=round(tokens / seconds, 1), nats_per_token=round(total / count, 4), translate_s=round(translating, 2), peak_mb=peak)))


main()
