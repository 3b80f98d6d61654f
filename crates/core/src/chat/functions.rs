//! What chat templates call beyond Jinja itself, as transformers defines it for them.

use minijinja::value::{Kwargs, Rest, Value as Field};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value;

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_function("raise_exception", |message: String, _: Rest<Field>| -> Result<Field, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment
        .add_function("strftime_now", |format: String| strftime(&format).map_err(|what| Error::new(ErrorKind::InvalidOperation, what)));
    environment.add_filter("tojson", to_json);
}

/// The day that templates take for today: the one that Llama's own fall back to where there is no clock.
fn strftime(format: &str) -> Result<String, String> {
    let (mut out, mut letters) = (String::new(), format.chars());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        // `%-d` is `%d` without the zero, which this day's number does not have.
        let code = letters.next().map(|code| if code == '-' { letters.next() } else { Some(code) });
        out.push_str(match code.flatten() {
            Some('d' | 'e') => "26",
            Some('m') => "07",
            Some('b' | 'h') => "Jul",
            Some('B') => "July",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('a') => "Fri",
            Some('A') => "Friday",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('F') => "2024-07-26",
            Some('T') => "00:00:00",
            Some('%') => "%",
            other => return Err(format!("strftime_now: %{} is not supported", other.map(String::from).unwrap_or_default())),
        });
    }
    Ok(out)
}

/// JSON as Python's `json.dumps` writes it, without escapes for letters outside ASCII.
fn to_json(value: Field, options: Kwargs) -> Result<String, Error> {
    let indent: Option<Field> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (sort_keys, _): (Option<bool>, Option<bool>) = (options.get("sort_keys")?, options.get("ensure_ascii")?);
    options.assert_all_used()?;
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(indent).unwrap_or(0).min(MOST_SPACES)),
    });
    let usual = || [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned).to_vec();
    let separators = separators.unwrap_or_else(usual);
    let [item, key] = separators.as_slice() else {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts"));
    };
    let value = serde_json::to_value(&value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let style = Style { indent: indent.as_deref(), item, key, sort_keys: sort_keys == Some(true) };
    let mut out = String::new();
    style.write(&value, 0, &mut out);
    Ok(out)
}

/// The deepest indentation that is taken as it is.
const MOST_SPACES: usize = 16;

struct Style<'a> {
    indent: Option<&'a str>,
    item: &'a str,
    key: &'a str,
    sort_keys: bool,
}

impl Style<'_> {
    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Array(items) => self.list(['[', ']'], items.iter(), depth, out, |item, out| self.write(item, depth + 1, out)),
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sort_keys {
                    fields.sort_by_key(|(name, _)| *name);
                }
                self.list(['{', '}'], fields.into_iter(), depth, out, |(name, value), out| {
                    out.push_str(&Value::from(name.as_str()).to_string());
                    out.push_str(self.key);
                    self.write(value, depth + 1, out);
                });
            }
            scalar => out.push_str(&scalar.to_string()),
        }
    }

    fn list<T>(
        &self,
        brackets: [char; 2],
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(T, &mut String),
    ) {
        let is_empty = items.len() == 0;
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent.filter(|_| !is_empty) {
                out.push('\n');
                (0..depth).for_each(|_| out.push_str(indent));
            }
        };
        out.push(brackets[0]);
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push_str(self.item);
            }
            line(depth + 1, out);
            write(item, out);
        }
        line(depth, out);
        out.push(brackets[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> String {
        let mut environment = Environment::new();
        add_to(&mut environment);
        environment.render_str(template, ()).unwrap()
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = r#"{"name": "café", "b": [1, 2.5, true, none], "a": {}, "c": "<&>'\""}"#;
        assert_eq!(
            rendered(&format!("{{{{ {value} | tojson }}}}")),
            r#"{"name": "café", "b": [1, 2.5, true, null], "a": {}, "c": "<&>'\""}"#
        );
        assert_eq!(rendered("{{ {'b': [1, 2], 'a': []} | tojson(indent=2) }}"), "{\n  \"b\": [\n    1,\n    2\n  ],\n  \"a\": []\n}");
        assert_eq!(rendered("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}"), r#"{"a":2,"b":1}"#);
    }

    #[test]
    fn every_day_is_the_same() {
        assert_eq!(rendered("{{ strftime_now('%d %b %Y') }}, {{ strftime_now('%Y-%m-%d %H:%M') }}"), "26 Jul 2024, 2024-07-26 00:00");
        assert_eq!(strftime("%Q"), Err("strftime_now: %Q is not supported".into()));
    }
}
