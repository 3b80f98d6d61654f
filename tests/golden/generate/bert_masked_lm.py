"""BertForMaskedLM: logits of the chosen tokens, loss and gradients -> ../fixtures/bert_masked_lm/

    python bert_masked_lm.py
"""

import torch
import transformers
from common import VOCAB, bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model

SEED = 71
LENGTHS = [9, 4, 11]
MASK = 2


def main():
    folder = fresh_folder("bert_masked_lm")
    model = randomize(transformers.BertForMaskedLM(bert_config()), SEED)
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = torch.full_like(ids, -100)
    # Chosen tokens: masked, replaced by a random token, or left as they are.
    for row, token, seen in [(0, 1, MASK), (0, 5, 17), (1, 2, MASK), (2, 0, MASK), (2, 7, None), (2, 10, MASK)]:
        labels[row, token] = ids[row, token]
        if seen is not None:
            ids[row, token] = seen
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    save_model(model, folder)
    assert output.logits.shape[-1] == VOCAB
    golden = dict(input_ids=ids, attention_mask=mask, labels=labels, loss=output.loss.reshape(1), chosen_logits=output.logits[labels != -100])
    save_golden(folder / "golden.safetensors", {**golden, **gradients(model)}, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
