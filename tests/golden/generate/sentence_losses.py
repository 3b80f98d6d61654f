"""Sentence-embedding losses of sentence-transformers on random embeddings and through a tiny BERT -> ../fixtures/sentence_losses/

    python sentence_losses.py
"""

import sentence_transformers
import torch
import transformers
from common import bert_config, check, fresh_folder, gradients, ragged, randomize, save_golden, save_model
from sentence_transformers.sentence_transformer import losses

SEED = 61
PAIRS, WIDTH = 6, 8
# Anchors, positives and hard negatives of the batch that goes through the model, and their lengths.
LENGTHS = [5, 9, 4, 7, 6, 3, 8, 5, 10, 4, 6, 7]
ROWS = 4


def leaf(rows, seed, scale=1.0):
    random = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, WIDTH, generator=random)).requires_grad_()


def record(golden, name, loss, columns, labels=None):
    embeddings = [column.detach().clone().requires_grad_() for column in columns]
    value = loss.compute_loss_from_embeddings(embeddings, labels)
    value.backward()
    golden[f"{name}.embeddings"] = torch.cat(embeddings)
    golden[f"{name}.loss"] = value.reshape(1)
    golden[f"{name}.gradient"] = torch.cat([column.grad for column in embeddings])


class Pooled(torch.nn.Module):
    """A BERT whose vectors are the normalised means of its tokens, called as sentence-transformers' losses call a model."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, ids, keep):
        hidden = self.bert(input_ids=ids, attention_mask=keep).last_hidden_state
        keep = keep.unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * keep).sum(1) / keep.sum(1), dim=1)


def main():
    folder = fresh_folder("sentence_losses")
    folder.mkdir()
    golden = {}
    ranking = lambda **options: losses.MultipleNegativesRankingLoss(None, **options)
    both = dict(directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction")
    anchors, positives = leaf(PAIRS, SEED), leaf(PAIRS, SEED + 1)
    # Cosines near each other: at the scale of 20 the softmax would else see one document only.
    positives = (positives.detach() + 0.5 * anchors.detach()).requires_grad_()
    negatives, more = leaf(PAIRS, SEED + 2), leaf(PAIRS, SEED + 3)
    record(golden, "ranking", ranking(), [anchors, positives])
    record(golden, "ranking_scale_5", ranking(scale=5.0), [anchors, positives])
    record(golden, "ranking_negatives", ranking(), [anchors, positives, negatives, more])
    record(golden, "ranking_symmetric", ranking(**both), [anchors, positives])
    record(golden, "ranking_symmetric_negatives", ranking(**both), [anchors, positives, negatives])
    scores = torch.tensor([0.5, 3.0, 3.0, 4.5, 1.0, 0.0])
    golden["cosent.scores"] = scores
    record(golden, "cosent", losses.CoSENTLoss(None), [anchors, positives], scores)
    record(golden, "triplet", losses.TripletLoss(None), [anchors, positives, negatives])
    record(golden, "triplet_margin_half", losses.TripletLoss(None, triplet_margin=0.5), [anchors, positives, negatives])

    bert = randomize(transformers.BertModel(bert_config(), add_pooling_layer=False), SEED)
    save_model(bert, folder)
    ids, keep = ragged(LENGTHS, SEED + 4)
    vectors = Pooled(bert)(ids, keep)
    value = ranking().compute_loss_from_embeddings(list(vectors.split(ROWS)), None)
    value.backward()
    golden.update(input_ids=ids, attention_mask=keep, labels=torch.zeros(len(LENGTHS)), vectors=vectors, loss=value.reshape(1))
    save_golden(
        folder / "golden.safetensors", {**golden, **gradients(bert, lambda name: f"bert.{name}")}, __file__,
        seed=SEED, sentence_transformers=sentence_transformers.__version__,
    )
    check(folder)


if __name__ == "__main__":
    main()
