"""Segment counts and corpus BLEU by sacreBLEU with its defaults -> ../fixtures/bleu.json

    python bleu.py
"""

import random

from cases import save_cases
from sacrebleu.metrics import BLEU

SEED = 20240613
WORDS = (
    "the a kiln burns clay and glass at 1,200 degrees or 3.5 times more than 10-year-old ovens did isn't it &amp; &lt;b&gt; &quot;so&quot; "
    "well-known U.S. café naïve 北京 „quoted“ (see p.7) 50% $9.99 e-mail: x@y.z etc... {x} a/b 5- -5 .5 5. ,x O'Neil _id_ ~10 <skipped> "
    "who? yes! no; [1] 2024-06-13 and,then 1.000.000,5"
).split()


def noisy(words, rate, source):
    changed = [source.choice(WORDS) if source.random() < rate else word for word in words]
    return [word for word in changed if source.random() > rate / 3]


def expected(name, hypotheses, references, source):
    # A stream of sacreBLEU has one reference for each hypothesis, or None.
    most = max(map(len, references))
    metric = BLEU()

    def streams(segments):
        return [[references[i][stream] if stream < len(references[i]) else None for i in segments] for stream in range(most)]

    def score(segments):
        return metric.corpus_score([hypotheses[i] for i in segments], streams(segments)).score

    everything = list(range(len(hypotheses)))
    counts = metric._extract_corpus_statistics(hypotheses, streams(everything))
    resample = [source.choice(everything) for _ in everything]
    bleu = score(everything)
    return dict(
        name=name, hypotheses=hypotheses, references=references, counts=counts, bleu=bleu, resample=resample, resampled_bleu=score(resample),
        signature=str(metric.get_signature()),
    )


def main():
    source = random.Random(SEED)

    def corpus(n, rate, n_references, shortest=3):
        sentences = [[source.choice(WORDS) for _ in range(source.randint(shortest, 14))] for _ in range(n)]
        hypotheses = [" ".join(noisy(words, rate, source)) for words in sentences]
        return hypotheses, [[" ".join(noisy(words, rate / 2, source)) for _ in range(n_references())] for words in sentences]

    cases = [
        ("one reference", *corpus(14, 0.3, lambda: 1)),
        ("three references", *corpus(8, 0.5, lambda: 3)),
        ("one to three references", *corpus(8, 0.5, lambda: source.randint(1, 3))),
        ("little in common", *corpus(4, 0.9, lambda: 1)),
        ("short and empty", ["a kiln", "", "The kiln", "burns"], [["a kiln"], ["a kiln burns"], ["the kiln"], ["burns clay and glass"]]),
        ("line breaks and odd spaces", ["a kil-\nn\nburns\u00a0clay at  10\t,000 ", "clay\u001fand glass. \n"],
         [["a kiln burns clay at 10,000"], ["clay and glass."]]),
        ("nothing in common", ["x y z w v"], [["a b c d e"]]),
        ("no order beyond the first", ["a x b y c"], [["a p b q c"]]),
    ]
    save_cases(__file__, SEED, ["sacrebleu"], [expected(name, h, r, source) for name, h, r in cases])


if __name__ == "__main__":
    main()
