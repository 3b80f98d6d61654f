"""Confusion counts, precision, recall, F1 and Matthews correlation by scikit-learn -> ../fixtures/classification_metrics.json

    python classification_metrics.py
"""

import numpy as np
from cases import save_cases
from sklearn.metrics import accuracy_score, confusion_matrix, matthews_corrcoef, precision_recall_fscore_support

SEED = 20240517


def expected(name, golds, predictions, n_classes):
    labels = list(range(n_classes))

    def scores(average):
        p, r, f, s = precision_recall_fscore_support(golds, predictions, labels=labels, average=average, zero_division=0)
        if average is None:
            return [dict(precision=p[c], recall=r[c], f1=f[c], support=int(s[c])) for c in labels]
        return dict(precision=p, recall=r, f1=f, support=len(golds))

    return dict(
        name=name,
        n_classes=n_classes,
        golds=golds,
        predictions=predictions,
        confusion=confusion_matrix(golds, predictions, labels=labels).tolist(),
        accuracy=accuracy_score(golds, predictions),
        matthews=float(matthews_corrcoef(golds, predictions)),
        per_class=scores(None),
        micro=scores("micro"),
        macro=scores("macro"),
        weighted=scores("weighted"),
    )


def main():
    random = np.random.default_rng(SEED)

    def noisy(golds, n_classes, share_right):
        guess = random.integers(0, n_classes, len(golds))
        return np.where(random.random(len(golds)) < share_right, golds, guess)

    cases = []
    golds = random.choice(4, 90, p=[0.55, 0.25, 0.15, 0.05])
    cases.append(("unbalanced", golds, noisy(golds, 4, 0.6), 4))
    golds = random.integers(0, 2, 41)
    cases.append(("binary", golds, noisy(golds, 2, 0.3), 2))
    golds = random.integers(0, 4, 60)
    predictions = noisy(golds, 4, 0.5)
    predictions[predictions == 2] = 0
    cases.append(("class 2 is never predicted", golds, predictions, 4))
    golds = random.integers(0, 4, 60)
    golds[golds == 1] = 3
    cases.append(("class 1 is absent from gold", golds, noisy(golds, 4, 0.5), 4))
    golds = random.choice([0, 2, 4], 30)
    predictions = random.choice([0, 2, 4], 30)
    cases.append(("classes 1 and 3 occur nowhere", golds, predictions, 5))
    golds = random.integers(0, 3, 12)
    cases.append(("all wrong", golds, (golds + 1) % 3, 3))

    save_cases(__file__, SEED, ["scikit-learn", "numpy"], [expected(name, g.tolist(), p.tolist(), n) for name, g, p, n in cases])


if __name__ == "__main__":
    main()
