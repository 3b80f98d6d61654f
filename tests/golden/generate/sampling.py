"""What transformers' processors make of logits: penalised, divided, and null where a token cannot be drawn -> ../fixtures/sampling.json

    python sampling.py
"""

import torch
from cases import save_cases
from transformers import (
    LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
)

SEED = 60
VOCAB = 40
SETTINGS = [
    dict(temperature=0.7),
    dict(top_k=5),
    dict(top_p=0.8),
    dict(top_p=0.3),
    dict(min_p=0.1),
    dict(repetition_penalty=1.3),
    dict(repetition_penalty=0.8, temperature=1.6),
    dict(temperature=0.5, top_k=12, top_p=0.9, min_p=0.05, repetition_penalty=1.2),
    dict(temperature=1.5, top_k=3, top_p=0.95),
    dict(temperature=1.5, top_p=0.95, min_p=0.02),
]


def main():
    random = torch.Generator().manual_seed(SEED)
    cases = []
    for settings in SETTINGS:
        processors = LogitsProcessorList()
        # In the order in which `generate` applies them.
        for key, make in [
            ("repetition_penalty", RepetitionPenaltyLogitsProcessor), ("temperature", TemperatureLogitsWarper),
            ("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper),
        ]:
            if key in settings:
                processors.append(make(settings[key]))
        logits = 3 * torch.randn(3, VOCAB, generator=random)
        ids = torch.randint(0, VOCAB, (3, 9), generator=random)
        scores = processors(ids, logits.clone())
        rows = [[None if value == float("-inf") else value for value in row] for row in scores.tolist()]
        cases.append(dict(settings=settings, logits=logits.tolist(), ids=ids.tolist(), processed=rows))
    save_cases(__file__, SEED, ["torch", "transformers"], cases)


if __name__ == "__main__":
    main()
