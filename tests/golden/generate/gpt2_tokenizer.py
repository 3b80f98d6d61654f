"""GPT2Tokenizer from vocab.json and merges.txt: ids and texts -> ../fixtures/gpt2_tokenizer/

    KILN_SHARED=DIR python gpt2_tokenizer.py

With KILN_SHARED also digests of the ids that GPT-2's own vocabulary gives to the lines of real texts; the texts themselves stay there.
"""

import os
import pathlib

import tokenizers
import transformers
from common import check, fresh_folder, write_sorted_json

TEXTS = [
    "The sea is cold today, and the sun isn't warm.",
    "They're here; we've seen 1234 of them -- haven't you?",
    "  two  spaces   before words,\ttabs\n\nand line ends \n",
    "naïve café, Übergröße, Ελληνικά, 日本語, \U0001f600 and \u00a0 a hard space",
    "One ends.<|endoftext|>Another <|endoftext|> begins",
    "",
    " ",
    "snake_case CamelCase x=3.14e-5; #hash @name 'quoted'd' 're",
]
CORPUS = ["the sea is cold today and the sun is warm", "they are here and we have seen them", "haven't you seen the other ones?"]
REAL = [("wikitext2/test.txt", 300), ("dolly_small/dolly.jsonl", 151), ("opennmt_ende/tgt-train.txt", 200)]
MASK64 = (1 << 64) - 1


def digest(rows):
    """FNV-1a over the ids of all rows, each followed by 2³² - 1."""
    state = 0xCBF29CE484222325
    for row in rows:
        for id in [*row, 0xFFFFFFFF]:
            for byte in id.to_bytes(4, "little"):
                state = ((state ^ byte) * 0x100000001B3) & MASK64
    return f"{state:016x}"


def main():
    folder = fresh_folder("gpt2_tokenizer")
    folder.mkdir()
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=330, min_frequency=1, special_tokens=["<|endoftext|>"], show_progress=False)
    trained.save_model(str(folder))
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder)

    def case(text):
        ids = tokenizer(text)["input_ids"]
        return dict(text=text, ids=ids, decoded=tokenizer.decode(ids, skip_special_tokens=True))

    versions = dict(transformers=transformers.__version__, tokenizers=tokenizers.__version__)
    golden = dict(versions=versions, texts=[case(text) for text in TEXTS])
    if shared := os.environ.get("KILN_SHARED"):
        data = pathlib.Path(shared) / "data"
        gpt2 = transformers.GPT2Tokenizer.from_pretrained(data / "gpt2_bpe")
        golden["real"] = []
        for name, n_lines in REAL:
            lines = [line for line in (data / name).read_text(encoding="utf-8").split("\n") if line.strip()][:n_lines]
            rows = gpt2(lines)["input_ids"]
            golden["real"].append(dict(file=name, lines=len(lines), n_ids=sum(map(len, rows)), digest=digest(rows)))
    write_sorted_json(folder / "golden.json", golden)
    check(folder)


if __name__ == "__main__":
    main()
