//! The models of the demo before any method: a decoder and an encoder that have read the world's documents.

use super::contrastive::line;
use super::{DEAL, Demo, HELD_OUT_ROWS, Line, WEIGHTS, with_control};
use crate::sft::{number, range};
use kiln_contrastive::config::Objective;
use kiln_contrastive::train::train as train_contrastive;
use kiln_core::Result;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::world::{Document, Domain};
use kiln_sft::config::Task;
use kiln_sft::train::train;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Everyday stories: enough to learn the world, few enough for minutes.
const DOCUMENTS: usize = 6000;
const VOCAB_SIZE: usize = 1024;

impl Demo {
    /// A tokenizer and a decoder that has read the world's everyday stories; the folder of the model.
    pub(super) fn decoder(&self) -> Result<PathBuf> {
        let documents = self.world.documents(Domain::Everyday, DOCUMENTS);
        let questions = self.questions();
        // The tokenizer knows the words of all domains, as those of published models do.
        let others = [Domain::Kitchen, Domain::ShipsLog].map(|domain| self.world.documents(domain, DOCUMENTS / 4)).concat();
        let tokenizer_texts = documents.iter().chain(&others).map(|document| document.text.as_str());
        let tokenizer_texts = tokenizer_texts.chain(questions.iter().flat_map(|row| [row.prompt.as_str(), row.completion.as_str()]));
        let tokenizer = Tokenizer::train(tokenizer_texts, VOCAB_SIZE)?;
        self.write_rows(
            "documents",
            &documents,
            &self.deal_words(&documents),
            &self.world.held_out().documents(Domain::Everyday, HELD_OUT_ROWS),
        )?;
        let untrained = self.path("untrained-decoder");
        model::save(&LanguageModel::new(decoder_config(&tokenizer)?, &self.device, self.key(WEIGHTS))?, &tokenizer, &untrained)?;
        let mut config = self.supervised(Task::NextToken, &untrained, "documents", "documents");
        config.batch_tokens = 1024;
        config.batch_rows = 0;
        config.update.learning_rate = 3e-3;
        config.update.warmup_share = 0.05;
        eprintln!("decoder");
        let summary = train(&config, &self.device, &self.path("decoder"))?;
        println!(
            "base decoder: {} parameters, perplexity of held-out stories {} -> {} {} in {:.0} s",
            summary.effort.n_parameters,
            number(summary.before.figure.value),
            number(summary.after.figure.value),
            range(&summary.after.figure.interval),
            summary.effort.train_seconds
        );
        Ok(self.model("decoder"))
    }

    /// An encoder that has read the same stories by masked language modelling: the folder of the model, and the method's line. The
    /// control read as many words, dealt out at random.
    pub(super) fn encoder(&self, decoder: &Path) -> Result<(PathBuf, Line)> {
        let tokenizer = Tokenizer::from_folder(decoder)?;
        let untrained = self.path("untrained-encoder");
        model::save(&LanguageModel::new(encoder_config(&tokenizer)?, &self.device, self.key(WEIGHTS))?, &tokenizer, &untrained)?;
        let runs = with_control("documents", "contrastive-mlm", |rows, out| {
            let mut config = self.contrastive(&untrained, rows, "documents");
            config.objective = Objective::Mlm;
            config.batch_rows = 32;
            config.epochs = 3;
            config.update.learning_rate = 2e-3;
            config.update.warmup_share = 0.1;
            train_contrastive(&config, &self.device, &self.path(out))
        })?;
        Ok((self.model("contrastive-mlm"), line("contrastive mlm", "contrastive-mlm", &runs)))
    }

    /// Documents of the same lengths with the words of all of them dealt out at random.
    pub(super) fn deal_words(&self, documents: &[Document]) -> Vec<Document> {
        let words: Vec<&str> = documents.iter().flat_map(|document| document.text.split(' ')).collect();
        let mut dealt = self.key(DEAL).permutation(words.len()).into_iter().map(|index| words[index]);
        let deal =
            |document: &Document| Document { text: dealt.by_ref().take(document.text.split(' ').count()).collect::<Vec<_>>().join(" ") };
        documents.iter().map(deal).collect()
    }
}

/// A Llama of about a million parameters.
fn decoder_config(tokenizer: &Tokenizer) -> Result<ModelConfig> {
    config(json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": true, "pad_token_id": tokenizer.id("<pad>"), "bos_token_id": tokenizer.id("<s>"),
        "eos_token_id": tokenizer.id("</s>"),
    }))
}

/// A BERT of about half a million parameters.
fn encoder_config(tokenizer: &Tokenizer) -> Result<ModelConfig> {
    config(json!({
        "model_type": "bert", "vocab_size": tokenizer.vocab_size(), "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 256, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": tokenizer.id("<pad>"),
    }))
}

fn config(keys: Value) -> Result<ModelConfig> {
    let keys: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
    ModelConfig::from_json(keys, Path::new("config.json"))
}
