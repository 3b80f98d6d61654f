"""Random checkpoints of every family in other sizes, keys and files, each with its golden.safetensors -> DIR/*/, for `cargo xtask verify`:

    python other_sizes.py DIR [NAME...]
    cargo xtask verify DIR/*

They differ from each other in whatever config.json may say: widths, heads, biases, activations, windows, scaled rotary positions, tied heads,
the keys of transformers 4, half precision, shards, PyTorch's files.
"""

import json
import pathlib
import sys

import reference
import torch
import transformers
from common import randomize
from safetensors.torch import load_file, save_file

SEED = 131


def rope(kind="default", theta=10000.0, **keys):
    return dict(rope_type=kind, rope_theta=theta, **keys)


def of_kinds(full, sliding):
    return dict(full_attention=full, sliding_attention=sliding)


LLAMA = dict(
    vocab_size=97, hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=[2, 5],
)
GEMMA = dict(
    LLAMA, num_hidden_layers=4, head_dim=10, query_pre_attn_scalar=7, sliding_window=5,
    rope_parameters=of_kinds(rope(theta=5000.0), rope(theta=300.0)),
)
BERT = dict(
    vocab_size=83, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, max_position_embeddings=40, pad_token_id=0,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)
DISTILBERT = dict(
    vocab_size=83, dim=24, hidden_dim=40, n_layers=3, n_heads=3, max_position_embeddings=40, pad_token_id=0, dropout=0.0, attention_dropout=0.0,
)
MODERNBERT = dict(
    vocab_size=89, hidden_size=24, intermediate_size=20, num_hidden_layers=4, num_attention_heads=3, max_position_embeddings=64, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=6,
)
GPT2 = dict(
    vocab_size=101, n_embd=24, n_layer=3, n_head=3, n_positions=48, pad_token_id=0, bos_token_id=1, eos_token_id=2, resid_pdrop=0.0,
    embd_pdrop=0.0, attn_pdrop=0.0,
)
YARN = dict(factor=4.0, original_max_position_embeddings=8)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)

# Name: class, configuration, and what to do to the files.
CHECKPOINTS = dict(
    llama_biases=("Llama", LLAMA | dict(
        attention_bias=True, mlp_bias=True, head_dim=10, num_key_value_heads=1, tie_word_embeddings=True, rope_parameters=rope("llama3", 500.0, **LLAMA3),
    ), ["bf16", "shards"]),
    llama_dynamic=("Llama", LLAMA | dict(num_key_value_heads=4, rms_norm_eps=1e-3, rope_parameters=rope("dynamic", 700.0, factor=2.0)), ["older", "torch"]),
    llama_yarn=("Llama", LLAMA | dict(num_attention_heads=2, hidden_act="gelu_new", head_dim=16, rope_parameters=rope("yarn", 900.0, **YARN)), ["f16"]),
    llama_linear=("Llama", LLAMA | dict(num_attention_heads=6, num_key_value_heads=3, vocab_size=131, tie_word_embeddings=True, hidden_act="relu",
        rope_parameters=rope("linear", 400.0, factor=3.0),
    ), ["older", "both"]),
    llama_parted=("Llama", LLAMA | dict(tie_word_embeddings=False), ["says tied"]),
    mistral_window=("Mistral", LLAMA | dict(sliding_window=4, head_dim=14, num_key_value_heads=1, tie_word_embeddings=True), ["shards"]),
    mistral_plain=("Mistral", LLAMA | dict(sliding_window=None, num_key_value_heads=4, rope_parameters=rope("yarn", 800.0, **YARN)), ["older", "bf16"]),
    qwen2_window=("Qwen2", LLAMA | dict(use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True), ["older", "no layer_types"]),
    qwen2_plain=("Qwen2", LLAMA | dict(sliding_window=3, max_window_layers=1, rope_parameters=rope("yarn", 600.0, **YARN)), ["torch"]),
    qwen3_window=("Qwen3", LLAMA | dict(
        attention_bias=True, head_dim=10, use_sliding_window=True, sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ), ["bf16"]),
    qwen3_128=("Qwen3", LLAMA | dict(head_dim=128, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True), ["no head_dim"]),
    gemma3_older=("Gemma3Text", GEMMA | dict(
        sliding_window_pattern=2, attention_bias=True, final_logit_softcapping=3.0, attn_logit_softcapping=2.0,
        rope_parameters=of_kinds(rope("linear", 5000.0, factor=8.0), rope(theta=300.0)),
    ), ["older gemma", "no layer_types"]),
    gemma3_listed=("Gemma3Text", GEMMA | dict(
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"], num_key_value_heads=1, num_attention_heads=3,
        tie_word_embeddings=False, rope_parameters=of_kinds(rope("yarn", 5000.0, **YARN), rope("linear", 300.0, factor=2.0)),
    ), ["bf16"]),
    gpt2_relu=("GPT2LMHead", GPT2 | dict(activation_function="relu", n_inner=50, tie_word_embeddings=False, layer_norm_epsilon=1e-3), ["f16", "bare"]),
    gpt2_unscaled=("GPT2LMHead", GPT2 | dict(activation_function="gelu", scale_attn_weights=False, reorder_and_upcast_attn=True), ["torch"]),
    gpt2_by_layer=("GPT2LMHead", GPT2 | dict(activation_function="silu", scale_attn_by_inverse_layer_idx=True), []),
    bert_relu=("BertForMaskedLM", BERT | dict(hidden_act="relu", type_vocab_size=1, layer_norm_eps=1e-4, tie_word_embeddings=False), ["shards"]),
    bert_old=("BertForMaskedLM", BERT | dict(hidden_act="gelu_new", type_vocab_size=3), ["gamma", "torch"]),
    bert_silu=("BertForMaskedLM", BERT | dict(hidden_act="silu", num_attention_heads=6), ["f16"]),
    roberta_pad=("RobertaForMaskedLM", BERT | dict(hidden_act="gelu_pytorch_tanh", type_vocab_size=1, pad_token_id=3, layer_norm_eps=1e-5), ["bf16"]),
    roberta_untied=("RobertaForMaskedLM", BERT | dict(hidden_act="relu", type_vocab_size=2, tie_word_embeddings=False), ["torch"]),
    distilbert_relu=("DistilBertForMaskedLM", DISTILBERT | dict(activation="relu", tie_word_embeddings=False), ["f16"]),
    distilbert_sinusoidal=("DistilBertForMaskedLM", DISTILBERT | dict(sinusoidal_pos_embds=True, n_heads=6), ["shards"]),
    modernbert_biases=("ModernBertForMaskedLM", MODERNBERT | dict(
        attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True, decoder_bias=False, hidden_activation="relu", norm_eps=1e-3,
        classifier_activation="silu", local_attention=7, rope_parameters=of_kinds(rope(theta=900.0), rope(theta=90.0)),
    ), ["shards"]),
    modernbert_older=("ModernBertForMaskedLM", MODERNBERT | dict(
        global_attn_every_n_layers=2, tie_word_embeddings=False, hidden_activation="gelu_new",
        rope_parameters=of_kinds(rope("linear", 900.0, factor=2.0), rope("linear", 90.0, factor=2.0)),
    ), ["older modernbert", "no layer_types", "torch"]),
)


def edit(path, change):
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2) + "\n")


def older(config):
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling | {"type": scaling.pop("rope_type")}


def older_gemma(config):
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters["full_attention"].pop("rope_theta")
    config["rope_local_base_freq"] = parameters["sliding_attention"].pop("rope_theta")
    config["rope_scaling"] = parameters["full_attention"]
    config["sliding_window_pattern"] = 2


def older_modernbert(config):
    parameters = config.pop("rope_parameters")
    config["global_rope_theta"] = parameters["full_attention"].pop("rope_theta")
    config["local_rope_theta"] = parameters["sliding_attention"].pop("rope_theta")
    config["rope_scaling"] = parameters["full_attention"]
    config["global_attn_every_n_layers"] = 2


def store(folder, what):
    weights, config = folder / "model.safetensors", folder / "config.json"
    keys = {"older": older, "older gemma": older_gemma, "older modernbert": older_modernbert}
    if what in keys:
        edit(config, keys[what])
    elif what.startswith("no "):
        edit(config, lambda config: config.pop(what.removeprefix("no ")))
    elif what == "says tied":
        edit(config, lambda config: config.update(tie_word_embeddings=True))
    else:
        tensors = load_file(weights)
        if what in ["bf16", "f16"]:
            dtype = dict(bf16=torch.bfloat16, f16=torch.float16)[what]
            save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, weights, {"format": "pt"})
        elif what == "both":
            save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, weights, {"format": "pt"})
        elif what == "bare":
            save_file({name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}, weights, {"format": "pt"})
        elif what == "gamma":
            names = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta") for name in tensors}
            save_file({names[name]: tensor for name, tensor in tensors.items()}, weights, {"format": "pt"})
        elif what == "torch":
            torch.save(tensors, folder / "pytorch_model.bin")
            weights.unlink()
        elif what == "shards":
            halves = [sorted(tensors)[start::2] for start in range(2)]
            files = [f"model-{index + 1:05}-of-00002.safetensors" for index in range(2)]
            for names, file in zip(halves, files):
                save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
            index = dict(metadata=dict(total_size=0), weight_map={name: file for names, file in zip(halves, files) for name in names})
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
            weights.unlink()


def main():
    target, chosen = pathlib.Path(sys.argv[1]), sys.argv[2:]
    for name, (family, settings, files) in CHECKPOINTS.items():
        if chosen and name not in chosen:
            continue
        causal = "ForMaskedLM" not in family
        model_class = family if not causal else "GPT2LMHeadModel" if family == "GPT2LMHead" else "Gemma3ForCausalLM" if family == "Gemma3Text" else f"{family}ForCausalLM"
        config_class = dict(GPT2LMHead="GPT2Config").get(family, family.replace("ForMaskedLM", "") + "Config")
        config = getattr(transformers, config_class)(**settings)
        folder = target / name
        model = randomize(getattr(transformers, model_class)(config), SEED)
        if family == "Gemma3Text":
            # Gains are stored as their distance from 1; with larger ones PyTorch's own attention kernels differ by 2e-2 after ten updates.
            with torch.no_grad():
                for parameter in (parameter for name, parameter in model.named_parameters() if "norm" in name):
                    parameter.sub_(1)
        model.save_pretrained(folder)
        for what in files:
            store(folder, what)
        reference.main([folder])


if __name__ == "__main__":
    main()
