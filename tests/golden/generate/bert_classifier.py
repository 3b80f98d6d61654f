"""BertForSequenceClassification: logits, loss and gradients -> ../fixtures/bert_classifier/

    python bert_classifier.py
"""

import torch
import transformers
from common import bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model

SEED = 31
LENGTHS = [9, 4, 6]


def main():
    folder = fresh_folder("bert_classifier")
    model = randomize(transformers.BertForSequenceClassification(bert_config(num_labels=3)), SEED)
    ids, mask = ragged(LENGTHS, SEED + 1)
    token_types = torch.zeros_like(ids)
    token_types[0, 5:9] = 1
    token_types[2, 2:6] = 1
    labels = torch.tensor([2, 0, 1])
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
