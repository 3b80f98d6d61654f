"""Pairs, their truncation, and words cut into tokens, by transformers -> ../fixtures/text_inputs/

    python text_inputs.py
"""

import json

import tokenizers
import transformers
from common import check, fresh_folder
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["a", "the", "river", "froze", "over", "##night", "ice", "##land", "is", "cold", "##er", "##s", "##t", "un", "##known", ",", "."]
LETTERS = [f"{join}{letter}" for join in ("", "##") for letter in "abcdefghiklmnorstuvw"]
PAIRS = [
    ("The river froze overnight.", "Iceland is colder."),
    ("a", "The river froze over, overnight, the river is unknown."),
    ("The river froze over, overnight, the river is unknown.", "Cold."),
    ("River", "River"),
]
SENTENCES = [
    ["Iceland", "is", "coldest", "overnight", "."],
    # Nothing is left of a control character.
    ["the", "\u200d", "unknown", "rivers"],
    ["\u200d", "Mira-Hale", "€", "froze"],
]
TAGS = [["B-LOC", "O", "O", "B-TIME", "O"], ["O", "O", "B-LOC", "I-LOC"], ["O", "B-PER", "O", "O"]]


def main():
    folder = fresh_folder("text_inputs")
    folder.mkdir()
    vocab = {token: index for index, token in enumerate(dict.fromkeys(SPECIAL + PIECES + LETTERS))}
    core = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    core.add_special_tokens(SPECIAL)
    core.save(str(folder / "tokenizer.json"), pretty=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_max_length=512,
    )
    pairs = []
    for first, second in PAIRS:
        whole = len(tokenizer(first, second).input_ids)
        for max_tokens in [whole, whole - 1, 9, 6, 5]:
            encoded = tokenizer(first, second, truncation="longest_first", max_length=max_tokens, return_token_type_ids=True)
            pairs.append(dict(
                text=first, text_b=second, max_tokens=max_tokens, input_ids=encoded.input_ids, token_type_ids=encoded.token_type_ids,
            ))
    sentences = []
    for words, tags in zip(SENTENCES, TAGS):
        encoded = tokenizer(words, is_split_into_words=True)
        labels, before = [], None
        for word in encoded.word_ids():
            labels.append(None if word is None or word == before else tags[word])
            before = word
        sentences.append(dict(tokens=words, tags=tags, input_ids=encoded.input_ids, labels=labels))
    origin = dict(
        generator="tests/golden/generate/text_inputs.py", transformers=transformers.__version__, tokenizers=tokenizers.__version__, seed=None,
    )
    cases = dict(origin=origin, pairs=pairs, sentences=sentences)
    (folder / "cases.json").write_text(json.dumps(cases, sort_keys=True, separators=(",", ":")) + "\n")
    check(folder)


if __name__ == "__main__":
    main()
