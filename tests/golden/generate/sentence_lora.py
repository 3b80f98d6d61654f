"""A PEFT adapter on a bare BertModel under sentence-transformers' ranking loss -> ../fixtures/sentence_lora/

    python sentence_lora.py
"""

import sentence_transformers
import torch
import transformers
from adapters import encoder_linears, randomized_adapter, save_adapter, stored_name
from common import bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model
from peft import LoraConfig, TaskType
from sentence_transformers.sentence_transformer import losses

SEED = 91
# Anchors, then their positives.
LENGTHS = [5, 9, 4, 6, 3, 8]
ROWS = 3


def means(model, ids, keep):
    hidden = model(input_ids=ids, attention_mask=keep).last_hidden_state
    keep = keep.unsqueeze(-1)
    return (hidden * keep).sum(1) / keep.sum(1)


def main():
    folder = fresh_folder("sentence_lora")
    base = randomize(transformers.BertModel(bert_config(), add_pooling_layer=False), SEED)
    save_model(base, folder)
    ids, keep = ragged(LENGTHS, SEED + 1)
    base_vectors = means(base, ids, keep)
    config = LoraConfig(r=4, lora_alpha=10, target_modules=encoder_linears(base), task_type=TaskType.FEATURE_EXTRACTION)
    model = randomized_adapter(base, config, SEED + 2)
    vectors = means(model, ids, keep)
    value = losses.MultipleNegativesRankingLoss(None, scale=5.0).compute_loss_from_embeddings(list(vectors.split(ROWS)), None)
    value.backward()
    grads = gradients(model, stored_name)
    save_adapter(model, folder)
    merged_vectors = means(model.merge_and_unload(), ids, keep)
    golden = dict(
        input_ids=ids, attention_mask=keep, labels=torch.zeros(len(LENGTHS)), base_vectors=base_vectors, vectors=vectors,
        merged_vectors=merged_vectors, loss=value.reshape(1),
    )
    save_golden(folder / "golden.safetensors", {**golden, **grads}, __file__, seed=SEED, sentence_transformers=sentence_transformers.__version__)
    check(folder)


if __name__ == "__main__":
    main()
