"""Files of torch.save: every element type, views, transposed and shared tensors; and what must be refused -> ../fixtures/torch_files/

    python torch_files.py
"""

import collections

import torch
from common import check, fresh_folder, save_golden

SEED = 71


def main():
    folder = fresh_folder("torch_files")
    folder.mkdir()
    random = torch.Generator().manual_seed(SEED)
    whole = torch.randn(6, 5, generator=random)
    state = collections.OrderedDict(
        plain=torch.randn(3, 4, generator=random),
        half=torch.randn(7, generator=random).half(),
        bfloat=torch.randn(2, 3, generator=random).bfloat16(),
        double=torch.randn(5, generator=random).double(),
        parameter=torch.nn.Parameter(torch.randn(4, generator=random)),
        scalar=torch.randn((), generator=random),
        empty=torch.zeros(0, 3),
        transposed=torch.randn(4, 3, generator=random).t(),
        permuted=torch.randn(2, 3, 4, generator=random).permute(2, 0, 1),
        whole=whole,
        part=whole[2:4],
        column=whole[:, 1],
    )
    # As a module's state_dict() has it.
    state._metadata = collections.OrderedDict([("", dict(version=1))])
    state["embeddings.LayerNorm.gamma"] = torch.randn(3, generator=random)
    state["embeddings.LayerNorm.beta"] = torch.randn(3, generator=random)
    torch.save(state, folder / "pytorch_model.bin")
    renamed = {name.replace("gamma", "weight").replace("beta", "bias"): tensor.detach().clone() for name, tensor in state.items()}
    save_golden(folder / "golden.safetensors", renamed, __file__, seed=SEED)
    # What holds something else than weights, or is of an older format.
    torch.save(dict(ids=torch.arange(4), x=torch.ones(2)), folder / "integers.bin")
    torch.save(dict(x=torch.ones(2)), folder / "old.bin", _use_new_zipfile_serialization=False)
    torch.save(dict(model=dict(x=torch.ones(2)), step=3), folder / "nested.bin")
    torch.save(dict(x=torch.ones(2), device=torch.device("cpu")), folder / "object.bin")
    check(folder)


if __name__ == "__main__":
    main()
