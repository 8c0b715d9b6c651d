"""A plain nanoGPT-style training run on a danlu token set, the rival of danlu's recipe for time to quality.

    python bench/nanogpt_run.py --tokens ~/.danlu/data/wiki-leads/tokens-XXXX --minutes 10 --layers 4 --width 256

nanoGPT's model (learned positions, LayerNorm, GELU, tied head) and recipe (AdamW, beta2 0.99, weight decay 0.1, clip 1.0, warm-up,
cosine to a tenth), random windows of the token stream. The schedule follows the time spent, so that the run always ends at the end of
its cosine; compiling and measuring do not count. Held-out text is measured as danlu measures it: every document by itself, from the
end-of-text token on, in bits per byte of its text; its end is included, which danlu does not count (0.2 % more). Prints one JSON row per measure.
"""

import argparse, glob, json, math, os, time
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F


def read_split(folder, split):
    """Tokens and document index (first token, bytes) of a split, from danlu's files: a header of 128 bytes, then numbers."""
    manifest = json.load(open(os.path.join(folder, "manifest.json")))
    tokens = []
    for path in sorted(glob.glob(os.path.join(folder, f"{split}-*.tokens"))):
        header = np.fromfile(path, dtype=np.uint8, count=128)
        width = int(header[12:16].view("<u4")[0])
        tokens.append(np.fromfile(path, dtype={2: "<u2", 4: "<u4"}[width], offset=128).astype(np.int64))
    index = np.fromfile(os.path.join(folder, f"{split}.index"), dtype="<u8", offset=128).reshape(-1, 2)
    return np.concatenate(tokens), index, manifest["vocab_size"], manifest["end_of_text"]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, vocabulary, context, layers, width, heads):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, 0, 0.02 / math.sqrt(2 * layers) if deep else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids, targets):
        x = self.embed(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")


@torch.no_grad()
def bits_per_byte(model, tokens, index, context, limit):
    """Documents one by one, in windows of the context, batched by padding."""
    model.eval()
    ends = np.append(index[1:, 0], len(tokens))
    windows, size = [], 0
    for (start, length), end in zip(index, ends):
        if windows and sum(len(w) - 1 for w in windows[-1:]) and size > limit:
            break
        size += int(length)
        # A document stands as [end-of-text, its tokens]; its end is the end-of-text that follows.
        document = np.append(tokens[int(start):int(end)], tokens[int(start)])
        for at in range(0, len(document) - 1, context):
            windows.append(document[at:at + context + 1])
    nats, batch = 0.0, 32
    windows.sort(key=len)
    for at in range(0, len(windows), batch):
        group = windows[at:at + batch]
        longest = max(map(len, group))
        ids, targets = np.zeros((len(group), longest - 1), np.int64), np.full((len(group), longest - 1), -1, np.int64)
        for row, window in enumerate(group):
            ids[row, : len(window) - 1], targets[row, : len(window) - 1] = window[:-1], window[1:]
        nats += model(torch.from_numpy(ids), torch.from_numpy(targets)).item()
    model.train()
    return nats / math.log(2) / size


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--limit", type=int, default=1 << 40, help="bytes of held-out text")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(1337)
    rng = np.random.default_rng(1337)
    tokens, _, vocabulary, _ = read_split(args.tokens, "train")
    held_out, index, _, _ = read_split(args.tokens, "held_out")
    plain = GPT(vocabulary, args.context, args.layers, args.width, args.heads)
    model = plain if args.eager else torch.compile(plain)
    matrices = [p for p in plain.parameters() if p.dim() > 1]
    vectors = [p for p in plain.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                                  lr=args.rate, betas=(0.9, 0.99), fused=True)
    budget, spent, step, next_measure = args.minutes * 60, 0.0, 0, 0.0
    parameters = sum(p.numel() for p in plain.parameters())

    def batch():
        starts = rng.integers(0, len(tokens) - args.context - 1, args.batch)
        window = np.stack([tokens[s:s + args.context + 1] for s in starts])
        return torch.from_numpy(window[:, :-1].copy()), torch.from_numpy(window[:, 1:].copy())

    def measure():
        value = bits_per_byte(plain, held_out, index, args.context, args.limit)
        print(json.dumps(dict(who="nanogpt-torch", step=step, seconds=round(spent, 1), tokens=step * args.batch * args.context,
                              parameters=parameters, bits_per_byte=round(value, 4))), flush=True)

    ids, targets = batch()
    model(ids, targets).backward()
    optimizer.zero_grad(set_to_none=True)
    while spent < budget:
        if spent >= next_measure:
            measure()
            next_measure += budget / 10
        begun = time.perf_counter()
        share = min(1.0, (step + 1) / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * spent / budget)))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * share
        ids, targets = batch()
        loss = model(ids, targets) / targets.numel()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        spent += time.perf_counter() - begun
    measure()


if __name__ == "__main__":
    main()
