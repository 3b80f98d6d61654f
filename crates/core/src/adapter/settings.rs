//! PEFT's settings of an adapter.

use super::{CONFIG_FILE, LoraConfig, Targets};
use crate::{Error, Result, files};
use fancy_regex::Regex;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The content of [`CONFIG_FILE`].
pub(super) struct Settings {
    path: PathBuf,
    values: Map<String, Value>,
}

/// What an adapter may ask for and Kiln does not do, unless it is null, false or empty.
const UNSUPPORTED: [&str; 11] = [
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "velora_config",
    "kasa_config",
    "monteclora_config",
];

impl Settings {
    /// Reads the settings in `folder`.
    ///
    /// # Errors
    /// If the file is missing or damaged, or asks for something Kiln does not do.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG_FILE);
        let values: Map<String, Value> = files::read_json(&path)?;
        let settings = Self { path, values };
        let only = |key: &str, known: &str| settings.error(key, format!("found {}, only {known} is supported", settings.get(key)));
        if *settings.get("peft_type") != "LORA" {
            return Err(only("peft_type", "\"LORA\""));
        }
        if !settings.get("bias").is_null() && *settings.get("bias") != "none" {
            return Err(only("bias", "\"none\""));
        }
        let is_asked = |value: &Value| match value {
            Value::Null => false,
            Value::Bool(asked) => *asked,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if let Some(key) = UNSUPPORTED.into_iter().find(|key| is_asked(settings.get(key))) {
            return Err(settings.error(key, format!("found {}, which is not supported", settings.get(key))));
        }
        // These start from other weights of the base, which PEFT computes again when it loads the adapter.
        let initial = settings.get("init_lora_weights").as_str().unwrap_or_default();
        if ["pissa", "olora", "corda", "loftq"].iter().any(|kind| initial.starts_with(kind)) {
            let message = format!("found {initial:?}, which changes the base's weights; save it in PEFT as a plain LoRA first");
            return Err(settings.error("init_lora_weights", message));
        }
        Ok(settings)
    }

    pub(super) fn get(&self, key: &str) -> &Value {
        self.values.get(key).unwrap_or(&Value::Null)
    }

    pub(super) fn error(&self, key: &str, message: String) -> Error {
        Error::checkpoint(&self.path, format!("key {key:?}: {message}"))
    }

    pub(super) fn is_dora(&self) -> bool {
        *self.get("use_dora") == true
    }

    pub(super) fn task_type(&self) -> Option<String> {
        self.get("task_type").as_str().map(str::to_owned)
    }

    pub(super) fn config(&self) -> Result<LoraConfig> {
        let config = LoraConfig {
            rank: self.get("r").as_u64().ok_or_else(|| self.error("r", "expected a whole number".into()))? as usize,
            alpha: self.get("lora_alpha").as_f64().ok_or_else(|| self.error("lora_alpha", "expected a number".into()))?,
            dropout: self.get("lora_dropout").as_f64().unwrap_or(0.0),
            use_rslora: *self.get("use_rslora") == true,
            use_dora: self.is_dora(),
            target_modules: Targets::default(),
            modules_to_save: Vec::new(),
        };
        config.validate().map_err(|error| Error::checkpoint(&self.path, error.to_string()))?;
        Ok(config)
    }

    /// The rank of the adapter of a layer, and the factor of its output.
    pub(super) fn rank_and_scale(&self, config: &LoraConfig, layer: &str) -> Result<(usize, f64)> {
        let rank = self.of_pattern("rank_pattern", layer)?.map_or(config.rank, |rank| rank as usize);
        let alpha = self.of_pattern("alpha_pattern", layer)?.unwrap_or(config.alpha);
        Ok((rank, config.scale(alpha, rank)))
    }

    /// What the first key of a pattern that fits the layer says.
    fn of_pattern(&self, key: &str, layer: &str) -> Result<Option<f64>> {
        let Some(pattern) = self.get(key).as_object() else { return Ok(None) };
        for (name, value) in pattern {
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{name})$")).map_err(|error| self.error(key, format!("{name:?}: {error}")))?;
            if regex.is_match(layer).map_err(|error| self.error(key, format!("{name:?}: {error}")))? {
                let number = value.as_f64().filter(|number| number.is_finite());
                return number.map(Some).ok_or_else(|| self.error(key, format!("{name:?}: found {value}, expected a number")));
            }
        }
        Ok(None)
    }
}
