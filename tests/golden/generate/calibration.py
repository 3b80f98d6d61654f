"""Reliability, expected calibration error and Brier's score of answers, by NumPy and scikit-learn -> ../fixtures/calibration.json

    python calibration.py
"""

import numpy as np
from cases import save_cases
from sklearn.metrics import brier_score_loss

SEED = 20240712
BINS = 15


def case(name, probabilities, golds):
    confidence, answer = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = answer == golds
    # Right-closed bins, as in the paper.
    place = np.clip(np.digitize(confidence, np.linspace(0.0, 1.0, BINS + 1), right=True) - 1, 0, BINS - 1)
    bins = [place == index for index in range(BINS)]
    ece = sum(chosen.sum() / len(golds) * abs(right[chosen].mean() - confidence[chosen].mean()) for chosen in bins if chosen.any())
    return dict(
        name=name,
        logits=np.log(probabilities).round(6).tolist(),
        golds=golds.tolist(),
        ece=float(ece),
        brier=float(brier_score_loss(golds, probabilities, labels=list(range(probabilities.shape[1])), scale_by_half=False)),
        n_answers=[int(chosen.sum()) for chosen in bins if chosen.any()],
        accuracy=[float(right[chosen].mean()) for chosen in bins if chosen.any()],
    )


def drawn(random, rows, classes, sharpness):
    logits = (sharpness * random.normal(size=(rows, classes))).round(6)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    golds = np.array([random.choice(classes, p=row) for row in probabilities ** 0.5 / (probabilities ** 0.5).sum(axis=1, keepdims=True)])
    return probabilities, golds


def main():
    random = np.random.default_rng(SEED)
    save_cases(__file__, SEED, ["scikit-learn", "numpy"], [
        case("two classes", *drawn(random, 150, 2, 1.5)),
        case("six classes", *drawn(random, 200, 6, 2.0)),
        case("sure of itself", *drawn(random, 80, 3, 6.0)),
    ])


if __name__ == "__main__":
    main()
