//! Rows of Apache Parquet files, as Hugging Face's data sets keep them.
//!
//! The numbers of classes become their names where the file has them, as those data sets do: under the key `huggingface` of its metadata,
//! `{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}}}`.

use super::parts::Parts;
use kiln_core::guard::guarded;
use kiln_core::{Error, Result};
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Reads rows, whatever their columns hold.
pub(super) fn read(file: File, path: &Path, parts: &mut Parts<'_>) -> Result<()> {
    let reader = library(path, || SerializedFileReader::new(file))?;
    let metadata = reader.metadata().file_metadata();
    metadata.schema().get_fields().iter().for_each(|column| parts.add_column(column.name()));
    let classes = classes(metadata);
    let n_rows = usize::try_from(metadata.num_rows()).unwrap_or_default();
    let n_bytes = std::fs::metadata(path).map_or(0, |file| file.len() as usize);
    // The file is compressed, its rows in memory are not.
    let bytes_per_row = 4 * n_bytes / n_rows.max(1);
    let mut rows = library(path, || reader.get_row_iter(None))?;
    for number in 1.. {
        let Some(row) = library(path, || rows.next().transpose())? else { break };
        let fields = row.into_columns().into_iter().map(|(name, field)| {
            let names = classes.get(&name).map_or(&[][..], Vec::as_slice);
            let value = value(field, names);
            (name, value)
        });
        parts.push(number, fields.collect(), bytes_per_row)?;
    }
    Ok(())
}

/// What `work` returns, its errors and panics in one line.
fn library<T>(path: &Path, work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    let outcome = guarded("parquet", work).and_then(|outcome| outcome.map_err(|error| error.to_string()));
    outcome.map_err(|message| {
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Error::data(path, None, format!("cannot be read as Parquet: {message}"))
    })
}

/// The names of each column's classes.
fn classes(metadata: &FileMetaData) -> BTreeMap<String, Vec<String>> {
    let pairs = metadata.key_value_metadata().into_iter().flatten();
    let text = pairs.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref()).unwrap_or_default();
    let told: Value = serde_json::from_str(text).unwrap_or_default();
    let features = told["info"]["features"].as_object().into_iter().flatten();
    features.filter_map(|(column, feature)| Some((column.clone(), names(feature)?))).collect()
}

/// Those of a column of classes, or of lists of them.
fn names(feature: &Value) -> Option<Vec<String>> {
    match feature["_type"].as_str() {
        Some("ClassLabel") => feature["names"].as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        Some("Sequence" | "List" | "LargeList") => names(&feature["feature"]),
        _ => names(feature.get(0)?),
    }
}

/// A field as JSON, the numbers of classes as their names.
fn value(field: Field, classes: &[String]) -> Value {
    let class = |number: i64| usize::try_from(number).ok().and_then(|number| classes.get(number)).map(|name| Value::from(name.as_str()));
    let whole = |number: i64| class(number).unwrap_or_else(|| number.into());
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(number) => whole(number.into()),
        Field::Short(number) => whole(number.into()),
        Field::Int(number) | Field::Date(number) | Field::TimeMillis(number) => whole(number.into()),
        Field::Long(number) | Field::TimeMicros(number) | Field::TimestampMillis(number) | Field::TimestampMicros(number) => whole(number),
        Field::UByte(number) => whole(number.into()),
        Field::UShort(number) => whole(number.into()),
        Field::UInt(number) => whole(number.into()),
        Field::ULong(number) => number.into(),
        Field::Double(number) => number.into(),
        // By way of the shortest text, so that 0.1 stays 0.1.
        Field::Float(_) | Field::Float16(_) => field.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Decimal(_) => field.to_string().into(),
        Field::Group(row) => Value::Object(row.into_columns().into_iter().map(|(name, field)| (name, value(field, &[]))).collect()),
        Field::ListInternal(list) => list.elements().iter().map(|element| value(element.clone(), classes)).collect(),
        Field::MapInternal(map) => {
            let key = |field: &Field| match field {
                Field::Str(text) => text.clone(),
                other => other.to_string(),
            };
            Value::Object(map.entries().iter().map(|(name, field)| (key(name), value(field.clone(), &[]))).collect())
        }
    }
}
