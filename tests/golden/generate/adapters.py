"""What the generators of adapters share."""

import json

import torch
from common import write_sorted_json
from peft import get_peft_model


def randomized_adapter(model, config, seed):
    """A model with an adapter that changes something: PEFT starts B, and with it the whole adapter, at zero."""
    model = get_peft_model(model, config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def save_adapter(model, folder):
    """The two files as PEFT writes them, but for the order of the names, which PEFT takes from a Python set."""
    model.peft_config["default"].base_model_name_or_path = "tiny"
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    write_sorted_json(path, config)


def stored_name(name):
    """The name PEFT gives a parameter in its file."""
    return name.replace(".modules_to_save.default", "").replace(".default.weight", ".weight")


def encoder_linears(model):
    """The full names of the linear layers in the blocks of an encoder."""
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and ".layer." in f".{name}"]
