"""Llama with scaled rotary positions: everything `cargo xtask verify` compares -> ../fixtures/rotary_scaling/{linear,dynamic,yarn,yarn_keys}/

    python rotary_scaling.py

`linear` and `yarn` have the keys of transformers 4, the others those of transformers 5. The sequences of `dynamic` are longer than those
trained on, and all as long, because transformers takes the longest of a batch.
"""

import json

import transformers
from common import check, fresh_folder, llama_config, next_token_labels, ragged, randomize, save_model
from reference import write

SEED = 81
LENGTHS = [11, 7, 14]
PROMPTS = [2, 0, 3]
LONG = [12, 12, 12]
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8)
SCALINGS = dict(
    linear=dict(rope_type="linear", factor=2.5),
    dynamic=dict(rope_type="dynamic", factor=3.0, rope_theta=500.0),
    yarn=YARN,
    yarn_keys=dict(**YARN, rope_theta=700.0, beta_fast=3.0, beta_slow=0.5, mscale=0.7, mscale_all_dim=0.3, truncate=False),
)


def main():
    folder = fresh_folder("rotary_scaling")
    for name, scaling in SCALINGS.items():
        config = llama_config(
            vocab_size=41, intermediate_size=20, head_dim=16, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
            rope_parameters=dict(rope_theta=10000.0) | scaling, max_position_embeddings=8 if name == "dynamic" else 32,
        )
        save_model(randomize(transformers.LlamaForCausalLM(config), SEED), folder / name)
        if name in ["linear", "yarn"]:
            older(folder / name / "config.json")
        ids, mask = ragged(LONG if name == "dynamic" else LENGTHS, SEED + 1, vocab_size=41)
        write(folder / name, ids, mask, next_token_labels(ids, mask, PROMPTS), seed=SEED)
        check(folder / name)


def older(path):
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = parameters | {"type": parameters.pop("rope_type")}
    path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
