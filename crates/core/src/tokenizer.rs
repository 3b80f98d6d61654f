//! Text to token ids and back, by a folder's `tokenizer.json`, or by GPT-2's `vocab.json` and `merges.txt`.

mod train;

use crate::config::ModelConfig;
use crate::{Error, Result, files, hub};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, EncodeInput};

pub use train::Kind;

/// A tokenizer, as its folder defines it, but for padding and truncation: Kiln pads nothing and cuts nothing silently.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Where it came from; `None` for one trained here.
    folder: Option<PathBuf>,
    /// What `tokenizer_config.json` says of one trained here.
    settings: Value,
    /// Whether it has tokens that its folder's files lack.
    is_extended: bool,
    /// Tokens the model has embeddings for, where the model is known.
    n_embeddings: Option<usize>,
    /// Token types the model has embeddings for, where the model is known and has any.
    n_token_types: Option<usize>,
}

/// A text or a pair of texts as the tokenizer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens, with the special ones around each text.
    pub ids: Vec<u32>,
    /// The type of each token: 0 in the first text, 1 in the second, where the tokenizer tells them apart.
    pub token_types: Vec<u32>,
    /// Where the tokens of each text are; the second one's are at the end and none if there is no second text.
    pub texts: [Range<usize>; 2],
}

/// A text that has its special tokens written in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The bytes of the text that each token stands for.
    pub bytes: Vec<Range<usize>>,
}

/// Words cut into tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedWords {
    /// The tokens, with the special ones around them.
    pub ids: Vec<u32>,
    /// Where the first token of each word is; `None` for a word of which the tokenizer leaves nothing.
    pub firsts: Vec<Option<usize>>,
}

/// A text, and which tokens make a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The word each token belongs to, a number that no neighbouring word has; `None` for special tokens, whether the
    /// tokenizer put them there or the text holds them.
    pub words: Vec<Option<u32>>,
}

const FILE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// GPT-2's only special token.
const GPT2_END: &str = "<|endoftext|>";
/// Files that travel with `tokenizer.json` where they exist; what ends a generation is in terms of tokens too.
const COMPANIONS: &[&str] =
    &[CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.txt", VOCAB, MERGES, "chat_template.jinja", "generation_config.json"];

/// How tokenizers call the token that stands for a hidden one.
const MASK_TOKENS: [&str; 2] = ["[MASK]", "<mask>"];

impl Tokenizer {
    /// Reads `tokenizer.json` of a model folder, or of a model by its name on the hub; without it `vocab.json` and `merges.txt`, as GPT-2's.
    ///
    /// # Errors
    /// If the files are missing or damaged.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let folder = &hub::folder(folder)?;
        let path = folder.join(FILE);
        let mut inner = match path.exists() {
            true => guarded(|| tokenizers::Tokenizer::from_file(&path))
                .map_err(|error| Error::checkpoint(&path, format!("not a tokenizer: {error}")))?,
            false if folder.join(VOCAB).exists() => gpt2(folder)?,
            false => {
                let message = "no such file; Kiln reads the tokenizer from tokenizer.json, or GPT-2's from vocab.json and merges.txt";
                return Err(Error::checkpoint(&path, message));
            }
        };
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::checkpoint(&path, error.to_string()))?;
        let folder = Some(folder.to_owned());
        Ok(Self { inner, folder, settings: Value::Null, is_extended: false, n_embeddings: None, n_token_types: None })
    }

    /// Reads the tokenizer of the folder of the model with `config`. Texts with a token beyond the model's vocabulary are then refused;
    /// such tokens alone are not, because published tokenizers have them for padding.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn for_model(folder: &Path, config: &ModelConfig) -> Result<Self> {
        let n_token_types = (config.n_token_types > 0).then_some(config.n_token_types);
        Ok(Self { n_embeddings: Some(config.vocab_size), n_token_types, ..Self::from_folder(folder)? })
    }

    /// Adds tokens that the text is cut at before anything else, for those that are not in the vocabulary yet: their ids come after all
    /// others. Special ones stand for no text and are left out of decoded text. The ids of all `tokens`, in order.
    ///
    /// A model needs embeddings for them: [`crate::vocabulary::grow`].
    ///
    /// # Errors
    /// [`Error::Config`] for a token that is empty or named twice.
    pub fn add(&mut self, tokens: &[String], special: bool) -> Result<Vec<u32>> {
        let fail = |message: String| Error::config("tokens", message);
        if let Some(token) = tokens.iter().enumerate().find_map(|(index, token)| tokens[..index].contains(token).then_some(token)) {
            return Err(fail(format!("{token:?} is named twice")));
        }
        if tokens.iter().any(|token| token.trim().is_empty()) {
            return Err(fail("an empty token: every token needs a text".into()));
        }
        let added: Vec<AddedToken> = tokens.iter().map(|token| AddedToken::from(token.clone(), special).normalized(false)).collect();
        let outcome = guarded(|| if special { self.inner.add_special_tokens(added) } else { self.inner.add_tokens(added) });
        outcome.map_err(|error| self.error(&error))?;
        self.is_extended = true;
        let id = |token: &String| self.id(token).ok_or_else(|| fail(format!("{token:?} could not be added")));
        tokens.iter().map(id).collect()
    }

    /// One more than the largest id.
    pub fn n_ids(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The ids of `text`, with the special tokens the tokenizer puts around a text.
    ///
    /// # Errors
    /// If the tokenizer or the model cannot represent it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(&self.guarded(|inner| inner.encode_fast(text, true))?)
    }

    /// The ids of each text, on all cores.
    ///
    /// # Errors
    /// If the tokenizer or the model cannot represent one of them.
    pub fn encode_all(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        let encodings = self.guarded(|inner| inner.encode_batch_fast(texts, true))?;
        encodings.iter().map(|encoding| self.ids(encoding)).collect()
    }

    /// The tokens of each text and the words they make, as the tokenizer splits words before it cuts them into tokens.
    ///
    /// # Errors
    /// If the tokenizer or the model cannot represent one of them.
    pub fn encode_words(&self, texts: Vec<String>) -> Result<Vec<Text>> {
        let special = self.special_ids();
        let encodings = self.guarded(|inner| inner.encode_batch(texts, true))?;
        let text = |encoding: &tokenizers::Encoding| {
            let ids = self.ids(encoding)?;
            let words = ids.iter().zip(encoding.get_word_ids()).map(|(id, &word)| word.filter(|_| !special.contains(id))).collect();
            Ok(Text { ids, words })
        };
        encodings.iter().map(text).collect()
    }

    /// Each text, or pair of texts, on all cores.
    ///
    /// # Errors
    /// If the tokenizer or the model cannot represent one of them.
    pub fn encode_pairs(&self, texts: Vec<(String, Option<String>)>) -> Result<Vec<Encoded>> {
        let inputs: Vec<EncodeInput<'_>> = texts
            .into_iter()
            .map(|pair| match pair {
                (first, None) => first.into(),
                (first, Some(second)) => (first, second).into(),
            })
            .collect();
        let encodings = self.guarded(|inner| inner.encode_batch_fast(inputs, true))?;
        encodings.iter().map(|encoding| self.encoded(encoding)).collect()
    }

    fn encoded(&self, encoding: &tokenizers::Encoding) -> Result<Encoded> {
        let ids = self.ids(encoding)?;
        let token_types = encoding.get_type_ids().to_vec();
        if let (Some(&most), Some(n_types)) = (token_types.iter().max(), self.n_token_types)
            && most as usize >= n_types
        {
            let message =
                format!("gives tokens of a second text the type {most}, the model has {n_types} types: is it another model's tokenizer?");
            return Err(Error::checkpoint(&self.path(), message));
        }
        let sequences = encoding.get_sequence_ids();
        let texts = [0, 1].map(|text| {
            let start = sequences.iter().position(|&sequence| sequence == Some(text)).unwrap_or(ids.len());
            start..sequences.iter().rposition(|&sequence| sequence == Some(text)).map_or(start, |last| last + 1)
        });
        Ok(Encoded { ids, token_types, texts })
    }

    /// Sentences that are words already, on all cores: no token reaches over the end of a word.
    ///
    /// # Errors
    /// If the tokenizer or the model cannot represent one of them.
    pub fn encode_split(&self, sentences: Vec<Vec<String>>) -> Result<Vec<EncodedWords>> {
        let lengths: Vec<usize> = sentences.iter().map(Vec::len).collect();
        // Not the fast way, which forgets which word a token is of.
        let encodings = self.guarded(|inner| inner.encode_batch(sentences, true))?;
        let words = |(encoding, length): (&tokenizers::Encoding, usize)| {
            let mut firsts = vec![None; length];
            for (token, word) in encoding.get_word_ids().iter().enumerate() {
                let Some(word) = word else { continue };
                firsts[*word as usize].get_or_insert(token);
            }
            Ok(EncodedWords { ids: self.ids(encoding)?, firsts })
        };
        encodings.iter().zip(lengths).map(words).collect()
    }

    /// Texts that have their special tokens written in them, on all cores.
    ///
    /// # Errors
    /// If the tokenizer or the model cannot represent one of them.
    pub fn encode_written(&self, texts: Vec<String>) -> Result<Vec<Written>> {
        let encodings = self.guarded(|inner| inner.encode_batch(texts, false))?;
        let bytes = |encoding: &tokenizers::Encoding| encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        encodings.iter().map(|encoding| Ok(Written { ids: self.ids(encoding)?, bytes: bytes(encoding) })).collect()
    }

    /// The ids of the special tokens, which stand for no text.
    pub fn special_ids(&self) -> BTreeSet<u32> {
        let added = self.inner.get_added_tokens_decoder();
        added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect()
    }

    /// The id of the token that stands for a hidden one in masked language modelling.
    ///
    /// # Errors
    /// If there is none: the tokenizer is then not an encoder's.
    pub fn mask_id(&self) -> Result<u32> {
        let found = MASK_TOKENS.iter().find_map(|token| self.id(token));
        found.ok_or_else(|| {
            let message = format!("no mask token ({}): not the tokenizer of a model that predicts hidden tokens", MASK_TOKENS.join(" or "));
            Error::checkpoint(&self.path(), message)
        })
    }

    /// How many special tokens the tokenizer puts after a text.
    ///
    /// # Errors
    /// If the tokenizer or the model cannot represent the letter a.
    pub fn n_end_tokens(&self) -> Result<usize> {
        let (nothing, letter) = (self.encode("")?, self.encode("a")?);
        Ok(nothing.iter().rev().zip(letter.iter().rev()).take_while(|(a, b)| a == b).count())
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// If an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.guarded(|inner| inner.decode(ids, true))
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token, if there is such a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with this id as the vocabulary spells it, if there is one.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Writes the tokenizer's files into `folder`: copies of those it came from, or those transformers needs.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let Some(from) = &self.folder else {
            self.write(folder)?;
            return files::write_json(&folder.join(CONFIG), &self.settings);
        };
        let is_copied = !self.is_extended && from.join(FILE).exists();
        if from != folder {
            for name in std::iter::once(&FILE).filter(|_| is_copied).chain(COMPANIONS) {
                let source = from.join(name);
                if source.exists() {
                    files::write_atomic(&folder.join(name), |path| std::fs::copy(&source, path).map(|_| ()))?;
                }
            }
        }
        if is_copied { Ok(()) } else { self.write(folder) }
    }

    /// All that it is, as `tokenizer.json` says it.
    ///
    /// # Errors
    /// If the tokenizers crate cannot write it.
    pub fn to_json(&self) -> Result<String> {
        self.guarded(|inner| inner.to_string(true))
    }

    /// Writes `tokenizer.json`.
    fn write(&self, folder: &Path) -> Result<()> {
        let text = self.to_json()?;
        files::write_atomic(&folder.join(FILE), |path| std::fs::write(path, &text))
    }

    fn ids(&self, encoding: &tokenizers::Encoding) -> Result<Vec<u32>> {
        let ids = encoding.get_ids();
        let n_embeddings = self.n_embeddings.unwrap_or(usize::MAX);
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= n_embeddings) {
            let token = self.inner.id_to_token(id).unwrap_or_default();
            let message = format!("token {token:?} has the id {id}, the model has {n_embeddings} tokens: is it another model's tokenizer?");
            return Err(Error::checkpoint(&self.path(), message));
        }
        Ok(ids.to_vec())
    }

    /// The file to name in an error.
    fn path(&self) -> PathBuf {
        let folder = self.folder.clone().unwrap_or_default();
        [FILE, VOCAB].map(|file| folder.join(file)).into_iter().find(|path| path.exists()).unwrap_or_else(|| folder.join(FILE))
    }

    fn guarded<T>(&self, work: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<T>) -> Result<T> {
        guarded(|| work(&self.inner)).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &tokenizers::Error) -> Error {
        Error::checkpoint(&self.path(), error.to_string())
    }
}

/// The byte-level BPE of `vocab.json` and `merges.txt` (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, Section
/// 2.2), as transformers' `GPT2Tokenizer`.
fn gpt2(folder: &Path) -> Result<tokenizers::Tokenizer> {
    let [vocab, merges, config] = [VOCAB, MERGES, CONFIG].map(|file| folder.join(file));
    if config.exists() {
        let settings: serde_json::Value = files::read_json(&config)?;
        let class = settings["tokenizer_class"].as_str().unwrap_or("GPT2Tokenizer");
        if !class.starts_with("GPT2Tokenizer") || settings["add_prefix_space"] == true || settings["add_bos_token"] == true {
            let message = "vocab.json and merges.txt are read as plain GPT2Tokenizer's, this one is another; save it as tokenizer.json";
            return Err(Error::checkpoint(&config, message));
        }
    }
    let fail = |error: tokenizers::Error| Error::checkpoint(&merges, format!("not a tokenizer with vocab.json: {error}"));
    let bpe = guarded(|| BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy()).build()).map_err(fail)?;
    let mut tokenizer = tokenizers::Tokenizer::new(bpe);
    if let Some(byte) = ByteLevel::alphabet().into_iter().filter(|byte| tokenizer.token_to_id(&byte.to_string()).is_none()).min() {
        return Err(Error::checkpoint(&vocab, format!("no token for the byte written {byte:?}: not a byte-level vocabulary")));
    }
    let bytes = ByteLevel::default().add_prefix_space(false);
    tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    if tokenizer.token_to_id(GPT2_END).is_some() {
        tokenizer.add_special_tokens([AddedToken::from(GPT2_END, true)]).map_err(fail)?;
    }
    Ok(tokenizer)
}

/// What `work` returns; the tokenizers crate panics on some damaged files.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    crate::guard::guarded("tokenizers", work).unwrap_or_else(|message| Err(message.into()))
}
