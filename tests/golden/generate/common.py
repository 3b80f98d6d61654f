"""What the generators share: tiny models whose every parameter matters, ragged batches, and files with their origin."""

import json
import os
import pathlib
import shutil

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import peft
import torch
import transformers
from safetensors.torch import save_file

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
MAX_BYTES = 64 * 1024
VOCAB = 61
PAD = 0

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()


def randomize(model, seed):
    """Weights far from their defaults: with norm gains of 1, biases of 0 and logits near 0 many mistakes would not show."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=random)
            is_gain = ("norm" in name.lower() or "ln_" in name) and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_gain else 0.2 * noise)
    return model.eval()


def llama_config(**changes):
    settings = dict(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=32, pad_token_id=PAD, bos_token_id=1, eos_token_id=2, attn_implementation="eager",
    )
    return transformers.LlamaConfig(**{**settings, **changes})


def bert_config(**changes):
    settings = dict(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
        pad_token_id=PAD, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager",
    )
    return transformers.BertConfig(**{**settings, **changes})


def gpt2_config(**changes):
    settings = dict(
        vocab_size=VOCAB, n_embd=16, n_inner=24, n_layer=2, n_head=4, n_positions=32, pad_token_id=PAD, bos_token_id=1, eos_token_id=2,
        embd_pdrop=0.05, resid_pdrop=0.2, attn_pdrop=0.1, attn_implementation="eager",
    )
    return transformers.GPT2Config(**{**settings, **changes})


def ragged(lengths, seed, vocab_size=VOCAB):
    """Right-padded ids and their mask, `[rows, longest]`; no real token is the pad token."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(3, vocab_size, (length,), generator=random)
        mask[row, :length] = 1
    return ids, mask


def next_token_labels(ids, mask, n_prompt):
    """Labels as transformers takes them: -100 where there is no loss, which here is the padding and the first tokens of each row."""
    labels = torch.where(mask == 1, ids, -100)
    for row, n in enumerate(n_prompt):
        labels[row, :n] = -100
    return labels


def gradients(model, rename=lambda name: name):
    named = model.named_parameters()
    return {f"grad.{rename(name)}": parameter.grad for name, parameter in named if parameter.requires_grad}


def fresh_folder(name):
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def save_model(model, folder):
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def as_stored(tensor):
    return tensor.detach().to(torch.float32 if tensor.is_floating_point() else torch.int32).contiguous()


def save_golden(path, tensors, generator, **seeds):
    origin = dict(
        generator=f"tests/golden/generate/{pathlib.Path(generator).name}",
        torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__, **seeds,
    )
    # One key: safetensors writes several in an order that changes from run to run.
    save_file({name: as_stored(tensor) for name, tensor in tensors.items()}, path, {"origin": json.dumps(origin)})


def check(folder):
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        print(f"{path.relative_to(FIXTURES)} {size}")
        assert size <= MAX_BYTES, f"{path} has {size} bytes, at most {MAX_BYTES} are allowed"


def write_sorted_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
