"""Classifiers of sequences and tokens and pooled sentences of RoBERTa, DistilBERT, ModernBERT and Gemma 3: logits, loss, gradients and vectors
-> ../fixtures/encoder_heads/<family>/, and a RoBERTa whose head is not its table -> ../fixtures/encoder_heads/roberta_untied/

    python encoder_heads.py
"""

import torch
import transformers
from common import PAD, VOCAB, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model
from reference import write
from sentence_transformers.sentence_transformer.modules import Pooling

SEED = 91
LENGTHS = [9, 4, 6]
# The first token of each word; the others have no label.
FIRSTS = [[1, 2, 5, 6], [1, 2], [2, 3]]
N_LABELS = 3
SIZES = dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32,
    num_labels=N_LABELS, attn_implementation="eager",
)
MARKS = dict(pad_token_id=PAD, bos_token_id=1, eos_token_id=2)


def modernbert(**changes):
    settings = dict(local_attention=4, layer_types=["full_attention", "sliding_attention"], cls_token_id=1, sep_token_id=2)
    return transformers.ModernBertConfig(**SIZES, **MARKS, **settings, **changes)


def configs():
    roberta = transformers.RobertaConfig(**SIZES, type_vocab_size=1, pad_token_id=2, bos_token_id=0, eos_token_id=1)
    distilbert = transformers.DistilBertConfig(
        vocab_size=VOCAB, dim=16, hidden_dim=24, n_layers=2, n_heads=4, max_position_embeddings=32, pad_token_id=PAD, num_labels=N_LABELS,
        attn_implementation="eager",
    )
    gemma3 = transformers.Gemma3TextConfig(
        **SIZES, **MARKS, head_dim=8, num_key_value_heads=1, sliding_window=3, layer_types=["sliding_attention", "full_attention"],
    )
    return dict(
        roberta=("Roberta", roberta),
        distilbert=("DistilBert", distilbert),
        modernbert=("ModernBert", modernbert()),
        modernbert_mean=("ModernBert", modernbert(classifier_pooling="mean", classifier_bias=True, norm_bias=True, mlp_bias=True)),
        gemma3=("Gemma3Text", gemma3),
    )


def save(folder, model, ids, mask, labels, **others):
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    save_model(model, folder)
    golden = dict(input_ids=ids, attention_mask=mask, labels=labels, logits=output.logits, loss=output.loss.reshape(1), **others)
    save_golden(folder / "golden.safetensors", {**golden, **gradients(model)}, __file__, seed=SEED)
    check(folder)


def main():
    folder = fresh_folder("encoder_heads")
    ids, mask = ragged(LENGTHS, SEED + 1)
    for name, (family, config) in configs().items():
        ids = torch.where(mask == 1, ids, config.pad_token_id)
        model = randomize(getattr(transformers, f"{family}ForSequenceClassification")(config), SEED)
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = {mode: Pooling(16, mode)(dict(token_embeddings=hidden, attention_mask=mask))["sentence_embedding"] for mode in ["mean", "cls"]}
        save(folder / name / "sequence", model, ids, mask, torch.tensor([2, 0, 1]), **pooled)
        if hasattr(transformers, f"{family}ForTokenClassification"):
            model = randomize(getattr(transformers, f"{family}ForTokenClassification")(config), SEED)
            labels = torch.full_like(ids, -100)
            for row, firsts in enumerate(FIRSTS):
                for word, first in enumerate(firsts):
                    labels[row, first] = (2 * row + word) % N_LABELS
            save(folder / name / "tokens", model, ids, mask, labels)

    roberta = transformers.RobertaConfig(**SIZES, type_vocab_size=1, pad_token_id=2, tie_word_embeddings=False)
    model = randomize(transformers.RobertaForMaskedLM(roberta), SEED)
    # Two names of one bias where the head is the table; here transformers reads only the first.
    model.lm_head.bias.data.copy_(model.lm_head.decoder.bias)
    save_model(model, folder / "roberta_untied")
    ids = torch.where(mask == 1, ids, roberta.pad_token_id)
    labels = torch.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(SEED)) < 0.4, ids, -100)
    write(folder / "roberta_untied", ids, mask, torch.where(mask == 1, labels, -100), seed=SEED)
    check(folder / "roberta_untied")


if __name__ == "__main__":
    main()
