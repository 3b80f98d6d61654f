//! Several adapters on one base.

use super::{load, merge};
use crate::model::Model;
use crate::{Error, Result};
use burn::tensor::Device;
use std::collections::BTreeMap;
use std::path::Path;

/// A model with several adapters, one of them, or none, at work. All share the tensors of the base, so that each costs no more than its own.
#[derive(Debug)]
pub struct Adapters<M> {
    base: M,
    named: BTreeMap<String, M>,
    active: Option<String>,
    merged: Option<M>,
}

impl<M: Model> Adapters<M> {
    /// The base, with no adapter at work.
    pub fn new(base: M) -> Self {
        Self { base, named: BTreeMap::new(), active: None, merged: None }
    }

    /// Reads the adapter that PEFT or Kiln wrote into `folder` and keeps it under a name, in the place of another of that name.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&mut self, name: &str, folder: &Path, device: &Device) -> Result<()> {
        let adapted = load(self.base.clone(), folder, device)?;
        self.named.insert(name.to_owned(), adapted);
        if self.active.as_deref() == Some(name) {
            self.merged = None;
        }
        Ok(())
    }

    /// The names of the adapters, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// Lets the adapter called `name` work, or with `None` the base alone.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no adapter of that name.
    pub fn activate(&mut self, name: Option<&str>) -> Result<()> {
        if let Some(name) = name.filter(|name| !self.named.contains_key(*name)) {
            let known = self.names().collect::<Vec<_>>().join(", ");
            return Err(Error::config("adapter", format!("{name:?} is not loaded; there are: {known}")));
        }
        self.active = name.map(str::to_owned);
        self.merged = None;
        Ok(())
    }

    /// The model as it works now.
    pub fn model(&self) -> &M {
        let active = self.active.as_ref().map(|name| &self.named[name]);
        self.merged.as_ref().or(active).unwrap_or(&self.base)
    }

    /// Puts the adapter at work into weights of its own, which costs their memory and saves its products.
    ///
    /// # Errors
    /// As [`merge`].
    pub fn merge(&mut self) -> Result<()> {
        self.merged = Some(merge(self.model().clone())?);
        Ok(())
    }

    /// Gives up the merged weights: base and adapter are what they were, to the byte.
    pub fn unmerge(&mut self) {
        self.merged = None;
    }
}
