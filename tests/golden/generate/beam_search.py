"""transformers' beam search on the model of ../fixtures/adapter_kinds/llama: the best continuations and their scores -> ../fixtures/beam_search.json

    python beam_search.py
"""

import torch
import transformers
from cases import save_cases
from common import FIXTURES, ragged

SEED = 61
LENGTHS = [7, 3, 12]
SETTINGS = [
    dict(num_beams=3),
    dict(num_beams=4, length_penalty=0.0),
    dict(num_beams=4, length_penalty=2.0),
    dict(num_beams=3, length_penalty=-1.0),
    dict(num_beams=3, repetition_penalty=1.5),
]
END_IDS = [59, 28, 15]


def cut(tokens, end_ids):
    """Up to the first end token: transformers fills up what is shorter than the longest."""
    ends = [place for place, token in enumerate(tokens) if token in end_ids]
    return tokens[: ends[0] + 1] if ends else tokens


def main():
    model = transformers.AutoModelForCausalLM.from_pretrained(FIXTURES / "adapter_kinds" / "llama").eval()
    ids, mask = ragged(LENGTHS, SEED)
    cases = []
    for settings in SETTINGS:
        for end_ids in [END_IDS, END_IDS[:1]]:
            for row, length in zip(ids, LENGTHS):
                prompt = row[:length]
                with torch.no_grad():
                    output = model.generate(
                        prompt[None], do_sample=False, max_new_tokens=10, num_return_sequences=3, eos_token_id=end_ids, pad_token_id=0,
                        return_dict_in_generate=True, output_scores=True, **settings,
                    )
                new = [cut(sequence[length:].tolist(), end_ids) for sequence in output.sequences]
                cases.append(dict(
                    settings=settings, end_ids=end_ids, prompt=prompt.tolist(), continuations=new,
                    scores=output.sequences_scores.tolist(),
                ))
    save_cases(__file__, SEED, ["torch", "transformers"], cases)


if __name__ == "__main__":
    main()
