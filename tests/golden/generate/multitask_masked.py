"""A BertForMaskedLM with a head for tags beside its own: losses and gradients of a batch of hidden tokens and tags -> ../fixtures/multitask_masked/

    python multitask_masked.py
"""

import json

import torch
import transformers
from common import bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model
from safetensors.torch import save_file

SEED = 57
LENGTHS = [9, 6, 7, 5, 8]
MASK = 2
# The first rows have hidden tokens, the others tags; tasks in the order of their names.
N_TEXTS = 3
LABELS = ["O", "B-LOC", "I-LOC"]


def main():
    folder = fresh_folder("multitask_masked")
    model = randomize(transformers.BertForMaskedLM(bert_config()), SEED)
    head = randomize(torch.nn.Linear(16, len(LABELS)), SEED + 1)
    save_model(model, folder / "model")
    save_file({f"tags.{name}": value.detach().clone() for name, value in head.named_parameters()}, folder / "model/heads.safetensors")
    tasks = [
        dict(name="hidden", kind="masked-token", labels=[], pairs=False),
        dict(name="tags", kind="token-classification", labels=LABELS, pairs=False),
    ]
    (folder / "model/heads.json").write_text(json.dumps({"tasks": tasks}, indent=2) + "\n")

    ids, mask = ragged(LENGTHS, SEED)
    # Predicted tokens: one of a row is replaced by another token, one is left as it is, the others are hidden.
    hidden = torch.full_like(ids, -100)
    for row, column in [(0, 2), (0, 5), (1, 1), (1, 4), (2, 3)]:
        hidden[row, column] = ids[row, column]
        ids[row, column] = {(0, 5): 17, (1, 4): ids[row, column].item()}.get((row, column), MASK)
    tags = torch.full_like(ids, -100)
    tags[3, :5] = torch.tensor([0, 1, 2, -100, 0])
    tags[4, :8] = torch.tensor([-100, 1, -100, 0, 0, 2, -100, 0])
    batch = dict(input_ids=ids, attention_mask=mask)
    states = model.bert(**batch).last_hidden_state
    losses = {
        "hidden": torch.nn.functional.cross_entropy(model.cls(states[:N_TEXTS]).flatten(0, 1), hidden[:N_TEXTS].flatten()),
        "tags": torch.nn.functional.cross_entropy(head(states[N_TEXTS:]).flatten(0, 1), tags[N_TEXTS:].flatten()),
    }
    # What transformers says of the rows with hidden tokens alone.
    alone = model(input_ids=ids[:N_TEXTS], attention_mask=mask[:N_TEXTS], labels=hidden[:N_TEXTS]).loss
    torch.testing.assert_close(alone, losses["hidden"])
    share = N_TEXTS / len(LENGTHS)
    loss = share * losses["hidden"] + (1 - share) * losses["tags"]
    loss.backward()
    golden = dict(batch, hidden=hidden, tags=tags, loss=loss, **{f"loss.{name}": value for name, value in losses.items()})
    golden |= gradients(model) | {f"grad.heads.tags.{name}": parameter.grad for name, parameter in head.named_parameters()}
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED)
    check(folder / "model")
    print((folder / "golden.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
