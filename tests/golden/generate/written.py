"""What transformers, PEFT and sentence-transformers make of the files Kiln writes: logits, vectors -> ../fixtures/written/*/golden.safetensors

The files themselves are written by the test that compares them, when it is told where to:

    KILN_WRITTEN=tests/golden/fixtures/written cargo test -p xtask -p kiln-tests --test golden written
    python written.py

A checkpoint must load strictly: no tensor missing, unexpected or of another shape.
"""

import peft
import sentence_transformers
import torch
import transformers
from common import FIXTURES, check, ragged, save_golden

SEED = 62
LENGTHS = [6, 9, 3]
BASES = dict(rslora="llama", dora="llama", gpt2="gpt2", vocabulary="llama", modernbert="modernbert")
TEXTS = ["the sea is cold today", "warm sun on the hill", "ice"]


def load(folder):
    name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def main():
    ids, mask = ragged(LENGTHS, SEED)
    models = {f"{name}_merged": lambda name=name: load(FIXTURES / "written" / f"{name}_merged") for name in BASES}
    for name, base in BASES.items():
        base = FIXTURES / "adapter_kinds" / base
        models[name] = lambda name=name, base=base: peft.PeftModel.from_pretrained(load(base), FIXTURES / "written" / name).eval()
    for name, make in models.items():
        folder = FIXTURES / "written" / name
        with torch.no_grad():
            logits = make()(input_ids=ids, attention_mask=mask).logits
        save_golden(folder / "golden.safetensors", dict(input_ids=ids, attention_mask=mask, logits=logits), __file__, seed=SEED)
        check(folder)
    folder = FIXTURES / "written" / "sentences"
    vectors = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    save_golden(folder / "golden.safetensors", dict(vectors=vectors), __file__, sentence_transformers=sentence_transformers.__version__)


if __name__ == "__main__":
    main()
