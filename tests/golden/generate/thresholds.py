"""Thresholds of groups by fairlearn's ThresholdOptimizer -> ../fixtures/thresholds.json

    python thresholds.py

fairlearn draws between two thresholds at random; what is kept are the shares that are then predicted positive on average, and right.
"""

import numpy as np
from cases import save_cases
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin

SEED = 20240705


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose input is its score."""

    def fit(self, scores, labels):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, scores):
        return scores[:, 0]


def expected(name, criterion, groups, labels, scores):
    optimizer = ThresholdOptimizer(estimator=Given(), constraints=criterion, prefit=True, predict_method="predict", grid_size=1000)
    optimizer.fit(scores[:, None], labels, sensitive_features=groups)
    positive = optimizer._pmf_predict(scores[:, None], sensitive_features=groups)[:, 1]
    of = lambda chosen: float(positive[chosen].mean())
    return dict(
        name=name,
        rows=[[int(group), int(label), float(score)] for group, label, score in zip(groups, labels, scores)],
        n_groups=int(max(groups)) + 1,
        criterion=criterion,
        selection_rates=[of(groups == group) for group in range(max(groups) + 1)],
        true_positive_rates=[of((groups == group) & (labels == 1)) for group in range(max(groups) + 1)],
        accuracy=float(np.where(labels == 1, positive, 1 - positive).mean()),
    )


def drawn(random, rows, groups, shift):
    group = random.integers(0, groups, rows)
    label = (random.random(rows) < 0.3 + 0.4 * group / groups).astype(int)
    logit = random.normal(0, 1, rows) + 1.5 * label - 0.75 + shift * group
    return group, label, np.round(1 / (1 + np.exp(-logit)), 6)


def main():
    random = np.random.default_rng(SEED)
    save_cases(__file__, SEED, ["fairlearn", "scikit-learn", "numpy"], [
        expected("two groups", "demographic_parity", *drawn(random, 800, 2, 1.0)),
        expected("two groups", "true_positive_rate_parity", *drawn(random, 800, 2, 1.0)),
        expected("three groups", "demographic_parity", *drawn(random, 900, 3, -0.6)),
        expected("three groups", "true_positive_rate_parity", *drawn(random, 900, 3, -0.6)),
    ])


if __name__ == "__main__":
    main()
