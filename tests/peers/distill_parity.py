"""Compares the loss of a student that learns from a teacher, and its gradients, with PyTorch's and TRL's on fixed batches.

    cargo build --release -p danlu-ops --example distill
    python tests/peers/distill_parity.py target/release/examples/distill

The divergences are written out with torch's functions, and checked against TRL's generalized Jensen-Shannon loss where that has them. Needs
torch and trl.
"""

import json
import subprocess
import sys

import torch
import torch.nn.functional as F

try:
    from trl.experimental.gkd import GKDTrainer
except ImportError:
    from trl import GKDTrainer

# The reference is in 64 bits; what is compared is what 32 bits leave.
BOUND = 2e-5
TOKENS, CHANNELS, TEACHER_CHANNELS, VOCABULARY = 37, 12, 20, 301


def reference(tensors, targets, divergence, temperature, hard):
    student, teacher = tensors["x"] @ tensors["weight"].T, tensors["teacher_x"] @ tensors["teacher_weight"].T
    carries = targets >= 0
    log_q, log_p = F.log_softmax(student / temperature, -1)[carries], F.log_softmax(teacher / temperature, -1)[carries]
    if divergence == "forward":
        soft = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    elif divergence == "reverse":
        soft = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    else:
        log_m = torch.log((1 - divergence) * log_q.exp() + divergence * log_p.exp())
        soft = (divergence * F.kl_div(log_m, log_p, reduction="batchmean", log_target=True)
                + (1 - divergence) * F.kl_div(log_m, log_q, reduction="batchmean", log_target=True))
    beta = {"forward": 0.0, "reverse": 1.0}.get(divergence, divergence)
    labels = torch.where(carries, targets, -100)
    theirs = GKDTrainer.generalized_jsd_loss(student[None], teacher[None], labels[None], beta=beta, temperature=temperature)
    # Where all terms are equal, so are their sums; TRL divides by the tokens that carry loss, too.
    assert abs(theirs.item() - soft.item()) < 1e-5 * max(1, abs(soft.item())), (divergence, theirs.item(), soft.item())
    soft = soft * temperature ** 2
    nll = F.cross_entropy(student, labels)
    return hard * nll + (1 - hard) * soft, nll, soft


def main(binary):
    worst = 0.0
    for divergence in ["forward", "reverse", 0.1, 0.5, 0.9]:
        for temperature, hard in [(1.0, 0.0), (2.0, 0.3), (0.7, 0.5), (1.0, 1.0)]:
            torch.manual_seed(7)
            shapes = {"x": (TOKENS, CHANNELS), "weight": (VOCABULARY, CHANNELS), "teacher_x": (TOKENS, TEACHER_CHANNELS),
                      "teacher_weight": (VOCABULARY, TEACHER_CHANNELS)}
            tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
            targets = torch.randint(0, VOCABULARY, (TOKENS,))
            targets[::4] = -100
            question = {name: tensor.flatten().tolist() for name, tensor in tensors.items()}
            question |= {"shapes": shapes, "targets": [t if t >= 0 else None for t in targets.tolist()], "divergence": divergence,
                         "temperature": temperature, "hard": hard}
            done = subprocess.run([binary], input=json.dumps(question), capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{binary} failed:\n{done.stderr}")
            ours = json.loads(done.stdout)
            tensors = {name: tensor.double() for name, tensor in tensors.items()}
            leaves = {name: tensors[name].requires_grad_() for name in ("x", "weight")}
            loss, nll, soft = reference(tensors, targets, divergence, temperature, hard)
            loss.backward()
            gaps = [abs(ours[name] - value.item()) / max(1, abs(value.item())) for name, value in [("loss", loss), ("nll", nll), ("soft", soft)]]
            for name, key in [("x", "dx"), ("weight", "dw")]:
                gradient = leaves[name].grad.flatten()
                gaps.append((torch.tensor(ours[key]) - gradient).norm().item() / gradient.norm().item())
            worst = max(worst, *gaps)
            print(f"{divergence!s:8} temperature {temperature} hard {hard}: loss {ours['loss']:.5f}, torch {loss.item():.5f}; "
                  f"largest relative difference of values and gradients {max(gaps):.1e}", flush=True)
    print(f"worst {worst:.1e}, bound {BOUND:.0e}")
    sys.exit(0 if worst <= BOUND else "they differ")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
