//! The model that a benchmark asks, and how its kind answers: a decoder or an encoder with its head by likelihood, any model by embeddings.

use super::likelihood::{Query, log_probabilities, log_probabilities_of_endings};
use super::matching::common;
use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::sentence_encoder::{SentenceEncoder, is_sentence_encoder};
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, hub};
use serde_json::Value;
use std::cell::OnceCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How a model says what it prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A decoder: each token from those before it.
    Causal,
    /// An encoder with its head: each token from all others.
    Masked,
    /// A model without a head over the vocabulary: by what it puts near what.
    Embedding,
}

impl Kind {
    /// What preferences are measured in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Causal => "log-likelihood",
            Self::Masked => "pseudo-log-likelihood",
            Self::Embedding => "cosine",
        }
    }
}

/// A model with its tokenizer.
pub struct Subject {
    folder: PathBuf,
    config: ModelConfig,
    tokenizer: Tokenizer,
    device: Device,
    language_model: Option<LanguageModel>,
    /// Read when it is asked for first.
    encoder: OnceCell<SentenceEncoder>,
    /// Special tokens that the tokenizer puts before and after a text.
    around: [usize; 2],
    /// What a text of a decoder starts with if the tokenizer puts nothing there.
    start: Option<u32>,
}

/// Texts as tokens, and where in each the tokens lie that are asked about.
type Spans = Vec<(Vec<u32>, Range<usize>)>;

impl Subject {
    /// Reads a model folder, or a model by its name on the hub.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let folder = hub::folder(folder)?;
        let config = ModelConfig::from_folder(&folder)?;
        let tokenizer = Tokenizer::for_model(&folder, &config)?;
        let class = config.class_name();
        let has_head = class.is_none_or(|class| class == config.family.language_model_class() || class.ends_with("ForPreTraining"));
        let language_model = match has_head && !is_sentence_encoder(&folder)? {
            true => Some(LanguageModel::load(&folder, device)?.0),
            false => None,
        };
        let n_end = tokenizer.n_end_tokens()?;
        let n_begin = tokenizer.encode("")?.len().saturating_sub(n_end);
        let first = config.raw.get("bos_token_id").and_then(Value::as_u64).map(|id| id as u32);
        let start = first.or_else(|| config.end_ids.first().copied()).filter(|_| config.causal && n_begin == 0);
        Ok(Self {
            folder,
            config,
            tokenizer,
            device: device.clone(),
            language_model,
            encoder: OnceCell::new(),
            around: [n_begin, n_end],
            start,
        })
    }

    /// How it says what it prefers.
    pub fn kind(&self) -> Kind {
        match (&self.language_model, self.config.causal) {
            (None, _) => Kind::Embedding,
            (Some(_), true) => Kind::Causal,
            (Some(_), false) => Kind::Masked,
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The ids that end a text.
    pub fn end_ids(&self) -> &[u32] {
        &self.config.end_ids
    }

    /// The model with its head over the vocabulary, for `benchmark`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it has none.
    pub fn language_model(&self, benchmark: &str) -> Result<&LanguageModel> {
        self.language_model.as_ref().ok_or_else(|| {
            let message =
                format!("has no head that predicts tokens, which {benchmark} asks; of such a model ask winobias, winogender or weat");
            Error::checkpoint(&self.folder, message)
        })
    }

    /// The vector of each text, pooled as the folder says, by default the mean of its tokens.
    ///
    /// # Errors
    /// If the model cannot be read, or a text cannot be tokenised.
    pub fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        let encoder = match self.encoder.get() {
            Some(encoder) => encoder,
            None => {
                let (encoder, _) = SentenceEncoder::load(&self.folder, &self.device)?;
                self.encoder.get_or_init(|| encoder)
            }
        };
        let sequences = encoder.tokens(&self.tokenizer, texts)?;
        Ok(encoder.embed(&sequences))
    }

    /// How likely each text of each pair is, in nats. Of a decoder the log-likelihood of the text. Of an encoder the pseudo-log-likelihood of the
    /// tokens that the two have in common, each hidden alone, so that how frequent the words are that differ has no weight.
    ///
    /// Source: Nangia et al., arXiv:2010.00133, Section 3, for encoders.
    ///
    /// # Errors
    /// As [`Self::language_model`], and if a text is too long or cannot be tokenised.
    pub fn pair_scores(&self, pairs: &[[&str; 2]], benchmark: &str) -> Result<Vec<[f64; 2]>> {
        let model = self.language_model(benchmark)?;
        let texts = pairs.iter().flatten().map(|text| (*text).to_owned()).collect();
        let sequences = self.sequences(texts)?;
        let sums = if self.config.causal {
            let queries: Vec<Query> = sequences.iter().map(|ids| Query::next_tokens(ids, 0..ids.len())).collect();
            log_probabilities(model, &queries).iter().map(|values| values.iter().sum()).collect()
        } else {
            let places = sequences.chunks_exact(2).flat_map(|pair| self.common_places(&pair[0], &pair[1])).collect::<Vec<_>>();
            self.hidden_sums(model, &sequences, &places)?
        };
        Ok(sums.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
    }

    /// How likely it is that each text of each pair says what it does where the two differ, in nats. Of a decoder the log-likelihood of the text,
    /// of an encoder the pseudo-log-likelihood of the tokens that differ.
    ///
    /// # Errors
    /// As [`Self::pair_scores`].
    pub fn differing_scores(&self, pairs: &[[&str; 2]], benchmark: &str) -> Result<Vec<[f64; 2]>> {
        if self.config.causal {
            return self.pair_scores(pairs, benchmark);
        }
        let model = self.language_model(benchmark)?;
        let sequences = self.sequences(pairs.iter().flatten().map(|text| (*text).to_owned()).collect())?;
        let differing = |pair: &[Vec<u32>]| {
            let common = self.common_places(&pair[0], &pair[1]);
            [0, 1].map(|side| self.within(&pair[side]).filter(|place| !common[side].contains(place)).collect::<Vec<_>>())
        };
        let places = sequences.chunks_exact(2).flat_map(differing).collect::<Vec<_>>();
        let sums = self.hidden_sums(model, &sequences, &places)?;
        Ok(sums.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect())
    }

    /// The log-probability of each token of a part of each text, the bytes given, in nats: of a decoder given what comes before, of an encoder
    /// given all the rest, each token hidden alone.
    ///
    /// # Errors
    /// As [`Self::pair_scores`].
    pub fn span_scores(&self, texts: &[(String, Range<usize>)], benchmark: &str) -> Result<Vec<Vec<f64>>> {
        let model = self.language_model(benchmark)?;
        let spans = self.spans(texts)?;
        if self.config.causal {
            let queries: Vec<Query> = spans.iter().map(|(ids, places)| Query::next_tokens(ids, places.clone())).collect();
            return Ok(log_probabilities_of_endings(model, &queries));
        }
        let hidden = self.tokenizer.mask_id()?;
        let queries: Vec<Query> = spans.iter().flat_map(|(ids, places)| Query::hidden_tokens(ids, places.clone(), hidden)).collect();
        let mut values = log_probabilities(model, &queries).into_iter().flatten();
        Ok(spans.iter().map(|(_, places)| values.by_ref().take(places.len()).collect()).collect())
    }

    /// The texts as tokens with what stands around them, and the tokens of which a byte lies in each text's range.
    ///
    /// # Errors
    /// If a text is too long or cannot be tokenised.
    pub fn spans(&self, texts: &[(String, Range<usize>)]) -> Result<Spans> {
        let sequences = self.sequences(texts.iter().map(|(text, _)| text.clone()).collect())?;
        let written = self.tokenizer.encode_written(texts.iter().map(|(text, _)| text.clone()).collect())?;
        let n_begin = self.around[0] + usize::from(self.start.is_some());
        let mut spans = Vec::with_capacity(texts.len());
        for ((ids, written), (text, bytes)) in sequences.into_iter().zip(written).zip(texts) {
            if ids.get(n_begin..n_begin + written.ids.len()) != Some(&written.ids) {
                let message =
                    format!("the tokenizer cuts {text:?} otherwise with its special tokens than without: this benchmark cannot ask it");
                return Err(Error::checkpoint(&self.folder, message));
            }
            let is_inside = |token: &Range<usize>| token.start < bytes.end && bytes.start < token.end;
            let mut inside = (0..written.ids.len()).filter(|&token| is_inside(&written.bytes[token]));
            let first = inside.next();
            let Some(first) = first else {
                return Err(Error::checkpoint(&self.folder, format!("the tokenizer leaves nothing of {:?}", &text[bytes.clone()])));
            };
            let last = inside.next_back().unwrap_or(first);
            spans.push((ids, n_begin + first..n_begin + last + 1));
        }
        Ok(spans)
    }

    /// The tokens of each text, with what stands around it.
    fn sequences(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        let most = self.config.max_positions;
        let mut sequences = self.tokenizer.encode_all(texts.clone())?;
        for (ids, text) in sequences.iter_mut().zip(&texts) {
            ids.splice(0..0, self.start);
            if ids.len() > most {
                let message = format!("{text:?} has {} tokens, the model at most {most}: it cannot be asked about it", ids.len());
                return Err(Error::checkpoint(&self.folder, message));
            }
        }
        Ok(sequences)
    }

    /// The tokens of each text, without what the tokenizer puts after it: a decoder goes on from there.
    ///
    /// # Errors
    /// If a text is too long or cannot be tokenised.
    pub fn prompts(&self, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        let mut prompts = self.sequences(texts)?;
        prompts.iter_mut().for_each(|ids| ids.truncate(ids.len() - self.around[1]));
        Ok(prompts)
    }

    /// The places of a sequence that hold text.
    fn within(&self, ids: &[u32]) -> Range<usize> {
        self.around[0]..ids.len() - self.around[1]
    }

    /// The places of text that two sequences have in common, in each of them.
    fn common_places(&self, one: &[u32], two: &[u32]) -> [Vec<usize>; 2] {
        let (in_one, in_two) = (self.within(one), self.within(two));
        // Matched with the special tokens, as the published code does it: they lengthen the first and the last block.
        let of_text = |&(a, b): &(usize, usize)| in_one.contains(&a) && in_two.contains(&b);
        common(one, two).into_iter().filter(of_text).unzip::<_, _, Vec<_>, Vec<_>>().into()
    }

    /// For each sequence the sum of the log-probabilities of the tokens at its `places`, each hidden alone.
    fn hidden_sums(&self, model: &LanguageModel, sequences: &[Vec<u32>], places: &[Vec<usize>]) -> Result<Vec<f64>> {
        let hidden = self.tokenizer.mask_id()?;
        let copies = sequences.iter().zip(places).flat_map(|(ids, places)| Query::hidden_tokens(ids, places.iter().copied(), hidden));
        let queries: Vec<Query> = copies.collect();
        let mut values = log_probabilities(model, &queries).into_iter().flatten();
        Ok(places.iter().map(|places| values.by_ref().take(places.len()).sum()).collect())
    }
}

/// The cosine of two vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
