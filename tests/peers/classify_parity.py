"""Compares danlu's encoders, heads, features and fine-tuning with transformers, tokenizers and scikit-learn.

    cargo build --release --workspace --examples --bins
    python tests/peers/classify_parity.py encoder    target/release MINILM_FOLDER SENTENCES.txt
    python tests/peers/classify_parity.py heads      target/release
    python tests/peers/classify_parity.py fixtures   crates/danlu-models/tests/fixtures

    python tests/peers/classify_parity.py steps      target/release
    python tests/peers/classify_parity.py features   target/release REVIEWS.jsonl

`encoder`: all-MiniLM as `danlu models pull minilm` leaves it, on a hundred sentences: tokens, hidden states and mean-pooled embeddings
within 1e-4, and the folder saved by danlu loaded again by transformers. `heads`: every head on every backbone, with random weights, in
both directions, and BERT's head for masked words. `steps`: the losses of 20 steps of fine-tuning within 1e-3. `features`: n-grams as
TfidfVectorizer has them, and what logistic regression reaches on them.

Needs torch, transformers and safetensors; `features` needs scikit-learn.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import program
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification
from transformers import AutoModelForTokenClassification, AutoTokenizer

BOUND = 1e-4
COMMON = dict(vocab_size=61, num_hidden_layers=2, hidden_size=16, num_attention_heads=4, intermediate_size=24, max_position_embeddings=64)
SHAPES = {
    "bert": dict(COMMON, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    "llama": dict(COMMON, num_key_value_heads=2),
    "qwen3": dict(COMMON, num_key_value_heads=2, head_dim=6),
    "gpt2": dict(vocab_size=61, n_positions=64, n_embd=16, n_layer=2, n_head=4),
}
HEADS = {
    "sequence": (AutoModelForSequenceClassification, dict(num_labels=3)),
    "regression": (AutoModelForSequenceClassification, dict(num_labels=1, problem_type="regression")),
    "tokens": (AutoModelForTokenClassification, dict(num_labels=5)),
}


def danlu(release, folder, texts, save=None):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
        file.flush()
        return program.rows(pathlib.Path(release) / "examples" / "states", folder, file.name, *([save] if save else []))


def gap(ours, theirs):
    ours = torch.tensor(ours)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return (ours - theirs).abs().max().item()


def random_weights(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            one = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_((1.0 if one else 0.0) + (0.2 if parameter.dim() == 1 else 0.1) * torch.randn_like(parameter))
    return model.eval()


def model_of(kind, head, seed):
    cls, extra = HEADS[head] if head in HEADS else (AutoModelForMaskedLM, {})
    config = AutoConfig.for_model(kind, **SHAPES[kind], **extra, pad_token_id=60)
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0
    return random_weights(cls.from_config(config), seed), cls


def texts_of(kind, seed):
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for length in (3, 17, 40):
        ids = torch.randint(1, 59, (length,), generator=generator).tolist()
        kinds = [0] * (length // 2) + [1] * (length - length // 2) if kind == "bert" else [0] * length
        texts.append(dict(ids=ids, kinds=kinds))
    return texts


def logits_of(model, kind, text):
    extra = dict(token_type_ids=torch.tensor([text["kinds"]])) if kind == "bert" else {}
    with torch.no_grad():
        logits = model(torch.tensor([text["ids"]]), **extra).logits
    return logits[0] if logits.dim() == 3 else logits


def heads(arguments):
    worst = 0.0
    for kind in SHAPES:
        for head in list(HEADS) + (["masked"] if kind == "bert" else []):
            model, cls = model_of(kind, head, seed=len(kind) + len(head))
            texts = texts_of(kind, 3)
            with tempfile.TemporaryDirectory() as folder:
                theirs, ours = pathlib.Path(folder, "theirs"), pathlib.Path(folder, "ours")
                model.save_pretrained(theirs)
                key = "masked" if head == "masked" else "logits"
                found = danlu(arguments.release, theirs, texts, ours)
                again = cls.from_pretrained(ours).eval()
                forward = max(gap(line[key], logits_of(model, kind, text)) for line, text in zip(found, texts))
                back = max((logits_of(again, kind, text) - logits_of(model, kind, text)).abs().max().item() for text in texts)
            print(f"{kind:6} {head:10} transformers → danlu {forward:.2e}   danlu → transformers {back:.2e}")
            worst = max(worst, forward, back)
    return worst


def encoder(arguments):
    folder = pathlib.Path(arguments.folder)
    lines = [line.strip() for line in open(arguments.sentences, encoding="utf8") if line.strip()][:100]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    encoded = [tokenizer(line, truncation=True, max_length=256)["input_ids"] for line in lines]
    with tempfile.TemporaryDirectory() as saved:
        found = danlu(arguments.release, folder, encoded, saved)
        again = AutoModel.from_pretrained(saved).eval()
        hidden = pooled = back = 0.0
        for ids, line in zip(encoded, found):
            with torch.no_grad():
                theirs, roundtrip = (m(torch.tensor([ids])).last_hidden_state[0] for m in (model, again))
            ours = torch.tensor(line["hidden"])
            hidden, back = max(hidden, gap(line["hidden"], theirs)), max(back, (roundtrip - theirs).abs().max().item())
            unit = [torch.nn.functional.normalize(states.mean(0), dim=0) for states in (ours, theirs)]
            pooled = max(pooled, (unit[0] - unit[1]).abs().max().item())
    print(f"{len(lines)} sentences, {sum(map(len, encoded))} tokens: hidden states {hidden:.2e}, embeddings {pooled:.2e}, saved by danlu {back:.2e}")
    return max(hidden, pooled, back)


def steps(arguments):
    worst = 0.0
    for kind in SHAPES:
        for head in HEADS:
            model, _ = model_of(kind, head, seed=7)
            rows = []
            for i in range(24):
                text = texts_of(kind, i)[i % 2]
                label = dict(label=i % 3) if head == "sequence" else dict(number=float(i % 5))
                if head == "tokens":
                    label = dict(tags=[None if j % 3 == 0 else (i + j) % 5 for j in range(len(text["ids"]))])
                rows.append(dict(text, **label))
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                file = pathlib.Path(folder, "rows.jsonl")
                file.write_text("".join(json.dumps(row) + "\n" for row in rows))
                first, *found = program.rows(pathlib.Path(arguments.release) / "examples" / "classify", folder, file)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
            difference = 0.0
            for step, line in enumerate(found):
                batch = [rows[i] for i in first["order"][step * first["batch"]:][: first["batch"]]]
                length = max(len(row["ids"]) for row in batch)
                pad = lambda values, filler: values + [filler] * (length - len(values))
                inputs = dict(input_ids=torch.tensor([pad(row["ids"], 60) for row in batch]),
                              attention_mask=torch.tensor([pad([1] * len(row["ids"]), 0) for row in batch]))
                if kind == "bert":
                    inputs["token_type_ids"] = torch.tensor([pad(row["kinds"], 0) for row in batch])
                if head == "tokens":
                    labels = torch.tensor([pad([-100 if tag is None else tag for tag in row["tags"]], -100) for row in batch])
                else:
                    labels = torch.tensor([row["label"] if head == "sequence" else row["number"] for row in batch])
                loss = model(**inputs, labels=labels).loss
                difference = max(difference, abs(loss.item() - line["loss"]))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            print(f"{kind:6} {head:10} {len(found)} steps, losses {found[0]['loss']:.4f} … {found[-1]['loss']:.4f}, worst difference {difference:.2e}")
            worst = max(worst, difference)
    arguments.bound = 1e-3
    return worst


def features(arguments):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    names, *rows = program.rows(pathlib.Path(arguments.release) / "examples" / "labelled", arguments.texts, 1, 3, 50000)
    train, held_out = ([row for row in rows if row["held_out"] == side] for side in (False, True))
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), vocabulary=names)
    fitted, asked = (vectorizer.fit_transform if side else vectorizer.transform for side in (1, 0))
    x, y = fitted(row["text"] for row in train), [row["label"] for row in train]
    z, w = asked(row["text"] for row in held_out), [row["label"] for row in held_out]
    worst = 0.0
    for i, row in enumerate(train[:2000]):
        theirs = dict(zip(x[i].indices.tolist(), x[i].data.tolist()))
        ours = dict((place, value) for place, value in row["features"])
        worst = max([worst] + [abs(theirs.get(place, 0.0) - ours.get(place, 0.0)) for place in theirs.keys() | ours.keys()])
    for strength in (1.0, 4.0, 16.0):
        guessed = LogisticRegression(C=strength, max_iter=1000).fit(x, y).predict(z)
        print(f"logistic regression, C={strength:g}: accuracy {accuracy_score(w, guessed):.4f}, macro-F1 {f1_score(w, guessed, average='macro'):.4f}"
              f" ({len(train)} to train on, {len(held_out)} held out, {len(names)} n-grams)")
    return worst


def fixtures(arguments):
    for kind, head in [("bert", "sequence"), ("bert", "masked"), ("llama", "sequence"), ("qwen3", "tokens"), ("gpt2", "tokens")]:
        model, _ = model_of(kind, head, seed=5)
        folder = pathlib.Path(arguments.folder, f"{kind}-{head}")
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        texts = texts_of(kind, 4)[:2]
        expected = [dict(text, logits=logits_of(model, kind, text).tolist()) for text in texts]
        (folder / "expected.json").write_text(json.dumps(expected) + "\n")
        print(folder)
    return 0.0


parser = argparse.ArgumentParser()
verbs = parser.add_subparsers(required=True)
takes_of = [(encoder, ("release", "folder", "sentences")), (heads, ("release",)), (steps, ("release",)), (features, ("release", "texts")),
            (fixtures, ("folder",))]
for verb, takes in takes_of:
    sub = verbs.add_parser(verb.__name__)
    for name in takes:
        sub.add_argument(name)
    sub.set_defaults(run=verb, bound=BOUND)
arguments = parser.parse_args()
print("transformers", transformers.__version__, "torch", torch.__version__)
worst = arguments.run(arguments)
print("worst", f"{worst:.2e}")
sys.exit(worst > arguments.bound)
