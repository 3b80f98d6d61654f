"""Reference values of a language model's folder, for `cargo xtask verify`: golden.safetensors is written into it.

    python reference.py DIR...

The tokens are those of a few texts where the folder has a tokenizer, else random ones.
"""

import json
import pathlib
import sys

import torch
import transformers
from common import as_stored
from safetensors.torch import save_file

SEED = 11
LENGTHS = [11, 7, 16]
PROMPTS = [2, 2, 2]
N_GREEDY = 12
N_UPDATES = 10
TEXTS = ["The sea was calm that morning.", "She counted the boats twice, and then once more.", "Nobody had told him why."]


def batch(folder, config):
    """Right-padded ids, their mask, and the texts they are of, if any."""
    pad = config.pad_token_id or 0
    texts = None
    if (folder / "tokenizer.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        texts = TEXTS
        rows = [torch.tensor(tokenizer(text).input_ids) for text in texts]
    else:
        random = torch.Generator().manual_seed(SEED)
        special = {pad, config.bos_token_id, getattr(config, "cls_token_id", None)}
        usual = torch.tensor([token for token in range(config.vocab_size) if token not in special])
        rows = [usual[torch.randint(len(usual), (length,), generator=random)] for length in LENGTHS]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids, mask, texts


def write(folder, ids, mask, labels, texts=None, **seeds):
    config = transformers.AutoConfig.from_pretrained(folder)
    name = config.architectures[0]
    load = lambda: getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model = load()
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    golden = dict(
        input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1),
        last_hidden_state=model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state,
    )
    golden |= {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    if not name.endswith("ForMaskedLM"):
        golden["greedy_ids"] = greedy(load(), ids[:1, : int(mask[0].sum())])
        golden["adamw_losses"] = updates(load(), ids, mask, labels)
    origin = dict(architecture=name, torch=torch.__version__, transformers=transformers.__version__, **seeds)
    metadata = {"origin": json.dumps(origin)} | ({"texts": json.dumps(texts)} if texts else {})
    save_file({name: as_stored(tensor) for name, tensor in golden.items()}, folder / "golden.safetensors", metadata)
    print(folder, name, f"loss {output.loss.item():.4f}")


@torch.no_grad()
def greedy(model, ids):
    new, cache = ids, None
    for _ in range(N_GREEDY):
        output = model(input_ids=new, past_key_values=cache, use_cache=True)
        new, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
        ids = torch.cat([ids, new], 1)
    return ids


def updates(model, ids, mask, labels):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for _ in range(N_UPDATES):
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        losses.append(loss.detach())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return torch.stack(losses)


def main(folders):
    for folder in map(pathlib.Path, folders):
        config = transformers.AutoConfig.from_pretrained(folder)
        ids, mask, texts = batch(folder, config)
        if config.architectures[0].endswith("ForMaskedLM"):
            chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(SEED + 1)) < 0.4
        else:
            chosen = torch.arange(ids.shape[1])[None] >= torch.tensor(PROMPTS)[:, None]
        write(folder, ids, mask, torch.where(chosen & (mask == 1), ids, -100), texts, seed=SEED)


if __name__ == "__main__":
    main(sys.argv[1:])
