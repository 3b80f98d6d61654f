"""Area under the ROC curve and average precision by scikit-learn -> ../fixtures/binary.json

    python binary.py
"""

import numpy as np
from cases import save_cases
from sklearn.metrics import average_precision_score, roc_auc_score

SEED = 20240612


def expected(name, scores, positives):
    return dict(
        name=name,
        pairs=[[float(s), bool(p)] for s, p in zip(scores, positives)],
        roc_auc=float(roc_auc_score(positives, scores)),
        average_precision=float(average_precision_score(positives, scores)),
    )


def main():
    random = np.random.default_rng(SEED)
    positives = random.random(90) < 0.3
    few = np.zeros(120, dtype=bool)
    few[[7, 40, 99]] = True
    save_cases(__file__, SEED, ["scikit-learn", "numpy"], [
        expected("no ties", np.round(random.normal(size=90) + positives, 7), positives),
        expected("many ties", np.round(random.normal(size=90) + positives), positives),
        expected("three positives", np.round(random.normal(size=120) + 2 * few, 2), few),
        expected("worse than chance", np.round(random.normal(size=90) - positives, 3), positives),
        expected("one score for all", np.full(20, 0.5), positives[:20]),
        expected("one of each", [0.2, 0.1], [True, False]),
    ])


if __name__ == "__main__":
    main()
