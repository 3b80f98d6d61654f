"""A PEFT adapter on the output and feed-forward layers of GPT2LMHeadModel: loss, gradients, merged logits -> ../fixtures/gpt2_lora/

    python gpt2_lora.py
"""

import transformers
from adapters import randomized_adapter, save_adapter, stored_name
from common import check, fresh_folder, gpt2_config, gradients, next_token_labels, ragged, randomize, save_golden, save_model
from peft import LoraConfig, TaskType

SEED = 40
LENGTHS = [7, 10, 4]
PROMPTS = [0, 4, 2]


def main():
    folder = fresh_folder("gpt2_lora")
    base = randomize(transformers.GPT2LMHeadModel(gpt2_config()), SEED)
    save_model(base, folder)
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = next_token_labels(ids, mask, PROMPTS)
    base_logits = base(input_ids=ids, attention_mask=mask).logits
    targets = [name for name, _ in base.named_modules() if name.endswith(("c_fc", "c_proj"))]
    config = LoraConfig(r=4, lora_alpha=10, target_modules=targets, fan_in_fan_out=True, task_type=TaskType.CAUSAL_LM)
    model = randomized_adapter(base, config, SEED + 2)
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    grads = gradients(model, stored_name)
    save_adapter(model, folder)
    merged_logits = model.merge_and_unload()(input_ids=ids, attention_mask=mask).logits
    golden = dict(
        input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1),
        base_logits=base_logits, merged_logits=merged_logits,
    )
    save_golden(folder / "golden.safetensors", {**golden, **grads}, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
