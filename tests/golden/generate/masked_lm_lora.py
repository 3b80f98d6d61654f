"""A PEFT adapter on BertForMaskedLM, the transform of its head trained in full -> ../fixtures/masked_lm_lora/

    python masked_lm_lora.py
"""

import torch
import transformers
from adapters import encoder_linears, randomized_adapter, save_adapter, stored_name
from common import bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model
from peft import LoraConfig

SEED = 95
LENGTHS = [9, 4, 11]
MASK = 2
HEAD = ["cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"]


def main():
    folder = fresh_folder("masked_lm_lora")
    base = randomize(transformers.BertForMaskedLM(bert_config()), SEED)
    save_model(base, folder)
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = torch.full_like(ids, -100)
    for row, token in [(0, 1), (0, 5), (1, 2), (2, 0), (2, 10)]:
        labels[row, token] = ids[row, token]
        ids[row, token] = MASK
    config = LoraConfig(r=4, lora_alpha=10, target_modules=encoder_linears(base), modules_to_save=HEAD)
    model = randomized_adapter(base, config, SEED + 2)
    # A head of its own, so that one left at the base model's values shows.
    transform = model.base_model.model.cls.predictions.transform
    with torch.no_grad():
        transform.dense.modules_to_save["default"].weight.mul_(-1.5)
        transform.LayerNorm.modules_to_save["default"].bias.add_(0.25)
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    grads = gradients(model, stored_name)
    save_adapter(model, folder)
    merged = model.merge_and_unload()(input_ids=ids, attention_mask=mask, labels=labels)
    golden = dict(input_ids=ids, attention_mask=mask, labels=labels, loss=output.loss.reshape(1), merged_loss=merged.loss.reshape(1))
    save_golden(folder / "golden.safetensors", {**golden, **grads}, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
