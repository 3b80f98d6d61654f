"""A PEFT adapter with its own head on BertForSequenceClassification -> ../fixtures/lora_classifier/

    python lora_classifier.py
"""

import torch
import transformers
from adapters import randomized_adapter, save_adapter, stored_name
from common import bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model
from peft import LoraConfig, TaskType

SEED = 34
LENGTHS = [6, 3, 8]


def main():
    folder = fresh_folder("lora_classifier")
    base = randomize(transformers.BertForSequenceClassification(bert_config(num_labels=3)), SEED)
    save_model(base, folder)
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = torch.tensor([0, 2, 1])
    # PEFT adds the classifier to modules_to_save by itself.
    config = LoraConfig(r=4, lora_alpha=10, target_modules="all-linear", task_type=TaskType.SEQ_CLS)
    model = randomized_adapter(base, config, SEED + 2)
    # A head of its own, so that one left at the base model's values shows.
    head = model.base_model.model.classifier.modules_to_save["default"]
    with torch.no_grad():
        head.weight.mul_(-1.5)
        head.bias.add_(0.25)
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    grads = gradients(model, stored_name)
    save_adapter(model, folder)
    merged_logits = model.merge_and_unload()(input_ids=ids, attention_mask=mask).logits
    golden = dict(
        input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1), merged_logits=merged_logits,
    )
    save_golden(folder / "golden.safetensors", {**golden, **grads}, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
