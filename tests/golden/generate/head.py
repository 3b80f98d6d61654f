"""The output head's loss, log-probabilities and entropies, and pooling, in PyTorch -> ../fixtures/head/

    python head.py
"""

import itertools

import torch
import torch.nn.functional as F
from common import check, fresh_folder, save_golden

SEED = 47
ROWS, WIDTH, CLASSES = 9, 8, 37
LENGTHS = [3, 1, 5]
OPTIONS = {
    "default": dict(),
    "temperature": dict(temperature=0.7),
    "soft_cap": dict(soft_cap=3.0),
    "smoothing": dict(smoothing=0.15),
    "all": dict(temperature=1.4, soft_cap=2.5, smoothing=0.1),
}


def leaves(tied, random):
    normal = lambda *shape: torch.randn(shape, generator=random).requires_grad_()
    hidden, weight, bias = normal(ROWS, WIDTH), normal(CLASSES, WIDTH), normal(CLASSES)
    ids = torch.randint(CLASSES, (ROWS,), generator=random)
    states = hidden + F.embedding(ids, weight) if tied else hidden
    return hidden, weight, bias, ids, states


def logits(states, weight, bias, temperature=1.0, soft_cap=None):
    raw = states @ weight.T + bias
    return (raw if soft_cap is None else soft_cap * torch.tanh(raw / soft_cap)) / temperature


def head(golden, name, tied, smoothing=0.0, **options):
    random = torch.Generator().manual_seed(SEED)
    targets = torch.randint(CLASSES, (ROWS,), generator=random)
    weights, by_log_probability, by_entropy = (torch.randn(ROWS, generator=random) for _ in range(3))
    golden.update({"targets": targets, "weights": weights, "by_log_probability": by_log_probability, "by_entropy": by_entropy})

    def record(kind, value, parameters):
        value.backward()
        golden.update({f"{name}.{kind}.grad.{key}": leaf.grad for key, leaf in zip(("hidden", "weight", "bias"), parameters)})

    *parameters, ids, states = leaves(tied, random)
    golden.update({"ids": ids, **{key: leaf.detach() for key, leaf in zip(("hidden", "weight", "bias"), parameters)}})
    per_row = F.cross_entropy(logits(states, *parameters[1:], **options), targets, reduction="none", label_smoothing=smoothing)
    loss = (weights * per_row).sum()
    golden[f"{name}.loss"] = loss[None]
    record("loss", loss, parameters)

    parameters = [leaf.detach().clone().requires_grad_() for leaf in parameters]
    states = parameters[0] + F.embedding(ids, parameters[1]) if tied else parameters[0]
    distribution = torch.distributions.Categorical(logits=logits(states, *parameters[1:], **options))
    log_probability, entropy = distribution.log_prob(targets), distribution.entropy()
    golden[f"{name}.log_probability"], golden[f"{name}.entropy"] = log_probability, entropy
    record("log_probability", (by_log_probability * log_probability + by_entropy * entropy).sum(), parameters)


def pooling(golden):
    random = torch.Generator().manual_seed(SEED + 1)
    # Halves, so that some columns have their largest value twice.
    values = torch.round(torch.randn((sum(LENGTHS), WIDTH), generator=random) * 2) / 2
    is_largest = [rows == rows.max(0).values for rows in values.split(LENGTHS)]
    assert any((n > 1).any() for n in (largest.sum(0) for largest in is_largest)), "no column has its largest value twice"
    upstream = torch.randn((len(LENGTHS), WIDTH), generator=random)
    golden.update({"pool.x": values, "pool.upstream": upstream})
    kinds = {
        "mean": lambda rows: rows.mean(0),
        "max": lambda rows: rows.max(0).values,
        "cls": lambda rows: rows[0],
        "last": lambda rows: rows[-1],
    }
    for (kind, pool), normalize in itertools.product(kinds.items(), (False, True)):
        x = values.clone().requires_grad_()
        out = torch.stack([pool(rows) for rows in x.split(LENGTHS)])
        out = F.normalize(out) if normalize else out
        (out * upstream).sum().backward()
        name = f"pool.{kind}{'.normalized' if normalize else ''}"
        golden.update({name: out, f"{name}.grad": x.grad})


def main():
    folder = fresh_folder("head")
    folder.mkdir(parents=True)
    golden = {}
    for (name, options), tied in itertools.product(OPTIONS.items(), (False, True)):
        head(golden, f"{name}{'.tied' if tied else ''}", tied, **options)
    pooling(golden)
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
