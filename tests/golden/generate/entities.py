"""Entity precision, recall and F1 by seqeval, strict IOB2 and its default reading -> ../fixtures/entities.json

    python entities.py
"""

import random
import warnings

from cases import save_cases
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

SEED = 20240614
TYPES = ["LOC", "MISC", "ORG", "PER", "B-1"]


def scores(report):
    return dict(precision=float(report["precision"]), recall=float(report["recall"]), f1=float(report["f1-score"]), support=int(report["support"]))


def reading(golds, predictions, **settings):
    report = classification_report(golds, predictions, output_dict=True, zero_division=0, **settings)
    averages = {name: scores(report.pop(f"{name} avg")) for name in ("micro", "macro", "weighted")}
    return dict(types=[dict(name=name, **scores(report[name])) for name in sorted(report)], **averages)


def expected(name, golds, predictions):
    return dict(
        name=name,
        golds=[" ".join(tags) for tags in golds],
        predictions=[" ".join(tags) for tags in predictions],
        strict=reading(golds, predictions, mode="strict", scheme=IOB2),
        conlleval=reading(golds, predictions),
    )


def main():
    warnings.simplefilter("ignore")
    source = random.Random(SEED)

    def well_formed(n_words, types):
        tags = []
        while len(tags) < n_words:
            kind = source.choice(types)
            tags += source.choice([["O"], ["O"], ["B-" + kind] + ["I-" + kind] * source.randint(0, 3)])
        return tags[:n_words]

    def noisy(tags, rate, types):
        def other():
            return source.choice(["O"] + [prefix + kind for prefix in ("B-", "I-") for kind in types])

        return [other() if source.random() < rate else tag for tag in tags]

    def corpus(n, rate, gold_types=TYPES, predicted_types=TYPES):
        golds = [well_formed(source.randint(1, 12), gold_types) for _ in range(n)]
        return golds, [noisy(tags, rate, predicted_types) for tags in golds]

    malformed = [[source.choice(["O", "B-X", "I-X", "I-Y", "B-Y"]) for _ in range(10)] for _ in range(24)]
    cases = [
        ("a good tagger", *corpus(24, 0.1)),
        ("a poor tagger", *corpus(24, 0.5)),
        ("types that only one side has", *corpus(12, 0.3, ["LOC", "PER"], ["LOC", "ORG"])),
        ("malformed on both sides", malformed[:12], malformed[12:]),
        ("the type changes inside", [["B-X", "I-Y", "I-Y", "O"]], [["B-X", "I-X", "I-Y", "I-Y"]]),
        ("nothing predicted", [["B-X", "I-X"], ["O"]], [["O", "O"], ["O"]]),
    ]
    save_cases(__file__, SEED, ["seqeval", "scikit-learn"], [expected(*case) for case in cases])


if __name__ == "__main__":
    main()
