//! New tokenizers, learnt from texts.

use super::Tokenizer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::models::unigram::{Unigram, UnigramTrainerBuilder};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainerBuilder};
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::normalizers::unicode::NFKC;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// How a tokenizer cuts text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Byte pair encoding of bytes: no text is unknown to it. As GPT-2's (Radford et al., 2019, Section 2.2).
    #[default]
    ByteLevelBpe,
    /// Byte pair encoding of characters, spaces written as ▁ (arXiv:1508.07909).
    Bpe,
    /// Longest match from the left in lower-case words, as BERT's (arXiv:1810.04805, Section 3).
    Wordpiece,
    /// The likeliest segmentation by a unigram language model, spaces written as ▁ (arXiv:1804.10959).
    Unigram,
}

/// Special tokens in the order of their ids, each with its key in `tokenizer_config.json`.
const DECODER_SPECIAL: [(&str, &str); 4] = [("pad_token", "<pad>"), ("bos_token", "<s>"), ("eos_token", "</s>"), ("mask_token", "<mask>")];
const ENCODER_SPECIAL: [(&str, &str); 5] =
    [("pad_token", "[PAD]"), ("unk_token", "[UNK]"), ("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("mask_token", "[MASK]")];
const UNKNOWN: (&str, &str) = ("unk_token", "<unk>");

impl Kind {
    fn special(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::ByteLevelBpe => DECODER_SPECIAL.to_vec(),
            Self::Bpe | Self::Unigram => DECODER_SPECIAL.into_iter().chain([UNKNOWN]).collect(),
            Self::Wordpiece => ENCODER_SPECIAL.to_vec(),
        }
    }
}

impl Tokenizer {
    /// Trains a byte-level BPE tokenizer that starts every text with `<s>`; ids 0 to 3 are `<pad>`, `<s>`, `</s>` and `<mask>`.
    ///
    /// # Errors
    /// [`Error::Config`] if `vocab_size` cannot hold the bytes and the special tokens.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab_size: usize) -> Result<Self> {
        Self::train_as(Kind::ByteLevelBpe, texts, vocab_size)
    }

    /// Trains a tokenizer of up to `vocab_size` tokens, special ones and single characters included.
    ///
    /// # Errors
    /// [`Error::Config`] if `vocab_size` cannot hold these, or nothing can be learnt from the texts.
    pub fn train_as<'a>(kind: Kind, texts: impl Iterator<Item = &'a str> + Send, vocab_size: usize) -> Result<Self> {
        let fail = |error: tokenizers::Error| Error::config("tokenizer", error.to_string());
        let special = kind.special();
        if vocab_size <= special.len() {
            return Err(Error::config("vocab_size", format!("found {vocab_size}, the special tokens alone are {}", special.len())));
        }
        let added: Vec<AddedToken> = special.iter().map(|(_, text)| AddedToken::from(*text, true)).collect();
        let bytes = ByteLevel::default().add_prefix_space(false);
        let spaces = Metaspace::new('▁', PrependScheme::First, true);
        type Parts = (ModelWrapper, Option<NormalizerWrapper>, PreTokenizerWrapper, DecoderWrapper, TrainerWrapper);
        let (model, normalizer, pre_tokenizer, decoder, mut trainer): Parts = match kind {
            Kind::ByteLevelBpe => {
                let alphabet = ByteLevel::alphabet().into_iter().collect();
                let trainer = BpeTrainerBuilder::new().vocab_size(vocab_size).initial_alphabet(alphabet);
                let trainer = trainer.show_progress(false).min_frequency(2).special_tokens(added).build();
                (BPE::default().into(), None, bytes.into(), bytes.into(), trainer.into())
            }
            Kind::Bpe => {
                let model = BPE::builder().unk_token(UNKNOWN.1.into()).build().map_err(fail)?;
                let trainer = BpeTrainerBuilder::new().vocab_size(vocab_size);
                let trainer = trainer.show_progress(false).min_frequency(2).special_tokens(added).build();
                (model.into(), Some(NFKC.into()), spaces.clone().into(), spaces.into(), trainer.into())
            }
            Kind::Wordpiece => {
                let model = WordPiece::builder().unk_token(ENCODER_SPECIAL[1].1.into()).build().map_err(fail)?;
                let trainer = WordPieceTrainerBuilder::new().vocab_size(vocab_size);
                let trainer = trainer.show_progress(false).min_frequency(2).special_tokens(added).build();
                let decoder = WordPieceDecoder::new("##".into(), true);
                (model.into(), Some(BertNormalizer::default().into()), BertPreTokenizer.into(), decoder.into(), trainer.into())
            }
            Kind::Unigram => {
                let vocab_size = u32::try_from(vocab_size).unwrap_or(u32::MAX);
                let trainer = UnigramTrainerBuilder::default()
                    .show_progress(false)
                    .vocab_size(vocab_size)
                    .unk_token(Some(UNKNOWN.1.into()))
                    .special_tokens(added)
                    .build()
                    .map_err(|error| Error::config("tokenizer", error.to_string()))?;
                (Unigram::default().into(), Some(NFKC.into()), spaces.clone().into(), spaces.into(), trainer.into())
            }
        };
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        tokenizer.with_normalizer(normalizer).map_err(fail)?.with_pre_tokenizer(Some(pre_tokenizer)).with_decoder(Some(decoder));
        // The trainer numbers special tokens first, from 0.
        let id = |name: &str| special.iter().position(|(_, text)| *text == name).expect("a special token") as u32;
        let around = |single: &str, pair: &str, names: [&str; 2]| -> Result<TemplateProcessing> {
            let message = |error: String| Error::config("tokenizer", error);
            let tokens: Vec<(String, u32)> = names.iter().map(|name| ((*name).to_owned(), id(name))).collect();
            let mut builder = TemplateProcessing::builder();
            builder.try_single(single).and_then(|builder| builder.try_pair(pair)).map_err(message)?;
            builder.special_tokens(tokens).build().map_err(|error| message(error.to_string()))
        };
        tokenizer.with_post_processor(Some(match kind {
            Kind::Wordpiece => around("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ["[CLS]", "[SEP]"])?,
            _ => around("<s> $A", "<s> $A </s> $B:1", ["<s>", "</s>"])?,
        }));
        super::guarded(|| tokenizer.train(&mut trainer, texts).map(|_| ())).map_err(fail)?;
        let inner: tokenizers::Tokenizer = tokenizer.to_string(false).and_then(|text| text.parse()).map_err(fail)?;
        let found = inner.get_vocab_size(true);
        if found > vocab_size {
            let message = format!("found {vocab_size}, the special tokens and single characters alone are {found}");
            return Err(Error::config("vocab_size", message));
        }
        let mut settings = Map::from_iter([
            ("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast")),
            ("clean_up_tokenization_spaces".to_owned(), json!(false)),
        ]);
        settings.extend(special.iter().map(|(key, text)| ((*key).to_owned(), json!(text))));
        let settings = Value::Object(settings);
        Ok(Self { inner, folder: None, settings, is_extended: false, n_embeddings: None, n_token_types: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = [
        "the sea is cold today and the sun is warm",
        "the sun is warm and the snow is cold today",
        "a fire burns in the room and the room is warm",
        "ice on the sea, snow on the hill",
        "the hill is far and the sea is near today",
    ];

    #[test]
    fn every_kind_learns_its_alphabet_and_what_is_frequent() {
        for (kind, vocab_size) in [(Kind::ByteLevelBpe, 300), (Kind::Bpe, 60), (Kind::Wordpiece, 80), (Kind::Unigram, 50)] {
            let tokenizer = Tokenizer::train_as(kind, TEXTS.into_iter(), vocab_size).unwrap();
            assert!(
                tokenizer.vocab_size() <= vocab_size && tokenizer.vocab_size() > vocab_size / 2,
                "{kind:?}: {}",
                tokenizer.vocab_size()
            );
            let ids = tokenizer.encode(TEXTS[0]).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), TEXTS[0], "{kind:?}");
            // Fewer tokens than letters: it has learnt words or parts of them.
            assert!(ids.len() < TEXTS[0].len(), "{kind:?}: {} tokens", ids.len());
            let unseen = tokenizer.encode("Ωmega").unwrap();
            let unknown = ["<unk>", "[UNK]"].iter().find_map(|token| tokenizer.id(token));
            assert_eq!(unseen.iter().any(|id| Some(*id) == unknown), kind != Kind::ByteLevelBpe, "{kind:?}");
            for (index, (_, token)) in kind.special().iter().enumerate() {
                assert_eq!(tokenizer.id(token), Some(index as u32), "{kind:?}");
            }
            // Saved and read back it is the same, with the tokens' names.
            let folder = tempfile::tempdir().unwrap();
            tokenizer.save(folder.path()).unwrap();
            assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().encode(TEXTS[1]).unwrap(), tokenizer.encode(TEXTS[1]).unwrap());
            assert!(Tokenizer::train_as(kind, TEXTS.into_iter(), 3).is_err(), "{kind:?}");
            assert!(Tokenizer::train_as(kind, TEXTS.into_iter(), 12).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn added_tokens_come_last_and_travel() {
        let folder = tempfile::tempdir().unwrap();
        Tokenizer::train(TEXTS.into_iter(), 300).unwrap().save(folder.path()).unwrap();
        let mut tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        let (before, n_ids) = (tokenizer.encode("the <tool>sea").unwrap(), tokenizer.n_ids());
        let names = ["<tool>", "</tool>", "<s>"].map(str::to_owned);
        assert_eq!(tokenizer.add(&names, true).unwrap(), [n_ids as u32, n_ids as u32 + 1, 1]);
        let ids = tokenizer.encode("the <tool>sea").unwrap();
        assert!(ids.contains(&(n_ids as u32)) && ids.len() < before.len());
        assert_eq!(tokenizer.decode(&ids).unwrap(), "the sea");
        let copy = tempfile::tempdir().unwrap();
        tokenizer.save(copy.path()).unwrap();
        assert_eq!(Tokenizer::from_folder(copy.path()).unwrap().encode("the <tool>sea").unwrap(), ids);
        for bad in [&["x", "x"][..], &[" "]] {
            assert!(tokenizer.add(&bad.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), false).is_err());
        }
    }
}
