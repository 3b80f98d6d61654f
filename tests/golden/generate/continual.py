"""Fisher information, EWC, L2-SP and LwF on LlamaForCausalLM by autograd and torch.optim.AdamW; TIES by PEFT -> ../fixtures/continual/

    python continual.py
"""

import copy

import torch
import transformers
from common import check, fresh_folder, gradients, llama_config, next_token_labels, ragged, randomize, save_golden, save_model
from peft.utils.merge_utils import ties

SEED = 52
N_STEPS = 4
LEARNING_RATE = 1e-2
# Between the gradient norms of these runs: some steps are clipped, some are not.
MAX_GRADIENT_NORM = 4.2
# Over steps of this size the importances, a few hundredths, would hardly be seen with a strength of 1.
EWC_STRENGTH = 40.0
L2_SP_STRENGTH = 1.5
LWF_STRENGTH = 0.7
TEMPERATURE = 2.0
FISHER_ROWS = [6, 9, 4]
LENGTHS = [[6, 3], [4, 8], [5, 5], [9, 2]]
WEIGHTS = [1.0, 0.5, 1.5]
DENSITIES = [0.2, 0.5, 0.9]


def rows(lengths, seed):
    ids, mask = ragged(lengths, seed)
    return ids, mask, next_token_labels(ids, mask, [0] * len(lengths))


def logits_and_targets(model, batch):
    """Of every token that is predicted."""
    ids, mask, labels = batch
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    keep = labels[:, 1:] != -100
    return logits[keep], labels[:, 1:][keep]


def fisher(model, lengths):
    """Mean over tokens of the squared gradients of rows, and the rows."""
    ids, mask, labels = rows(lengths, SEED + 1)
    sums, n_tokens = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}, 0
    for row in range(len(lengths)):
        logits, targets = logits_and_targets(model, (ids[row : row + 1], mask[row : row + 1], labels[row : row + 1]))
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
        n_tokens += len(targets)
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad**2
    model.zero_grad()
    return {name: value / n_tokens for name, value in sums.items()}, dict(input_ids=ids, attention_mask=mask, labels=labels)


def train(before, batches, strength, importance):
    model = copy.deepcopy(before)
    anchors = {name: parameter.detach().clone() for name, parameter in before.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    figures = []
    for batch in batches:
        logits, targets = logits_and_targets(model, batch)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        distances = ((importance[name] * (parameter - anchors[name]) ** 2).sum() for name, parameter in model.named_parameters())
        penalty = strength / 2 * sum(distances)
        optimizer.zero_grad()
        (loss + penalty).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        figures.append((loss.item(), penalty.item(), norm.item()))
    losses, penalties, norms = (torch.tensor(column) for column in zip(*figures))
    print(strength, figures)
    trained = {f"trained.{name}": parameter for name, parameter in model.named_parameters()}
    return dict(losses=losses, penalties=penalties, gradient_norms=norms, **trained)


def distil(before, model, batch):
    """Cross-entropy and the divergence from what `before` predicts, as sums over tokens, and the gradients of both together."""
    logits, targets = logits_and_targets(model, batch)
    with torch.no_grad():
        old, _ = logits_and_targets(before, batch)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    log_softmax = lambda logits: torch.nn.functional.log_softmax(logits / TEMPERATURE, dim=-1)
    divergence = torch.nn.functional.kl_div(log_softmax(logits), log_softmax(old), reduction="sum", log_target=True)
    penalty = LWF_STRENGTH * TEMPERATURE**2 * divergence
    (loss + penalty).backward()
    return dict(loss=loss, penalty=penalty, **gradients(model))


def main():
    folder = fresh_folder("continual")
    before = randomize(transformers.LlamaForCausalLM(llama_config(num_hidden_layers=1, tie_word_embeddings=True)), SEED)
    save_model(before, folder / "before")
    importance, golden = fisher(before, FISHER_ROWS)
    golden |= {f"fisher.{name}": value for name, value in importance.items()}
    batches = [rows(lengths, SEED + 10 + step) for step, lengths in enumerate(LENGTHS)]
    for step, (ids, mask, labels) in enumerate(batches):
        golden |= {f"{step}.input_ids": ids, f"{step}.attention_mask": mask, f"{step}.labels": labels}
    ewc = train(before, batches, EWC_STRENGTH, importance)
    l2_sp = train(before, batches, L2_SP_STRENGTH, {name: torch.ones_like(value) for name, value in importance.items()})
    noise = torch.Generator().manual_seed(SEED + 2)
    model = copy.deepcopy(before)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    save_model(model, folder / "model")
    golden |= {f"lwf.{name}": value for name, value in distil(before, model, batches[1]).items()}
    settings = dict(
        ewc_strength=EWC_STRENGTH, l2_sp_strength=L2_SP_STRENGTH, lwf_strength=LWF_STRENGTH, temperature=TEMPERATURE,
        learning_rate=LEARNING_RATE, max_gradient_norm=MAX_GRADIENT_NORM,
    )
    golden |= {name: torch.tensor([value]) for name, value in settings.items()}
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED)
    save_golden(folder / "ewc.safetensors", ewc, __file__, seed=SEED)
    save_golden(folder / "l2_sp.safetensors", l2_sp, __file__, seed=SEED)

    random = torch.Generator().manual_seed(SEED + 3)
    base = torch.randn(9, 7, generator=random)
    changes = [torch.randn(9, 7, generator=random) for _ in WEIGHTS]
    merged = {f"ties.{density}": base + ties([*changes], torch.tensor(WEIGHTS), density) for density in DENSITIES}
    tuned = {f"tuned.{index}": base + change for index, change in enumerate(changes)}
    tensors = dict(base=base, weights=torch.tensor(WEIGHTS), densities=torch.tensor(DENSITIES), **tuned, **merged)
    save_golden(folder / "ties.safetensors", tensors, __file__, seed=SEED)
    for part in ["before", "model"]:
        check(folder / part)
    for path in sorted(folder.glob("*.safetensors")):
        print(path.name, path.stat().st_size)
        assert path.stat().st_size <= 64 * 1024


if __name__ == "__main__":
    main()
