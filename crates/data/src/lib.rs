//! Data: rows from files, packing into batches, and the built-in sample world.
//!
//! - [`canaries`]: sentences with random numbers, planted to find out what a model learns by heart
//! - [`columns`]: what the columns of a file mean
//! - [`duplicates`]: texts that are there more than once, exactly or nearly
//! - [`rows`]: tables of named fields from files of every format
//! - [`examples`]: rows as token sequences for language models
//! - [`conversations`]: the same for chats, by the model's own template
//! - [`layout`]: what the columns of a file are for, recognised by their names
//! - [`labels`]: the label names of a classification task and their indices
//! - [`sequences`]: rows as texts and pairs with a class or a number
//! - [`grouped`]: the same with the group of people that a row is about, and with words exchanged
//! - [`words`]: rows as sentences of tagged words
//! - [`text`]: rows as text to be continued
//! - [`retrieval`]: queries, documents, and which answer which
//! - [`source`]: where a run's rows are, and which are held out
//! - [`store`]: training rows by index, in memory or on disk
//! - [`split`]: which rows are trained on, and in which order
//! - [`swaps`]: texts with the words of one group of people in place of those of another
//! - [`masking`]: which tokens masked language modelling hides
//! - [`pack`]: which rows share a batch
//! - [`prior`]: what a new head says before it has learnt anything
//! - [`tags`]: the tags of words in IOB2
//! - [`texts`]: rows as texts whose words are known, for masked language modelling
//! - [`world`]: a little English of its own, so that every method can be tried without downloading anything
//!
//! `cargo run --example data` goes from a file of rows to batches (`crates/data/examples/data.rs`).

pub mod canaries;
pub mod columns;
pub mod conversations;
pub mod duplicates;
pub mod examples;
pub mod grouped;
pub mod labels;
pub mod layout;
pub mod masking;
pub mod pack;
pub mod prior;
mod random;
pub mod retrieval;
pub mod rows;
pub mod sequences;
pub mod source;
pub mod split;
pub mod store;
pub mod swaps;
pub mod tags;
pub mod text;
pub mod texts;
pub mod words;
pub mod world;
