"""PEFT adapters of every kind: logits, loss, gradients, merged logits -> ../fixtures/adapter_kinds/

    python adapter_kinds.py

dora         DoRA on layers that a pattern names
rslora       rsLoRA with a rank and an alpha of their own for some layers, and token embeddings that train in full: they part from the output
gpt2_lora    LoRA on GPT-2's Conv1D layers, among them the one that joins queries, keys and values
gpt2_dora    the same with DoRA
vocabulary   LoRA on the token embeddings and the output tied to them; PEFT saves the weights of both too
tied         the same, one adapter for both
scaled       LoRA on the token embeddings of a family that multiplies them
modernbert   LoRA on layers that join queries, keys and values, or gate and up
together     the logits of two DoRA adapters, at work at once and merged one after the other

Where embeddings and output are tied PEFT's merge adds both adapters to both, so that merged logits are other ones; there the unmerged ones
stand for them.
"""

import torch
import transformers
from adapters import randomized_adapter, save_adapter, stored_name
from common import PAD, VOCAB, check, fresh_folder, gpt2_config, gradients, llama_config, next_token_labels, ragged, randomize, save_golden, save_model
from peft import LoraConfig, PeftModel, TaskType

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
    vocabulary=("llama", dict(r=3, lora_alpha=7, target_modules=["q_proj", "embed_tokens", "lm_head"])),
    tied=("llama", dict(r=3, lora_alpha=7, target_modules=["embed_tokens", "lm_head", "o_proj"], ensure_weight_tying=True)),
    scaled=("gemma3", dict(r=2, lora_alpha=5, use_rslora=True, target_modules=["embed_tokens", "down_proj"])),
    modernbert=("modernbert", dict(r=3, lora_alpha=7, target_modules=["Wqkv", "Wo", "Wi"], modules_to_save=["head.dense", "head.norm"])),
    dora_first=("llama", dict(r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "gate_proj"])),
    dora_other=("llama", dict(r=2, lora_alpha=3, use_dora=True, target_modules=["q_proj", "down_proj"])),
)
TOGETHER = ["dora_first", "dora_other"]
MODELS = dict(
    llama=lambda: transformers.LlamaForCausalLM(llama_config(tie_word_embeddings=True)),
    gpt2=lambda: transformers.GPT2LMHeadModel(gpt2_config()),
    gemma3=lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(
        vocab_size=VOCAB, hidden_size=12, intermediate_size=14, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=6,
        max_position_embeddings=32, pad_token_id=PAD, bos_token_id=1, eos_token_id=2, query_pre_attn_scalar=6, sliding_window=4,
        attn_implementation="eager",
    )),
    modernbert=lambda: transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(
        vocab_size=VOCAB, hidden_size=12, intermediate_size=10, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32,
        pad_token_id=PAD, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=4, attn_implementation="eager",
    )),
)


def base_model(name):
    model = randomize(MODELS[name](), SEED)
    if name == "gemma3":
        # Gains are stored as their distance from 1.
        with torch.no_grad():
            for parameter in (parameter for name, parameter in model.named_parameters() if "norm" in name):
                parameter.sub_(1)
    return model


def parameter_name(name):
    """The name PEFT stores a parameter by."""
    name = stored_name(name).replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
    return name.removesuffix(".default") if ".lora_embedding_" in name else name


def main():
    folder = fresh_folder("adapter_kinds")
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = next_token_labels(ids, mask, PROMPTS)
    for name in MODELS:
        save_model(base_model(name), folder / name)
        check(folder / name)
    for index, (name, (base, settings)) in enumerate(KINDS.items()):
        model = base_model(base)
        task_type = None if base == "modernbert" else TaskType.CAUSAL_LM
        model = randomized_adapter(model, LoraConfig(task_type=task_type, **settings), SEED + 2 + index)
        with torch.no_grad():
            for its_name, parameter in model.named_parameters():
                if "modules_to_save" in its_name:
                    parameter.mul_(-1.5)
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
        output.loss.backward()
        grads = gradients(model, parameter_name)
        save_adapter(model, folder / name)
        merged_logits = output.logits.clone() if name in ["vocabulary", "tied", "scaled"] else model.merge_and_unload()(input_ids=ids, attention_mask=mask).logits
        golden = dict(
            input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1),
            merged_logits=merged_logits,
        )
        save_golden(folder / name / "golden.safetensors", {**golden, **grads}, __file__, seed=SEED)
        check(folder / name)
    model = base_model("llama")
    model = PeftModel.from_pretrained(model, folder / TOGETHER[0], adapter_name=TOGETHER[0])
    for name in TOGETHER[1:]:
        model.load_adapter(folder / name, adapter_name=name)
    model.base_model.set_adapter(TOGETHER)
    with torch.no_grad():
        unmerged = model.eval()(input_ids=ids, attention_mask=mask).logits
        logits = model.merge_and_unload(adapter_names=TOGETHER).eval()(input_ids=ids, attention_mask=mask).logits
    (folder / "together").mkdir()
    save_golden(folder / "together" / "golden.safetensors", dict(input_ids=ids, attention_mask=mask, logits=unmerged, merged_logits=logits), __file__, seed=SEED)
    check(folder / "together")


if __name__ == "__main__":
    main()
