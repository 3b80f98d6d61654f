"""torch.optim.AdamW with two parameter groups, schedules and clipping on LlamaForCausalLM with biases -> ../fixtures/updater/

    python updater.py
"""

import copy
import math

import torch
import transformers
from common import check, fresh_folder, llama_config, next_token_labels, ragged, randomize, save_golden, save_model

SEED = 35
N_STEPS = 8
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 0.1
# Between the largest and the smallest gradient norm of these runs: some steps are clipped, some are not.
MAX_GRADIENT_NORM = 4.0
LENGTHS = [[6, 3], [4, 8], [5, 5], [9, 2], [3, 3], [7, 4], [2, 6], [8, 5]]
PROMPTS = [[0, 1], [2, 3], [1, 4], [5, 0], [0, 2], [3, 1], [1, 0], [4, 2]]


def share(schedule, step, n_warmup_steps):
    """Our warm-up: step 0 already has a rate, 1 / n_warmup_steps. transformers would give it 0, and a step without effect."""
    if step < n_warmup_steps:
        return (step + 1) / n_warmup_steps
    progress = (step - n_warmup_steps) / (N_STEPS - n_warmup_steps)
    return {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[schedule]


def train(model, batches, schedule, n_warmup_steps):
    model = copy.deepcopy(model)
    named = list(model.named_parameters())
    is_plain = lambda name: name.endswith("bias") or "norm" in name
    groups = [
        dict(params=[parameter for name, parameter in named if not is_plain(name)], weight_decay=WEIGHT_DECAY),
        dict(params=[parameter for name, parameter in named if is_plain(name)], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), eps=1e-8)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(schedule, step, n_warmup_steps) if step < N_STEPS else 0.0)
    rows = []
    for ids, mask, labels in batches:
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        rows.append((loss.item(), norm.item(), scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    losses, norms, rates = (torch.tensor(column) for column in zip(*rows))
    print(schedule, n_warmup_steps, [f"{norm:.2f}" for norm in norms])
    return model, dict(losses=losses, gradient_norms=norms, learning_rates=rates)


def main():
    folder = fresh_folder("updater")
    model = randomize(transformers.LlamaForCausalLM(llama_config(attention_bias=True, mlp_bias=True)), SEED)
    save_model(model, folder)
    golden, batches = {}, []
    for step, (lengths, prompts) in enumerate(zip(LENGTHS, PROMPTS)):
        ids, mask = ragged(lengths, SEED + 1 + step)
        batches.append((ids, mask, next_token_labels(ids, mask, prompts)))
        for name, tensor in zip(("input_ids", "attention_mask", "labels"), batches[-1]):
            golden[f"{step}.{name}"] = tensor
    for name, schedule, n_warmup_steps in [("linear", "linear", 0), ("linear_warmup", "linear", 2), ("cosine_warmup", "cosine", 2)]:
        trained, columns = train(model, batches, schedule, n_warmup_steps)
        golden.update({f"{name}.{column}": values for column, values in columns.items()})
        if name == "linear_warmup":
            golden.update({f"{name}.trained.{key}": value for key, value in trained.named_parameters()})
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
