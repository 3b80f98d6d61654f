"""Metrics of rankings by trec_eval through pytrec_eval -> ../fixtures/retrieval.json

    python retrieval.py

With the package pytrec-eval-terrier, which is pytrec_eval with wheels.
"""

import random

import pytrec_eval
from cases import save_cases

SEED = 20240615
CUTS = [1, 3, 10]
MEASURES = {"ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "average_precision": "map_cut"}


def expected(name, retrieved, judgements):
    cuts = ",".join(map(str, CUTS))
    wanted = {f"{measure}.{cuts}" for measure in MEASURES.values()} | {"map", "recip_rank"}
    result = pytrec_eval.RelevanceEvaluator({"q": judgements}, wanted).evaluate({"q": retrieved})["q"]
    at = [dict(k=k, **{ours: result[f"{theirs}_{k}"] for ours, theirs in MEASURES.items()}) for k in CUTS]
    first = result["recip_rank"]
    for cut in at:
        # trec_eval knows no cut here: a first relevant document further down counts as none.
        cut["reciprocal_rank"] = first if first >= 1 / cut["k"] else 0.0
    pairs = dict(retrieved=list(retrieved.items()), judgements=list(judgements.items()))
    return dict(name=name, **pairs, at=at, map=result["map"], mrr=first)


def main():
    source = random.Random(SEED)
    documents = [f"doc{i}" for i in range(40)] + ["Doc2", "döc", "10"]

    def query(n_retrieved, n_judged, grades, digits):
        retrieved = {document: round(source.random(), digits) for document in source.sample(documents, n_retrieved)}
        return retrieved, {document: source.choice(grades) for document in source.sample(documents, n_judged)}

    cases = [(f"graded {i}", *query(20, 25, [0, 0, 1, 2, 3], 6)) for i in range(4)]
    cases += [(f"ties {i}", *query(25, 20, [0, 1, 2], 1)) for i in range(4)]
    cases += [
        ("equal as f32", {"a": 0.7 + 1e-10, "b": 0.7, "c": 0.7 - 1e-10}, {"a": 1, "b": 2}),
        ("fewer found than k", *query(2, 30, [0, 1], 3)),
        ("nothing relevant", {"a": 1.0, "b": 0.5}, {"a": 0}),
        ("nothing relevant found", {"a": 1.0, "b": 0.5}, {"c": 2}),
        ("a perfect order", {"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 3, "b": 2, "c": 1}),
    ]
    save_cases(__file__, SEED, ["pytrec_eval-terrier"], [expected(*case) for case in cases])


if __name__ == "__main__":
    main()
