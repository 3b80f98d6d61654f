"""GPT2LMHeadModel with a head of its own: logits, loss, gradients and a greedy continuation -> ../fixtures/gpt2/

    python gpt2.py
"""

import torch
import transformers
from common import check, fresh_folder, gpt2_config, gradients, next_token_labels, ragged, randomize, save_golden, save_model

SEED = 36
LENGTHS = [7, 10, 4]
PROMPTS = [0, 4, 2]
N_GREEDY = 12


def main():
    folder = fresh_folder("gpt2")
    model = randomize(transformers.GPT2LMHeadModel(gpt2_config(tie_word_embeddings=False)), SEED)
    ids, mask = ragged(LENGTHS, SEED + 1)
    labels = next_token_labels(ids, mask, PROMPTS)
    output = model(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    output.loss.backward()
    greedy = ids[:1, : LENGTHS[0]]
    with torch.no_grad():
        for _ in range(N_GREEDY):
            greedy = torch.cat([greedy, model(input_ids=greedy).logits[:, -1:].argmax(-1)], 1)
    save_model(model, folder)
    golden = dict(
        input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, last_hidden_state=output.hidden_states[-1],
        loss=output.loss.reshape(1), greedy_ids=greedy,
    )
    save_golden(folder / "golden.safetensors", {**golden, **gradients(model)}, __file__, seed=SEED)
    check(folder)


if __name__ == "__main__":
    main()
