"""BertForTokenClassification and LlamaForTokenClassification: logits, loss and gradients -> ../fixtures/token_classifier/{bert,llama}/

    python token_classifier.py
"""

import torch
import transformers
from common import bert_config, check, fresh_folder, gradients, llama_config, ragged, randomize, save_golden, save_model

SEED = 37
LENGTHS = [9, 4, 6]
# The first token of each word; the others have no label.
FIRSTS = [[1, 2, 5, 6], [1, 2], [2, 3]]
TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def save(folder, model):
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = torch.full_like(ids, -100)
    for row, firsts in enumerate(FIRSTS):
        for word, first in enumerate(firsts):
            labels[row, first] = (2 * row + word) % len(TAGS)
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    save_model(model, folder)
    golden = dict(input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1))
    save_golden(folder / "golden.safetensors", {**golden, **gradients(model)}, __file__, seed=SEED)
    check(folder)


def main():
    folder = fresh_folder("token_classifier")
    names = dict(id2label=dict(enumerate(TAGS)), label2id={name: index for index, name in enumerate(TAGS)})
    save(folder / "bert", randomize(transformers.BertForTokenClassification(bert_config(**names)), SEED))
    save(folder / "llama", randomize(transformers.LlamaForTokenClassification(llama_config(**names)), SEED))


if __name__ == "__main__":
    main()
