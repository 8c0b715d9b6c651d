"""Compares a model that danlu imported from a GGUF file with llama.cpp, which computes with the blocks, and with transformers.

    danlu models pull smollm2
    cargo build --release -p danlu-engine --example peer
    python tests/peers/gguf_parity.py target/release/examples/peer MODEL_FOLDER SOURCE.gguf

MODEL_FOLDER is the registered model (`danlu models show smollm2` names it); SOURCE.gguf is the file it came from. Checked:
 1. texts are split into the same tokens by llama.cpp and by danlu;
 2. dequantized weights are, bit for bit, those of the gguf package;
 3. greedy text on danlu's own F32 export in llama.cpp equals danlu's, 64 tokens for each of 20 prompts: the same weights, the same
    arithmetic up to rounding. Where they part, danlu's two likeliest tokens must be nearly equal;
 4. the same against the quantized file, where llama.cpp also rounds activations to 8 bits, from danlu's floats and from its blocks: how
    many agree, and how far apart the two likeliest tokens are where they part, is shown;
 5. perplexity on a fixed text within 1 % of both, and from danlu's blocks of llama.cpp's on the same file;
 6. transformers loads the folder and gives danlu's logits within 1e-4 of the largest.

Needs llama-cpp-python, gguf, torch and transformers.
"""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from llama_cpp import Llama
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

WRITE = 64
# Logits in 32 bits differ between programs by about this much; the two likeliest tokens may change places within it.
TIE = 2e-3
QUESTIONS = [
    "What is the capital of France?", "Explain what a furnace does.", "Write a short poem about the sea.", "List three kinds of fruit.",
    "How do plants make food?", "Why is the sky blue?", "What is a prime number?", "Tell me about the Roman Empire.",
    "How many legs does a spider have?", "Write a sentence with the word lantern.", "What is the boiling point of water?",
    "Who wrote Hamlet?",
]
BEGINNINGS = [
    "The city of", "Once upon a time", "In 1998, the", "def fibonacci(n):\n", "The three laws of motion are", "A recipe for bread:\n1.",
    "Dear Sir or Madam,", "The capital of Japan is", "fn main() {\n    ", "Photosynthesis is the process by which",
]
TEXTS = [
    "Hello, world! It's 2026, isn't it? They'll say we'd've gone.", "  leading and   inner    spaces  ", "tabs\tand\nlines\r\n\r\n\nends\n",
    "1234567890 3.14159 1,000,000 ½ ² ٣٤", "中文句子，标点。炼丹炉 2026 年", "日本語のテキストと한국어 문장", "Ελληνικά, русский, עברית, العربية",
    "हिन्दी में लिखा गया", "👩‍🔬🔥 emoji 🇫🇷", "fn main() { println!(\"{:?}\", x <<= 2); } // comment", "<|im_start|>user\nhi<|im_end|>",
    "e\u0301 combining, \u00a0nbsp, \u2003em space, \u200bzero width", "", " ", "\n", "a" * 300, "'s 'S 're 'LL n't", "https://example.org/a?b=c&d=%20#e",
    "x²+y²=z²; ∑ᵢ aᵢ ≤ ∞", "snake_case camelCase SCREAMING_CASE kebab-case", "\x00\x01\x7f control", "ﬁ ligature ǅ titlecase ß",
]
FIXED = """The furnace stood in the corner of the workshop, and nobody had lit it for years. When the alchemist's daughter came home she swept the
floor, opened the shutters, and looked for the book in which her father had written down what he had learned. Most of its pages were about
metals: how lead melts sooner than silver, why iron must be struck while it is hot, what colour copper gives to a flame. The last pages
were different. They said that the furnace was only a place to wait, and that what changes in the end is the person who keeps the fire.
She read them twice, put the book back on its shelf, and went to fetch wood. By evening the chimney was warm again. The neighbours, who had
thought the house empty, saw the smoke and came to ask whether anyone needed help; she gave them tea and told them that the work would take a
long time, perhaps a year, and that she would be glad of company. Photosynthesis is the process by which green plants turn light, water and
carbon dioxide into sugar and oxygen. The rate at which it happens depends on temperature, on the colour and strength of the light, and on
how much water the roots can find. In 1779 Jan Ingenhousz showed that plants need light to give off oxygen, and that only their green parts do."""


class Danlu:
    def __init__(self, binary, *arguments):
        self.child = subprocess.Popen([binary, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **question):
        self.child.stdin.write(json.dumps(question) + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        if not answer:
            sys.exit("danlu ended without an answer")
        return json.loads(answer)


def prompts(tokenizer):
    chats = [tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False) for text in QUESTIONS]
    return [tokenizer.encode(text, add_special_tokens=False) for text in chats + BEGINNINGS]


def open_llama(path, **options):
    return Llama(str(path), n_ctx=1024, n_threads=2, logits_all=True, verbose=False, **options)


def llama_greedy(llama, ids):
    llama.reset()
    llama.eval(ids)
    written = []
    for _ in range(WRITE):
        written.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        llama.eval(written[-1:])
    return written


def llama_perplexity(llama, ids):
    llama.reset()
    llama.eval(ids)
    logits = torch.tensor(llama.scores[:len(ids) - 1], dtype=torch.float64)
    return math.exp(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item())


def compare_text(name, llama, danlu, all_ids, must_tie):
    """Greedy texts; where they part, how far danlu's two likeliest tokens are from each other there."""
    equal, parted = 0, []
    for ids in all_ids:
        ours, theirs = danlu.ask(ids=ids, write=WRITE), llama_greedy(llama, ids)
        first = next((i for i, (a, b) in enumerate(zip(ours["written"], theirs)) if a != b), None)
        if first is None:
            equal += 1
        else:
            parted.append((first, ours["margins"][first]))
    print(f"{name}: {equal} of {len(all_ids)} texts of {WRITE} tokens equal; parted (at token, margin): "
          + (", ".join(f"{at} {margin:.4f}" for at, margin in parted) or "none"))
    return not must_tie or all(margin <= TIE for _, margin in parted)


def compare_weights(source, folder):
    """Each weight of the folder is the one the gguf package reads, but for the order of the rows of queries and keys."""
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    parts = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    reader, equal = GGUFReader(source), 0
    width = int(reader.fields["llama.rope.dimension_count"].parts[-1][0])
    with safe_open(folder / "model.safetensors", "np") as weights:
        for tensor in reader.tensors:
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            module, kind = tensor.name.rsplit(".", 1)
            if module.startswith("blk."):
                _, layer, part = module.split(".")
                module = f"model.layers.{layer}.{parts[part]}"
                if part in ("attn_q", "attn_k"):
                    heads = values.reshape(-1, width // 2, 2, values.shape[-1])
                    values = heads.swapaxes(1, 2).reshape(values.shape)
            else:
                module = names[module]
            equal += np.array_equal(values, weights.get_tensor(f"{module}.{kind}"))
    print(f"weights: {equal} of {len(reader.tensors)} tensors equal bit for bit")
    return equal == len(reader.tensors)


def main(binary, folder, source):
    passed = {}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as temporary:
        exported = pathlib.Path(temporary) / "exported.gguf"
        danlu = Danlu(binary, folder, source, exported, "F32")
        # Its first answer shows that the file is written.
        ids = danlu.ask(text=FIXED)["ids"]
        # Type 0 is F32: llama.cpp otherwise keeps keys and values in 16 bits.
        quantized, whole = open_llama(source), open_llama(exported, type_k=0, type_v=0)

        texts = TEXTS + [FIXED, *QUESTIONS, *BEGINNINGS, pathlib.Path(__file__).read_text()[:20_000]]
        split = [(text, danlu.ask(text=text)["ids"], quantized.tokenize(text.encode(), add_bos=False, special=False)) for text in texts]
        wrong = [text[:60] for text, ours, theirs in split if ours != theirs]
        plain = [text for text, ours, _ in split if "<|" not in text and ours != tokenizer.encode(text, add_special_tokens=False)]
        print(f"tokens: {len(texts) - len(wrong)} of {len(texts)} texts as llama.cpp {wrong or ''}; {len(plain)} unlike transformers")
        passed["tokens"] = not wrong and not plain
        special = tokenizer.apply_chat_template([{"role": "user", "content": QUESTIONS[0]}], add_generation_prompt=True, tokenize=False)
        passed["chat tokens"] = tokenizer.encode(special, add_special_tokens=False) == quantized.tokenize(special.encode(), add_bos=False, special=True)

        passed["weights"] = compare_weights(source, folder)
        all_ids = prompts(tokenizer)
        passed["text, F32"] = compare_text("llama.cpp on danlu's F32 export", whole, danlu, all_ids, must_tie=True)
        compare_text(f"llama.cpp on {source.name}", quantized, danlu, all_ids, must_tie=False)
        blocks = Danlu(binary, folder, "blocks")
        compare_text(f"llama.cpp on {source.name}, danlu in blocks", quantized, blocks, all_ids, must_tie=False)

        answer = danlu.ask(ids=ids)
        ours = math.exp(sum(answer["nll"]) / len(answer["nll"]))
        for name, llama in [("F32 export", whole), (source.name, quantized)]:
            theirs = llama_perplexity(llama, ids)
            print(f"perplexity of {len(ids)} tokens: danlu {ours:.4f}, llama.cpp on {name} {theirs:.4f} ({100 * (theirs / ours - 1):+.3f} %)")
            passed[f"perplexity, {name}"] = abs(theirs / ours - 1) <= 0.01
        answer_of_blocks = blocks.ask(ids=ids)["nll"]
        ours = math.exp(sum(answer_of_blocks) / len(answer_of_blocks))
        print(f"in blocks: danlu {ours:.4f}, llama.cpp {theirs:.4f} ({100 * (theirs / ours - 1):+.3f} %)")
        passed["perplexity, both in blocks"] = abs(theirs / ours - 1) <= 0.01

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1]
        gap = (torch.tensor(answer["last_logits"]) - expected).abs().max().item() / expected.abs().max().item()
        print(f"transformers: largest difference of logits {gap:.1e} of the largest")
        passed["transformers"] = gap <= 1e-4
    failed = [name for name, passed in passed.items() if not passed]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
