//! Choices that come with settings, in the configuration.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Reads a choice that is given by its name alone, `"lion"`, or as a table, `{name = "lion", beta_1 = 0.95}`, which without a name has the
/// default's.
///
/// # Errors
/// If the choice or one of its settings is not known.
pub fn named<'de, T: Default + Serialize + DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let mut table = match Value::deserialize(deserializer)? {
        Value::String(name) => Map::from_iter([("name".to_owned(), name.into())]),
        Value::Object(table) => table,
        other => return Err(D::Error::custom(format!("found {other}, expected a name or a table of settings"))),
    };
    if !table.contains_key("name") {
        let default = serde_json::to_value(T::default()).map_err(D::Error::custom)?;
        table.insert("name".to_owned(), default["name"].clone());
    }
    let choice: T = serde_json::from_value(Value::Object(table.clone())).map_err(D::Error::custom)?;
    // Serde lets everything stand beside the name of a choice without settings.
    let settings = serde_json::to_value(&choice).map_err(D::Error::custom)?;
    match table.keys().find(|key| settings.get(key).is_none()) {
        Some(key) => Err(D::Error::custom(format!("unknown field `{key}` of {}", settings["name"]))),
        None => Ok(choice),
    }
}

#[cfg(test)]
mod tests {
    use crate::optimizer::{LionConfig, Optimizer};
    use crate::schedule::Schedule;
    use crate::updater::UpdateConfig;

    fn read(json: &str) -> Result<UpdateConfig, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_a_table_and_settings_alone_are_understood() {
        let lion = |beta_1| Optimizer::Lion(LionConfig { beta_1, ..LionConfig::default() });
        let default = UpdateConfig::default();
        for (json, optimizer) in [
            (r#"{"optimizer": "lion"}"#, lion(0.9)),
            (r#"{"optimizer": {"name": "lion", "beta_1": 0.8}}"#, lion(0.8)),
            (r#"{"optimizer": {"beta_1": 0.9}}"#, Optimizer::default()),
        ] {
            assert_eq!(read(json).unwrap(), UpdateConfig { optimizer, ..default.clone() });
        }
        for (json, schedule) in [
            (r#"{"schedule": "cosine"}"#, Schedule::Cosine { floor: 0.0 }),
            (r#"{"schedule": {"name": "cosine", "floor": 0.1}}"#, Schedule::Cosine { floor: 0.1 }),
            (r#"{"schedule": {"name": "constant"}}"#, Schedule::Constant),
        ] {
            assert_eq!(read(json).unwrap(), UpdateConfig { schedule, ..default.clone() });
        }
        let text = serde_json::to_string(&default).unwrap();
        assert_eq!(read(&text).unwrap(), default);
    }

    #[test]
    fn what_does_not_belong_is_named() {
        for (json, word) in [
            (r#"{"optimizer": "lionn"}"#, "unknown variant `lionn`"),
            (r#"{"optimizer": {"name": "sgd", "beta_1": 0.9}}"#, "unknown field `beta_1`"),
            (r#"{"schedule": {"name": "linear", "floor": 0.1}}"#, "unknown field `floor` of \"linear\""),
            (r#"{"schedule": {"floor": 0.1}}"#, "unknown field `floor` of \"linear\""),
            (r#"{"schedule": 3}"#, "found 3, expected a name"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
