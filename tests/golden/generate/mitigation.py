"""Reweighing by its formula, and steps of group DRO as its authors' code makes them, on torch's cross_entropy -> ../fixtures/mitigation/

    python mitigation.py
"""

import torch
from common import check, fresh_folder, save_golden
from formula import integers, uniform
from torch.nn.functional import cross_entropy

N_ROWS, N_GROUPS, N_CLASSES, N_STEPS = 12, 2, 3, 4
STEP_SIZE, ADJUSTMENT = 0.3, 2.0


def reweighing(groups, classes):
    """Kamiran and Calders: the weight of a row is P(group)·P(class) / P(group, class)."""
    share = lambda chosen: chosen.double().mean()
    return torch.tensor([share(groups == g) * share(classes == y) / share((groups == g) & (classes == y)) for g, y in zip(groups, classes)])


def main():
    folder = fresh_folder("mitigation")
    folder.mkdir()
    golden = {}
    groups, classes = integers("groups", (N_ROWS,), N_GROUPS), integers("classes", (N_ROWS,), N_CLASSES)
    weights = reweighing(groups, classes)
    logits = uniform("logits.0", (N_ROWS, N_CLASSES), 3.0).requires_grad_()
    loss = (weights.float() * cross_entropy(logits, classes, reduction="none")).sum() / weights.float().sum()
    loss.backward()
    golden.update({"reweighing.weights": weights, "reweighing.loss": loss.reshape(1), "reweighing.gradient": logits.grad})

    # Sagawa et al.: a group is an attribute with a class; groups that are not in the batch have loss 0.
    cells = groups * N_CLASSES + classes
    of_cells = torch.bincount(cells, minlength=N_GROUPS * N_CLASSES)
    for name, adjustment in [("plain", 0.0), ("adjusted", ADJUSTMENT)]:
        added = torch.where(of_cells > 0, adjustment / of_cells.float().sqrt(), 0.0)
        weights = torch.ones(N_GROUPS * N_CLASSES) / (N_GROUPS * N_CLASSES)
        for step in range(N_STEPS):
            # Batches of other rows, so that some lack groups.
            rows = torch.arange(step, N_ROWS, 2 if step % 2 else 1)
            logits = uniform(f"logits.{step}", (N_ROWS, N_CLASSES), 3.0).requires_grad_()
            losses = cross_entropy(logits[rows], classes[rows], reduction="none")
            member = (cells[rows] == torch.arange(N_GROUPS * N_CLASSES)[:, None]).float()
            count = member.sum(1)
            group_losses = member @ losses / (count + (count == 0))
            weights = weights * torch.exp(STEP_SIZE * (group_losses.detach() + added))
            weights = weights / weights.sum()
            loss = group_losses @ weights
            loss.backward()
            of = f"group_dro.{name}.{step}"
            golden.update({f"{of}.weights": weights, f"{of}.loss": loss.reshape(1), f"{of}.gradient": logits.grad})
    save_golden(folder / "golden.safetensors", golden, __file__)
    check(folder)


if __name__ == "__main__":
    main()
