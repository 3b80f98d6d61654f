"""Exact match and F1 by the SQuAD 2.0 script as transformers 4 has it, ROUGE-L by rouge_score -> ../fixtures/answers.json

    python answers.py

transformers 5 no longer has the script.
"""

import random

from cases import save_cases
from rouge_score.rouge_scorer import RougeScorer
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

SEED = 20240616
WORDS = "the a an The river Rhine, rhine (a) the–river A. don't 1815 18.15 café É an-other x_y Theatre über".split()


def expected(prediction, references, rouge):
    return dict(
        prediction=prediction,
        references=references,
        exact_match=float(max(compute_exact(reference, prediction) for reference in references)),
        token_f1=float(max(compute_f1(reference, prediction) for reference in references)),
        rouge_l=float(rouge.score_multi(references, prediction)["rougeL"].fmeasure),
    )


def main():
    source = random.Random(SEED)
    rouge = RougeScorer(["rougeL"])

    def text(longest):
        return " ".join(source.choice(WORDS) for _ in range(source.randint(0, longest)))

    cases = [(text(6), [text(6) for _ in range(source.randint(1, 3))]) for _ in range(60)]
    cases += [(text(25), [text(25)]) for _ in range(12)]
    cases += [("the Rhine.", ["  RHINE "]), ("a–a", ["the–the"]), ("thea", ["a"]), ("", [""]), ("the", [""]), ("", ["x"])]
    save_cases(__file__, SEED, ["transformers", "rouge_score"], [expected(*case, rouge) for case in cases])


if __name__ == "__main__":
    main()
