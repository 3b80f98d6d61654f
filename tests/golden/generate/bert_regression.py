"""BertForSequenceClassification with one output on pairs: predictions, loss and gradients -> ../fixtures/bert_regression/

    python bert_regression.py
"""

import torch
import transformers
from common import bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model

SEED = 36
LENGTHS = [9, 4, 6, 7]


def main():
    folder = fresh_folder("bert_regression")
    model = randomize(transformers.BertForSequenceClassification(bert_config(num_labels=1, problem_type="regression")), SEED)
    ids, mask = ragged(LENGTHS, SEED + 1)
    token_types = torch.zeros_like(ids)
    for row, (length, second) in enumerate(zip(LENGTHS, [5, 2, 3, 4])):
        token_types[row, second:length] = 1
    labels = torch.tensor([3.8, 0.0, 5.0, -1.25])
    output = model(input_ids=ids, attention_mask=mask, token_type_ids=token_types, labels=labels)
    output.loss.backward()
    save_model(model, folder)
    golden = dict(
        input_ids=ids, attention_mask=mask, token_type_ids=token_types, labels=labels, logits=output.logits, loss=output.loss.reshape(1),
    )
    save_golden(folder / "golden.safetensors", {**golden, **gradients(model)}, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
