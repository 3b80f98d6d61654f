"""Rates by group, and their differences and ratios, by fairlearn -> ../fixtures/fairness.json

    python fairness.py
"""

import numpy as np
from cases import save_cases
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equal_opportunity_ratio,
    equalized_odds_difference,
    equalized_odds_ratio,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn.metrics import accuracy_score

SEED = 20240628


def expected(name, groups, labels, predictions):
    rates = dict(selection_rate=selection_rate, true_positive_rate=true_positive_rate, false_positive_rate=false_positive_rate, accuracy=accuracy_score)
    frame = MetricFrame(metrics=rates, y_true=labels, y_pred=predictions, sensitive_features=groups)
    of = lambda metric: float(metric(labels, predictions, sensitive_features=groups))
    return dict(
        name=name,
        outcomes=[[int(group), int(label), int(prediction)] for group, label, prediction in zip(groups, labels, predictions)],
        n_groups=int(max(groups)) + 1,
        by_group=[[float(frame.by_group[rate][group]) for rate in rates] for group in sorted(set(groups.tolist()))],
        demographic_parity=[of(demographic_parity_difference), of(demographic_parity_ratio)],
        equal_opportunity=[of(equal_opportunity_difference), of(equal_opportunity_ratio)],
        equalized_odds=[of(equalized_odds_difference), of(equalized_odds_ratio)],
        accuracy=[float(frame.difference()["accuracy"]), float(frame.ratio()["accuracy"])],
    )


def drawn(random, rows, groups, bias):
    group = random.integers(0, groups, rows)
    # Every group has rows of both classes.
    label = np.where(np.arange(rows) < 2 * groups, np.arange(rows) % 2, random.random(rows) < 0.4).astype(int)
    group[: 2 * groups] = np.arange(2 * groups) // 2
    right = random.random(rows) < 0.8 - bias * group / groups
    return group, label, np.where(right, label, 1 - label)


def main():
    random = np.random.default_rng(SEED)
    save_cases(__file__, SEED, ["fairlearn", "scikit-learn", "numpy"], [
        expected("two groups", *drawn(random, 120, 2, 0.4)),
        expected("five groups", *drawn(random, 200, 5, 0.2)),
        expected("one group", *drawn(random, 40, 1, 0.0)),
        expected("all right", *(lambda group, label, _: (group, label, label))(*drawn(random, 60, 3, 0.0))),
    ])


if __name__ == "__main__":
    main()
