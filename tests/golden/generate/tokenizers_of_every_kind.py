"""tokenizer.json of every kind, as transformers' fast tokenizers read it: ids, types, texts -> ../fixtures/tokenizers_of_every_kind/

    python tokenizers_of_every_kind.py
"""

import json

import tokenizers
import transformers
from common import check, fresh_folder
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The sea is cold today, and the sun isn't warm.",
    "They are here and we have seen 1234 of them; haven't you?",
    "The hill is far and the sea is near: a fire burns in the room.",
    "A room with a fire is warm, a hill with snow is cold.",
    "today tomorrow yesterday, cold colder coldest, warm warmer warmest",
] * 3
TEXTS = [
    "The sea is cold today, and the sun isn't warm.",
    "  two  spaces   before words,\ttabs\n\nand line ends \n",
    "naïve café, Übergröße, Ελληνικά, 日本語, \U0001f600 and \u00a0 a hard space",
    "ﬁne ﬂour ① half-width ｶﾀｶﾅ",
    "unwarmest <tool>cold</tool> [MASK] <mask> room",
    "",
    " ",
    "x",
]
PAIR = ["The sea is cold.", "Is the sun warm?"]


def byte_level_bpe():
    core = tokenizers.Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    # A pattern of its own, with a look-ahead, as Llama 3 and Qwen have it.
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    core.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing("<|begin|> $A", "<|begin|> $A <|begin|>:1 $B:1", [("<|begin|>", 0)])]
    )
    return core


def bpe():
    """As Llama 2's: spaces as ▁ by the normalizer, unknown characters as bytes."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False))
    # As learnt, but the bytes are ordinary tokens.
    state = json.loads(core.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    core = tokenizers.Tokenizer.from_str(json.dumps(state))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    core.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)])
    return core


def wordpiece():
    core = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False))
    core.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    return core


def unigram():
    """As XLM-R's and T5's, with NFKC in the place of a precompiled map."""
    core = tokenizers.Tokenizer(models.Unigram())
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    core.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=special, show_progress=False))
    core.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)])
    return core


def main():
    folder = fresh_folder("tokenizers_of_every_kind")
    folder.mkdir()
    versions = dict(transformers=transformers.__version__, tokenizers=tokenizers.__version__)
    kinds = {}
    for build in [byte_level_bpe, bpe, wordpiece, unigram]:
        core = build()
        core.add_tokens([AddedToken("<tool>", lstrip=True), AddedToken("</tool>", special=True, normalized=False)])
        # Ours pads and cuts nothing, whatever the file says.
        core.enable_padding(length=16)
        core.enable_truncation(8)
        core.save(str(folder / f"{build.__name__}.json"), pretty=False)
        core.no_padding()
        core.no_truncation()
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core)
        cases = []
        for text in TEXTS:
            ids = fast(text)["input_ids"]
            cases.append(dict(text=text, ids=ids, decoded=fast.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)))
        pair = fast(*PAIR, return_token_type_ids=True)
        kinds[build.__name__] = dict(texts=cases, pair=dict(texts=PAIR, ids=pair["input_ids"], types=pair["token_type_ids"]), n_tokens=len(fast))
    (folder / "golden.json").write_text(json.dumps(dict(versions=versions, kinds=kinds), sort_keys=True, separators=(",", ":")) + "\n")
    check(folder)


if __name__ == "__main__":
    main()
