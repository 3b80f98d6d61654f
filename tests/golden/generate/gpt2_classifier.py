"""GPT2ForSequenceClassification: logits, loss and gradients -> ../fixtures/gpt2_classifier/

    python gpt2_classifier.py
"""

import torch
import transformers
from common import check, fresh_folder, gradients, gpt2_config, ragged, randomize, save_golden, save_model

SEED = 38
LENGTHS = [5, 8, 3]


def main():
    folder = fresh_folder("gpt2_classifier")
    model = randomize(transformers.GPT2ForSequenceClassification(gpt2_config(num_labels=3)), SEED)
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = torch.tensor([1, 2, 0])
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    save_model(model, folder)
    golden = dict(input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1))
    save_golden(folder / "golden.safetensors", {**golden, **gradients(model)}, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
