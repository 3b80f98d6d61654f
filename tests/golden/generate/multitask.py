"""A BertModel with heads for a class, a number and tags: losses and gradients of one mixed batch, PCGrad, and the weights that FAMO and
uncertainty learn -> ../fixtures/multitask/

    python multitask.py
"""

import json

import torch
import transformers
from common import bert_config, check, fresh_folder, ragged, randomize, save_golden, save_model
from safetensors.torch import save_file

SEED = 52
LENGTHS = [5, 9, 3, 7, 8, 6, 4]
# Which rows are whose, the tasks in the order of their names.
ROWS = {"mood": [0, 1, 2], "score": [3, 4], "tags": [5, 6]}
WEIGHTS = {"mood": 1.5, "score": 0.5, "tags": 1.0}
N_STEPS = 8
LEARNING_RATE = 0.025
DECAY = 1e-3


def task_losses(model, heads, batch):
    out = model(**{name: batch[name] for name in ["input_ids", "attention_mask", "token_type_ids"]})
    mood, score = (heads[name](out.pooler_output[ROWS[name]]) for name in ["mood", "score"])
    tags = heads["tags"](out.last_hidden_state[ROWS["tags"]])
    return {
        "mood": torch.nn.functional.cross_entropy(mood, batch["mood"]),
        "score": torch.nn.functional.mse_loss(score[:, 0], batch["score"]),
        "tags": torch.nn.functional.cross_entropy(tags.flatten(0, 1), batch["tags"].flatten(), ignore_index=-100),
    }


def gradients(model, heads, loss):
    model.zero_grad()
    heads.zero_grad()
    loss.backward()
    named = [*model.named_parameters(), *((f"heads.{name}", parameter) for name, parameter in heads.named_parameters())]
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None and parameter.grad.abs().sum() > 0}


def pcgrad(gradients):
    """Two tasks: each shared gradient without what it has against the other; those of the heads as they are."""
    shared = [name for name in gradients[0] if name in gradients[1]]
    flat = [torch.cat([of_task[name].flatten() for name in shared]) for of_task in gradients]
    product = flat[0] @ flat[1]
    cosine = product / flat[0].norm() / flat[1].norm()
    assert product < 0, f"the tasks do not conflict: {product}"
    projected = {name: grad for of_task in gradients for name, grad in of_task.items() if name not in shared}
    sums = [flat[one] - product / (flat[other] @ flat[other]) * flat[other] for one, other in [(0, 1), (1, 0)]]
    sizes = [gradients[0][name].numel() for name in shared]
    for name, part in zip(shared, (sums[0] + sums[1]).split(sizes)):
        projected[name] = part.reshape(gradients[0][name].shape)
    return projected, cosine


def famo(before, after):
    """The authors' program (github.com/Cranial-XIX/FAMO) in short: the weights of each step's losses, and the shares after it."""
    logits = torch.zeros(before.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE, weight_decay=DECAY)
    weights, shares = [], []
    for old, new in zip(before, after):
        old = old.clone().requires_grad_()
        z = torch.softmax(logits, -1)
        c = (z / (old + 1e-8)).sum().detach()
        ((old + 1e-8).log() * z / c).sum().backward()
        weights.append(old.grad)
        fall = (old.detach() + 1e-8).log() - (new + 1e-8).log()
        logits.grad = torch.autograd.grad(torch.softmax(logits, -1), logits, grad_outputs=fall)[0]
        optimizer.step()
        shares.append(torch.softmax(logits, -1).detach())
    return torch.stack(weights), torch.stack(shares)


def uncertainty(losses, is_regression):
    log_variances = torch.zeros(losses.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([log_variances], lr=LEARNING_RATE)
    factors = torch.where(torch.tensor(is_regression), 0.5, 1.0)
    found = []
    for loss in losses:
        optimizer.zero_grad()
        (factors * torch.exp(-log_variances) * loss + log_variances / 2).sum().backward()
        optimizer.step()
        found.append((factors * torch.exp(-log_variances)).detach())
    return torch.stack(found)


def main():
    folder = fresh_folder("multitask")
    model = randomize(transformers.BertModel(bert_config()), SEED)
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(16, n) for name, n in {"mood": 3, "score": 1, "tags": 5}.items()})
    randomize(heads, SEED + 1)
    save_model(model, folder / "model")
    save_file({name: value.detach().clone() for name, value in heads.named_parameters()}, folder / "model/heads.safetensors")
    labels = {"mood": ["bad", "good", "none"], "score": [], "tags": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]}
    kinds = {"mood": "classification", "score": "regression", "tags": "token-classification"}
    tasks = [dict(name=name, kind=kinds[name], labels=labels[name], pairs=name == "score") for name in ROWS]
    (folder / "model/heads.json").write_text(json.dumps({"tasks": tasks}, indent=2) + "\n")

    ids, mask = ragged(LENGTHS, SEED)
    types = torch.zeros_like(ids)
    for row in ROWS["score"]:
        types[row, 3:LENGTHS[row]] = 1
    # Words of one or two tokens; only their first ones have a tag.
    tags = torch.tensor([[0, 1, -100, 2, -100, 0], [-100, 3, 4, 0, -100, -100]])
    tags = torch.nn.functional.pad(tags, (0, max(LENGTHS) - tags.shape[1]), value=-100)
    batch = dict(
        input_ids=ids, attention_mask=mask, token_type_ids=types, mood=torch.tensor([2, 0, 1]), score=torch.tensor([0.3, 1.7]), tags=tags,
    )
    golden = dict(batch)
    of_tasks = {}
    for name in ROWS:
        loss = task_losses(model, heads, batch)[name]
        golden[f"loss.{name}"] = loss
        of_tasks[name] = gradients(model, heads, loss)
        golden |= {f"grad.{name}.{path}": grad for path, grad in of_tasks[name].items()}
    losses = task_losses(model, heads, batch)
    # Every row counts alike, times its task's weight.
    shares = {name: len(rows) / len(LENGTHS) for name, rows in ROWS.items()}
    loss = sum(WEIGHTS[name] * shares[name] * losses[name] for name in ROWS)
    golden["loss"] = loss
    golden["weights"] = torch.tensor(list(WEIGHTS.values()))
    # Of the mood and the score alone, each weighed one half as both were rows of one batch of 3 and 2.
    two = [{path: share * grad for path, grad in of_tasks[name].items()} for name, share in [("mood", 0.6), ("score", 0.4)]]
    projected, golden["cosine"] = pcgrad(two)
    golden |= {f"grad.pcgrad.{path}": grad for path, grad in projected.items()}

    random = torch.Generator().manual_seed(SEED + 2)
    before = torch.rand(N_STEPS, 3, generator=random) * 2 + 0.1
    after = before * (0.8 + 0.3 * torch.rand(N_STEPS, 3, generator=random))
    golden |= dict(before=before, after=after)
    golden["famo.weights"], golden["famo.shares"] = famo(before, after)
    golden["uncertainty.weights"] = uncertainty(before, [False, True, False])
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED)
    check(folder / "model")
    print((folder / "golden.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
