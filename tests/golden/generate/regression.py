"""Errors by scikit-learn and correlations by SciPy -> ../fixtures/regression.json

    python regression.py
"""

import numpy as np
from cases import save_cases
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error

SEED = 20240611


def expected(name, predictions, golds):
    return dict(
        name=name,
        pairs=[[float(p), float(g)] for p, g in zip(predictions, golds)],
        mean_squared_error=float(mean_squared_error(golds, predictions)),
        mean_absolute_error=float(mean_absolute_error(golds, predictions)),
        pearson=float(pearsonr(predictions, golds).statistic),
        spearman=float(spearmanr(predictions, golds).statistic),
    )


def main():
    random = np.random.default_rng(SEED)
    golds = random.integers(0, 26, 80) / 5
    save_cases(__file__, SEED, ["scikit-learn", "scipy", "numpy"], [
        expected("similarities of pairs, golds tied", np.round(np.tanh(golds / 4 + 0.3 * random.normal(size=80)), 6), golds),
        expected("ties on both sides", random.integers(0, 4, 60), random.integers(0, 3, 60)),
        expected("nothing in common", np.round(random.normal(size=40), 6), np.round(random.normal(size=40), 6)),
        expected("a large mean beside a small spread", 1e6 + np.round(random.normal(size=30), 4), np.round(random.normal(size=30), 4)),
        expected("a falling curve", np.round(np.linspace(0.1, 4, 25), 4), np.round(np.exp(-np.linspace(0.1, 4, 25)), 8)),
        expected("three pairs", [0.5, 0.25, 0.75], [1.0, 3.0, 2.0]),
    ])


if __name__ == "__main__":
    main()
