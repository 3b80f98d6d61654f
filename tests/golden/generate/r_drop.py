"""R-Drop with label smoothing, from torch's cross_entropy and kl_div as in the authors' code -> ../fixtures/r_drop/

    python r_drop.py
"""

import torch
from common import check, fresh_folder, save_golden
from formula import integers, uniform
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

N_ROWS, N_CLASSES = 7, 5


def loss(first, second, classes, weight, smoothing):
    plain = 0.5 * sum(cross_entropy(logits, classes, reduction="sum", label_smoothing=smoothing) for logits in (first, second))
    divergence = lambda a, b: kl_div(log_softmax(a, -1), softmax(b, -1), reduction="sum")
    return plain + weight * (divergence(first, second) + divergence(second, first)) / 2


def main():
    folder = fresh_folder("r_drop")
    folder.mkdir()
    golden = {}
    for name, weight, smoothing in [("plain", 0.5, 0.0), ("smooth", 4.0, 0.1)]:
        first, second = (uniform(f"logits.{index}", (N_ROWS, N_CLASSES), 3.0).requires_grad_() for index in range(2))
        total = loss(first, second, integers("classes", (N_ROWS,), N_CLASSES), weight, smoothing)
        total.backward()
        golden.update({f"{name}.loss": total.reshape(1), f"{name}.gradient": torch.cat([first.grad, second.grad])})
    save_golden(folder / "golden.safetensors", golden, __file__)
    check(folder)


if __name__ == "__main__":
    main()
