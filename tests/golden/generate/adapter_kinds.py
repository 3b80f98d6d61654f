"""PEFT adapters of every kind: logits, loss, gradients, merged logits -> ../fixtures/adapter_kinds/

    python adapter_kinds.py

dora         DoRA on layers that a pattern names
rslora       rsLoRA with a rank and an alpha of their own for some layers, and token embeddings that train in full: they part from the output
gpt2_lora    LoRA on GPT-2's Conv1D layers, among them the one that joins queries, keys and values
gpt2_dora    the same with DoRA
"""

import torch
import transformers
from adapters import randomized_adapter, save_adapter, stored_name
from common import check, fresh_folder, gpt2_config, gradients, llama_config, next_token_labels, ragged, randomize, save_golden, save_model
from peft import LoraConfig, TaskType

SEED = 50
LENGTHS = [7, 10, 4]
PROMPTS = [0, 4, 2]
KINDS = dict(
    dora=("llama", dict(r=3, lora_alpha=7, use_dora=True, target_modules=r".*layers\.1\..*(q|k|up|down)_proj")),
    rslora=("llama", dict(
        r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"], modules_to_save=["embed_tokens"],
        rank_pattern={"layers.0.self_attn.v_proj": 2}, alpha_pattern={"down_proj": 9},
    )),
    gpt2_lora=("gpt2", dict(r=4, lora_alpha=10, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    gpt2_dora=("gpt2", dict(r=3, lora_alpha=5, use_dora=True, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True)),
)
BASES = dict(
    llama=lambda: transformers.LlamaForCausalLM(llama_config(tie_word_embeddings=True)),
    gpt2=lambda: transformers.GPT2LMHeadModel(gpt2_config()),
)


def main():
    folder = fresh_folder("adapter_kinds")
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = next_token_labels(ids, mask, PROMPTS)
    for name, make in BASES.items():
        save_model(randomize(make(), SEED), folder / name)
        check(folder / name)
    for index, (name, (base, settings)) in enumerate(KINDS.items()):
        model = randomize(BASES[base](), SEED)
        model = randomized_adapter(model, LoraConfig(task_type=TaskType.CAUSAL_LM, **settings), SEED + 2 + index)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if "modules_to_save" in parameter_name:
                    parameter.mul_(-1.5)
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
        output.loss.backward()
        grads = gradients(model, lambda name: stored_name(name).replace("lora_magnitude_vector.weight", "lora_magnitude_vector"))
        save_adapter(model, folder / name)
        merged_logits = model.merge_and_unload()(input_ids=ids, attention_mask=mask).logits
        golden = dict(
            input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1),
            merged_logits=merged_logits,
        )
        save_golden(folder / name / "golden.safetensors", {**golden, **grads}, __file__, seed=SEED)
        check(folder / name)


if __name__ == "__main__":
    main()
