//! Supervised fine-tuning in the demo.

use super::{Demo, HELD_OUT_ROWS, Line, REJECT, with_control};
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::tags::OUTSIDE;
use kiln_data::world::{LabelledText, Question, TaggedSentence, World};
use kiln_eval::bootstrap::{Bootstrap, mean};
use kiln_kernels::random::Key;
use kiln_sft::config::Task;
use kiln_sft::train::{Summary, train};
use serde::Serialize;
use std::path::Path;

/// Rows of each kind.
const QUESTIONS: usize = 6000;
const TOPIC_TEXTS: usize = 3000;
const TAGGED_SENTENCES: usize = 2000;
const PREFERENCES: usize = 1500;

/// A question with a right and a wrong answer.
#[derive(Clone, Serialize)]
struct Preference {
    prompt: String,
    chosen: String,
    rejected: String,
}

impl Demo {
    /// Topics of texts, by the encoder.
    pub(super) fn classification(&self, encoder: &Path) -> Result<Line> {
        let rows = self.world.topic_rows(TOPIC_TEXTS);
        let dealt = self.deal(&rows, |row: &mut LabelledText, other| row.label.clone_from(&other.label));
        self.write_rows("topics", &rows, &dealt, &self.world.held_out().topic_rows(HELD_OUT_ROWS))?;
        let runs = with_control("topics", "sft-classification", |rows, out| {
            let mut config = self.supervised(Task::Classification, encoder, rows, "topics");
            config.epochs = 4;
            config.update.learning_rate = 1e-3;
            config.update.warmup_share = 0.1;
            train(&config, &self.device, &self.path(out))
        })?;
        Ok(line("sft classification", "sft-classification", &runs))
    }

    /// Names in sentences, by the encoder.
    pub(super) fn token_classification(&self, encoder: &Path) -> Result<Line> {
        let rows = self.world.entity_rows(TAGGED_SENTENCES);
        // The tags of another sentence, cut to the length of this one or continued outside of all names.
        let dealt = self.deal(&rows, |row: &mut TaggedSentence, other| {
            let n = row.tokens.len();
            row.tags = other.tags.iter().cloned().chain(std::iter::repeat(OUTSIDE.to_owned())).take(n).collect();
        });
        self.write_rows("names", &rows, &dealt, &self.world.held_out().entity_rows(HELD_OUT_ROWS))?;
        let runs = with_control("names", "sft-token-classification", |rows, out| {
            let mut config = self.supervised(Task::TokenClassification, encoder, rows, "names");
            config.epochs = 2;
            config.update.learning_rate = 1e-3;
            config.update.warmup_share = 0.1;
            train(&config, &self.device, &self.path(out))
        })?;
        Ok(line("sft token classification", "sft-token-classification", &runs))
    }

    /// Answers to questions on sums and on the world's people, by the decoder.
    pub(super) fn completion(&self, decoder: &Path) -> Result<Line> {
        let rows = self.questions();
        let dealt = self.deal(&rows, |row: &mut Question, other| row.completion.clone_from(&other.completion));
        let held_out = self.held_out_questions();
        self.write_rows("questions", &rows, &dealt, &held_out)?;
        let [(summary, after), (_, control)] = with_control("questions", "sft-completion", |rows, out| {
            let mut config = self.supervised(Task::NextToken, decoder, rows, "questions");
            config.epochs = 2;
            config.update.learning_rate = 2e-3;
            config.update.warmup_share = 0.05;
            let summary = train(&config, &self.device, &self.path(out))?;
            Ok::<_, Error>((summary, self.right_answers(&self.model(out), &held_out)?))
        })?;
        Ok(Line {
            name: "sft completion",
            metric: "right answers",
            higher_is_better: true,
            before: mean(&self.right_answers(decoder, &held_out)?),
            after: mean(&after),
            control: mean(&control),
            interval: Bootstrap::new(self.seed).interval(&after, mean),
            seconds: summary.effort.train_seconds,
            run: "sft-completion",
        })
    }

    /// Which of two answers is right, by direct preference optimisation of the decoder that answers. The control learns from pairs of which
    /// half are the wrong way round.
    pub(super) fn preference(&self, decoder: &Path) -> Result<Line> {
        let train_rows = preferences(&self.world, PREFERENCES, self.key(REJECT));
        let dealt = train_rows.iter().enumerate().map(|(index, row)| match index % 2 {
            0 => row.clone(),
            _ => Preference { prompt: row.prompt.clone(), chosen: row.rejected.clone(), rejected: row.chosen.clone() },
        });
        let held_out = preferences(&self.world.held_out(), HELD_OUT_ROWS, self.key(REJECT));
        self.write_rows("preferences", &train_rows, &dealt.collect::<Vec<_>>(), &held_out)?;
        let runs = with_control("preferences", "sft-preference", |rows, out| {
            let mut config = self.supervised(Task::Preference, decoder, rows, "preferences");
            config.update.learning_rate = 1e-4;
            config.update.warmup_share = 0.1;
            train(&config, &self.device, &self.path(out))
        })?;
        Ok(line("sft preference", "sft-preference", &runs))
    }

    /// The training questions.
    pub(super) fn questions(&self) -> Vec<Question> {
        spaced(self.world.question_rows(QUESTIONS))
    }

    /// The questions that answers are judged by.
    pub(super) fn held_out_questions(&self) -> Vec<Question> {
        spaced(self.world.held_out().question_rows(HELD_OUT_ROWS))
    }

    /// 1 for each question whose greedy completion is the right one, else 0.
    pub(super) fn right_answers(&self, folder: &Path, questions: &[Question]) -> Result<Vec<f64>> {
        let tokenizer = Tokenizer::from_folder(folder)?;
        let (model, _) = LanguageModel::load(folder, &self.device)?;
        let prompts = tokenizer.encode_all(questions.iter().map(|row| row.prompt.clone()).collect())?;
        let sampling = Sampling { max_new_tokens: 40, ..Sampling::default() };
        let continuations = generate(&model, &prompts, &sampling, &model.config().end_ids, Key::new(self.seed))?;
        let right = |(row, new): (&Question, Vec<u32>)| Ok(f64::from(u8::from(tokenizer.decode(&new)?.trim() == row.completion.trim())));
        questions.iter().zip(continuations).map(right).collect()
    }
}

/// The questions with a space between prompt and completion.
fn spaced(rows: Vec<Question>) -> Vec<Question> {
    rows.into_iter().map(|row| Question { completion: format!(" {}", row.completion), ..row }).collect()
}

/// Questions with their answer and the answer to another question of the same kind, on numbers or on people.
fn preferences(world: &World, n: usize, key: Key) -> Vec<Preference> {
    let rows = spaced(world.question_rows(n));
    let is_number = |row: &Question| row.answer.parse::<u32>().is_ok();
    let order = key.permutation(n);
    let wrong = |(index, row): (usize, &Question)| {
        let others = order[index..].iter().chain(&order[..index]).map(|&other| &rows[other]);
        let mut others = others.filter(|other| is_number(other) == is_number(row) && other.completion != row.completion);
        others.next().map(|other| Preference {
            prompt: row.prompt.clone(),
            chosen: row.completion.clone(),
            rejected: other.completion.clone(),
        })
    };
    rows.iter().enumerate().filter_map(wrong).collect()
}

/// The line of a run and its control.
fn line(name: &'static str, run: &'static str, [summary, control]: &[Summary; 2]) -> Line {
    let figures = [&summary.before, &summary.after, &control.after].map(|evaluation| &evaluation.figure);
    Line::new(name, run, summary.effort.train_seconds, figures)
}
