"""The first losses of a GPT-2 of 17 million parameters in plain PyTorch, queries, keys and values joined -> ../fixtures/dense_step/

    python dense_step.py

Weights and ids follow formula.py, the weights under our names for parameters; what is stored is what came of them.
"""

import math
import time

import torch
from common import check, fresh_folder, save_golden, write_sorted_json
from formula import integers, uniform
from torch import nn

N_STEPS = 10
LEARNING_RATE = 1e-3
ROWS, TOKENS = 8, 128
VOCAB, WIDTH, LAYERS, HEADS = 8192, 384, 6, 6
CONFIG = dict(
    model_type="gpt2", vocab_size=VOCAB, n_positions=TOKENS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=4 * WIDTH,
    activation_function="gelu_new", layer_norm_epsilon=1e-5, initializer_range=0.02, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
    tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, architectures=["GPT2LMHeadModel"],
)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.joined, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        by_head = lambda part: part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        query, key, value = map(by_head, self.joined(self.attention_norm(x)).chunk(3, -1))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.feed_forward_norm(x)), approximate="tanh"))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCAB, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.final_norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids):
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.final_norm(x))


def formula_weight(path, n_out, n_in, bound=None):
    return uniform(f"{path}.weight", (n_out, n_in), bound or 1 / math.sqrt(n_in))


def fill_linear(linear, *paths):
    """A linear layer, or several joined in it."""
    n_out, n_in = linear.out_features // len(paths), linear.in_features
    linear.weight.copy_(torch.cat([formula_weight(path, n_out, n_in) for path in paths]))
    if linear.bias is not None:
        linear.bias.copy_(torch.cat([uniform(f"{path}.bias", (n_out,), 1 / math.sqrt(n_in)) for path in paths]))


@torch.no_grad()
def fill(model):
    """As PyTorch starts its layers, but with uniform embeddings of the same variance, 1. Norms keep gain 1 and bias 0."""
    model.token.weight.copy_(formula_weight("trunk.embeddings.token", VOCAB, WIDTH, math.sqrt(3)))
    model.position.weight.copy_(formula_weight("trunk.embeddings.position", TOKENS, WIDTH, math.sqrt(3)))
    for index, layer in enumerate(model.layers):
        path = f"trunk.layers.{index}"
        fill_linear(layer.joined, *(f"{path}.attention.{name}" for name in ("query", "key", "value")))
        fill_linear(layer.output, f"{path}.attention.output")
        fill_linear(layer.up, f"{path}.feed_forward.up")
        fill_linear(layer.down, f"{path}.feed_forward.down")
    fill_linear(model.head, "head.output")


def main():
    folder = fresh_folder("dense_step")
    folder.mkdir()
    model = Decoder()
    fill(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    losses, norms = [], []
    for step in range(N_STEPS):
        start = time.perf_counter()
        ids = integers(f"ids.{step}", (ROWS, TOKENS + 1), VOCAB)
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        # In float32 the sum over so many elements would be off by 4e-4.
        norms.append(math.sqrt(sum(parameter.grad.double().square().sum().item() for parameter in model.parameters())))
        optimizer.step()
        losses.append(loss.item())
        print(f"{loss.item():.6f} {time.perf_counter() - start:.2f} s")
    write_sorted_json(folder / "config.json", CONFIG)
    columns = dict(losses=losses, gradient_norms=norms, learning_rates=[LEARNING_RATE] * N_STEPS)
    save_golden(folder / "golden.safetensors", {name: torch.tensor(column) for name, column in columns.items()}, __file__)
    check(folder)


if __name__ == "__main__":
    main()
