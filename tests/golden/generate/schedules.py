"""The learning rates of transformers' schedules and of PyTorch's ReduceLROnPlateau, as shares of the peak -> ../fixtures/schedules.json

    python schedules.py
"""

import torch
from common import FIXTURES, write_sorted_json
from transformers import optimization

N_STEPS = 40
N_WARMUP_STEPS = 8
# A validation loss that falls, rests, falls a little, and rises.
LOSSES = [1.0, 0.8, 0.7, 0.7, 0.69999, 0.71, 0.7, 0.72, 0.69, 0.6899, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def shares(schedule, **settings):
    scheduler = schedule(optimizer(), **settings)
    found = []
    for _ in range(N_STEPS):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def plateau(**settings):
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer(), **settings)
    found = []
    for loss in LOSSES:
        scheduler.step(loss)
        found.append(scheduler.get_last_lr()[0])
    return found


def main():
    golden = {}
    for n_warmup_steps in (0, N_WARMUP_STEPS):
        steps = dict(num_warmup_steps=n_warmup_steps, num_training_steps=N_STEPS)
        wsd = lambda decay_type, **settings: shares(
            optimization.get_wsd_schedule, num_warmup_steps=n_warmup_steps, num_decay_steps=10,
            num_stable_steps=N_STEPS - 10 - n_warmup_steps, decay_type=decay_type, **settings,
        )
        golden[str(n_warmup_steps)] = dict(
            constant=shares(optimization.get_constant_schedule_with_warmup, num_warmup_steps=n_warmup_steps),
            linear=shares(optimization.get_linear_schedule_with_warmup, **steps),
            cosine=shares(optimization.get_cosine_schedule_with_warmup, **steps),
            cosine_floor=shares(optimization.get_cosine_with_min_lr_schedule_with_warmup, min_lr_rate=0.1, **steps),
            inverse_sqrt=shares(optimization.get_inverse_sqrt_schedule, num_warmup_steps=n_warmup_steps),
            inverse_sqrt_timescale=shares(optimization.get_inverse_sqrt_schedule, num_warmup_steps=n_warmup_steps, timescale=20),
            polynomial=shares(optimization.get_polynomial_decay_schedule_with_warmup, lr_end=0.05, power=2.0, **steps),
            wsd=wsd("linear"),
            wsd_cosine=wsd("cosine", min_lr_ratio=0.1),
            wsd_one_minus_sqrt=wsd("1-sqrt"),
        )
    golden["plateau"] = dict(losses=LOSSES, shares=plateau(factor=0.5, patience=2, threshold=1e-4, min_lr=0.2))
    write_sorted_json(FIXTURES / "schedules.json", golden)


if __name__ == "__main__":
    main()
