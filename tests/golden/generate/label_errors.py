"""Confident learning by cleanlab: thresholds, joint, label errors and quality scores -> ../fixtures/label_errors.json

    python label_errors.py
"""

import numpy as np
from cases import save_cases
from cleanlab.count import compute_confident_joint, get_confident_thresholds
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_normalized_margin_for_each_label

SEED = 20240627


def drawn(random, rows, classes, sharpness, wrong):
    """Labels of which a share is wrong, and the probabilities of a classifier that knows something of the truth."""
    truth = random.integers(0, classes, rows)
    labels = np.where(random.random(rows) < wrong, random.integers(0, classes, rows), truth)
    scores = random.normal(size=(rows, classes)) + sharpness * np.eye(classes)[truth]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    # As the reader gets them: five decimals, in float32.
    return labels, np.round(probabilities, 5).astype(np.float32)


def expected(name, labels, probabilities):
    probabilities64 = probabilities.astype(np.float64)
    return dict(
        name=name,
        labels=[int(label) for label in labels],
        n_classes=probabilities.shape[1],
        probabilities=[round(float(p), 5) for p in probabilities.reshape(-1)],
        thresholds=[float(threshold) for threshold in get_confident_thresholds(labels, probabilities64)],
        joint=compute_confident_joint(labels, probabilities64).tolist(),
        errors=[int(row) for row in find_label_issues(labels, probabilities64, return_indices_ranked_by="self_confidence", n_jobs=1)],
        margins=[float(margin) for margin in get_normalized_margin_for_each_label(labels, probabilities64)],
    )


def main():
    random = np.random.default_rng(SEED)
    missing = drawn(random, 90, 4, 2.0, 0.2)
    missing[0][missing[0] == 2] = 1
    save_cases(__file__, SEED, ["cleanlab", "numpy", "scikit-learn"], [
        expected("two classes", *drawn(random, 150, 2, 2.5, 0.15)),
        expected("five classes", *drawn(random, 200, 5, 3.0, 0.1)),
        expected("a classifier that knows nothing", *drawn(random, 80, 3, 0.0, 0.3)),
        expected("a sure classifier, mostly wrong labels", *drawn(random, 80, 3, 4.0, 0.7)),
        expected("a class without rows", *missing),
        expected("twelve classes of few rows", *drawn(random, 60, 12, 2.0, 0.3)),
    ])


if __name__ == "__main__":
    main()
