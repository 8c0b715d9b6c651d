"""One training step in PyTorch, the rival of `cargo run --release -p danlu-train --example step`.

    python bench/torch_step.py --shape llama-6x384 --mode eager|compile --steps 8 [--device cuda --precision bf16 --rows 16 --row-len 1024]

Same shapes, f32 (or autocast to bf16), two threads, AdamW. Prints one JSON row. The models are written the way nanoGPT writes them: fused attention,
`F.rms_norm` / `F.layer_norm`, one matrix for q, k and v.
"""

import argparse, json, math, resource, time
import torch, torch.nn as nn, torch.nn.functional as F

SHAPES = {
    "llama-6x384": dict(kind="llama", layers=6, width=384, heads=6, inner=1024, context=256, batch=8, vocabulary=4096),
    "gpt2-12x768": dict(kind="gpt2", layers=12, width=768, heads=12, inner=3072, context=512, batch=2, vocabulary=50257),
}


class Norm(nn.Module):
    def __init__(self, width, kind):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if kind == "gpt2" else None

    def forward(self, x):
        if self.bias is None:
            return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Block(nn.Module):
    def __init__(self, kind, width, heads, inner):
        super().__init__()
        bias = kind == "gpt2"
        self.kind, self.heads = kind, heads
        self.norm1, self.norm2 = Norm(width, kind), Norm(width, kind)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.up = nn.Linear(width, inner * (1 if bias else 2), bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x, cos, sin):
        batch, time_, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time_, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.kind == "llama":
            q, k = rope(q, cos, sin), rope(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        hidden = self.up(self.norm2(x))
        if self.kind == "llama":
            gate, up = hidden.chunk(2, -1)
            return x + self.down(F.silu(gate) * up)
        return x + self.down(F.gelu(hidden, approximate="tanh"))


def rope(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Decoder(nn.Module):
    def __init__(self, kind, layers, width, heads, inner, context, batch, vocabulary):
        super().__init__()
        self.kind, self.vocabulary = kind, vocabulary
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width) if kind == "gpt2" else None
        self.blocks = nn.ModuleList(Block(kind, width, heads, inner) for _ in range(layers))
        self.norm = Norm(width, kind)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.02)
        if kind == "gpt2":
            self.head.weight = self.embed.weight
        frequencies = 1.0 / (10000 ** (torch.arange(0, width // heads, 2).float() / (width // heads)))
        angles = torch.outer(torch.arange(context).float(), frequencies)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids, targets):
        x = self.embed(ids)
        if self.position is not None:
            x = x + self.position.weight
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, self.vocabulary), targets.view(-1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="llama-6x384")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--row-len", type=int)
    args = parser.parse_args()
    if args.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = dict(SHAPES[args.shape])
    shape.update({key: value for key, value in [("batch", args.rows), ("context", args.row_len)] if value})
    model = Decoder(**shape).to(args.device)
    # The foreach AdamW is PyTorch's default; the fused one measured the same within noise.
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95))
    forward = torch.compile(model) if args.mode == "compile" else model
    batch, context, vocabulary = shape["batch"], shape["context"], shape["vocabulary"]
    at = lambda i, j: (i * 31 + j * 17 + (i * j) % 7) % vocabulary
    ids = torch.tensor([[at(i, j) for j in range(context)] for i in range(batch)]).to(args.device)
    targets = torch.tensor([[at(i, j + 1) for j in range(context)] for i in range(batch)]).to(args.device)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
            loss = forward(ids, targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(2):
        loss = step()
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds)[len(seconds) // 2]
    print(json.dumps(dict(
        who=f"torch-{torch.__version__}-{args.mode}", shape=args.shape, loss=round(loss, 4), median_ms=round(median * 1e3, 1),
        best_ms=round(min(seconds) * 1e3, 1), tokens_per_s=round(batch * context / median, 1),
        rows=batch, row_len=context, device=args.device, precision=args.precision,
        device_mb=round(torch.cuda.max_memory_reserved() / 2**20) if args.device == "cuda" else None,
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        parameters=sum(p.numel() for p in model.parameters()))))


main()
