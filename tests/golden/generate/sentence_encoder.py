"""A tiny BERT pooled by sentence-transformers in each way Kiln knows -> ../fixtures/sentence_encoder/

    python sentence_encoder.py
"""

import json

import sentence_transformers
import torch
import transformers
from common import bert_config, check, fresh_folder, ragged, randomize, save_golden, save_model
from sentence_transformers.sentence_transformer.modules import Pooling

SEED = 57
LENGTHS = [7, 1, 5]


def main():
    folder = fresh_folder("sentence_encoder")
    model = randomize(transformers.BertModel(bert_config(), add_pooling_layer=False), SEED)
    save_model(model, folder)
    ids, mask = ragged(LENGTHS, SEED + 1)
    golden = dict(input_ids=ids, attention_mask=mask)
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    for mode in ["mean", "cls", "max", "lasttoken"]:
        pooling = Pooling(hidden.shape[-1], mode)
        golden[mode] = pooling(dict(token_embeddings=hidden, attention_mask=mask))["sentence_embedding"]
        golden[f"{mode}.normalized"] = torch.nn.functional.normalize(golden[mode], dim=-1)
        (folder / f"{mode}.json").write_text(json.dumps(pooling.get_config_dict(), indent=2) + "\n")
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED, sentence_transformers=sentence_transformers.__version__)
    check(folder)


if __name__ == "__main__":
    main()
