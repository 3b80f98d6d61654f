"""LlamaForCausalLM after resize_token_embeddings -> ../fixtures/resized_embeddings/

    python resized_embeddings.py

transformers draws new rows around the mean of the others; here they are the mean itself.
"""

import torch
import transformers
from common import VOCAB, check, fresh_folder, llama_config, ragged, randomize, save_golden, save_model

SEED = 81
N_NEW = 3


def main():
    folder = fresh_folder("resized_embeddings")
    model = randomize(transformers.LlamaForCausalLM(llama_config(tie_word_embeddings=False)), SEED)
    save_model(model, folder)
    model.resize_token_embeddings(VOCAB + N_NEW, mean_resizing=False)
    with torch.no_grad():
        for layer in [model.get_input_embeddings(), model.get_output_embeddings()]:
            layer.weight[VOCAB:] = layer.weight[:VOCAB].mean(0)
    ids, mask = ragged([6, 9], SEED + 1)
    # New tokens are read too.
    ids[0, 2], ids[1, 5] = VOCAB, VOCAB + N_NEW - 1
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    save_golden(folder / "golden.safetensors", dict(input_ids=ids, attention_mask=mask, logits=logits), __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
