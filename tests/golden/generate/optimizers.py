"""Ten updates by each optimizer, by parameter groups and with an average, on gradients from a formula -> ../fixtures/optimizers/

AdamW, SGD, Muon and the average are PyTorch's, Adafactor is transformers', Lion is Algorithm 2 of arXiv:2302.06675 written out. The start is
the model of ../fixtures/updater.

    python optimizers.py
"""

import copy

import torch
import transformers
from common import FIXTURES, check, fresh_folder, save_golden
from formula import uniform
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers.optimization import Adafactor

N_STEPS = 10
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 0.1
# An embedding, wide and tall matrices, a bias and a gain.
KEPT = ["model.embed_tokens.weight", "lm_head.weight"] + [
    f"model.layers.0.{name}" for name in
    ("self_attn.q_proj.weight", "self_attn.k_proj.bias", "mlp.gate_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight")
]


class Lion(torch.optim.Optimizer):
    def __init__(self, groups, lr, betas, weight_decay=0.0):
        super().__init__(groups, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta_1, beta_2 = group["betas"]
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                direction = torch.sign(beta_1 * momentum + (1 - beta_1) * parameter.grad)
                parameter -= group["lr"] * (direction + group["weight_decay"] * parameter)
                momentum.mul_(beta_2).add_(parameter.grad, alpha=1 - beta_2)


class Both:
    """An optimizer for some parameters and another for the rest."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()


def is_plain(name):
    return name.endswith("bias") or "norm" in name


def groups(named):
    named = list(named)
    return [
        dict(params=[parameter for name, parameter in named if not is_plain(name)], weight_decay=WEIGHT_DECAY),
        dict(params=[parameter for name, parameter in named if is_plain(name)], weight_decay=0.0),
    ]


def adamw(named):
    return torch.optim.AdamW(groups(named), lr=LEARNING_RATE)


def adafactor(named, **settings):
    return Adafactor(groups(named), lr=LEARNING_RATE, relative_step=False, warmup_init=False, **settings)


def muon(named):
    named = list(named)
    hidden = [(name, parameter) for name, parameter in named if ".layers." in name and parameter.dim() == 2]
    rest = [(name, parameter) for name, parameter in named if ".layers." not in name or parameter.dim() != 2]
    of_hidden = torch.optim.Muon([parameter for _, parameter in hidden], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    return Both(of_hidden, adamw(rest))


def grouped(named):
    named = list(named)
    rates = lambda name: 10.0 if ".layers.1." in name else 0.3 if "mlp" in name else 1.0
    decays = lambda name: 0.5 if "mlp" in name and ".layers.1." not in name else 0.0 if is_plain(name) else WEIGHT_DECAY
    trained = [(name, parameter) for name, parameter in named if "embed_tokens" not in name]
    return torch.optim.AdamW(
        [dict(params=[parameter], lr=LEARNING_RATE * rates(name), weight_decay=decays(name)) for name, parameter in trained]
    )


def train(start, optimizer, average=None):
    model = copy.deepcopy(start)
    named = list(model.named_parameters())
    optimizer = optimizer(named)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(average)) if average else None
    for step in range(N_STEPS):
        for name, parameter in named:
            parameter.grad = uniform(f"{name}.{step}", parameter.shape, 0.5 ** (step % 3))
        # Muon iterates in bfloat16, which would hide everything below a hundredth.
        half, torch.bfloat16 = torch.bfloat16, torch.float32
        optimizer.step()
        torch.bfloat16 = half
        if averaged:
            averaged.update_parameters(model)
    return averaged.module if averaged else model


def main():
    folder = fresh_folder("optimizers")
    folder.mkdir()
    start = transformers.LlamaForCausalLM.from_pretrained(FIXTURES / "updater", torch_dtype=torch.float32)
    sgd = lambda **settings: lambda named: torch.optim.SGD(groups(named), lr=LEARNING_RATE, **settings)
    runs = dict(
        adafactor=train(start, adafactor_of(scale_parameter=False)),
        adafactor_scaled=train(start, adafactor_of(scale_parameter=True, clip_threshold=0.5)),
        lion=train(start, lambda named: Lion(groups(named), lr=LEARNING_RATE, betas=(0.9, 0.99))),
        muon=train(start, muon),
        sgd=train(start, sgd()),
        sgd_momentum=train(start, sgd(momentum=0.9)),
        sgd_nesterov=train(start, sgd(momentum=0.9, nesterov=True)),
        adamw_averaged=train(start, adamw, average=0.8),
        adamw_grouped=train(start, grouped),
    )
    golden = {}
    for run, model in runs.items():
        named = dict(model.named_parameters())
        # Every parameter would be too much: the optimizers do not know one matrix from another.
        names = KEPT if run in ("muon", "adamw_grouped") else KEPT[2:]
        golden.update({f"{run}.{name}": named[name] for name in names})
    save_golden(folder / "golden.safetensors", golden, __file__)
    check(folder)


def adafactor_of(**settings):
    return lambda named: adafactor(named, **settings)


if __name__ == "__main__":
    main()
