//! `report.html`: a run's results, metrics and configuration on one page that needs nothing but itself.

use crate::plot::{self, Drawn, Points};
use crate::run::Line;
use kiln_core::files::write_atomic;
use kiln_core::{Error, Result};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::Path;

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --faint: #dddddd }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #161616; --faint: #3a3a3a } }
body { margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse } td { padding: .15rem 2rem .15rem 0; border-bottom: 1px solid var(--faint); overflow-wrap: anywhere }
th { text-align: left; padding-right: 2rem }
td.number { text-align: right; padding-right: 0; font-variant-numeric: tabular-nums }
svg { display: block; width: 100% } pre { overflow-x: auto } summary { margin-top: 2rem; cursor: pointer }";

/// Writes `folder/report.html`: `results` as a table, a plot over steps for each of the `metrics`, and `folder/config.toml`.
///
/// A plot shows the logged values as light points and their running mean, over 2% of them on each side, as a line.
///
/// # Errors
/// [`Error::Io`] if the configuration cannot be read or the report not be written.
pub fn write(folder: &Path, title: &str, results: &Value, metrics: &[Line]) -> Result<()> {
    let config_path = folder.join("config.toml");
    let config = std::fs::read_to_string(&config_path).map_err(|source| Error::io(&config_path, source))?;
    write_atomic(&folder.join("report.html"), |temporary| {
        std::fs::write(temporary, page(title, results, metrics, &config).map_err(std::io::Error::other)?)
    })
}

/// What is trained on, and what validates.
const LOSSES: [&str; 2] = ["loss", "validation_loss"];

fn page(title: &str, results: &Value, metrics: &[Line], config: &str) -> Drawn<String> {
    let mut html = head(title);
    html += "<table>\n";
    let mut cells = Vec::new();
    let mut tables = Vec::new();
    flatten("", results, &mut cells, &mut tables);
    for (name, value) in cells {
        let (class, text) = match value {
            Value::Number(number) if number.is_f64() => (" class=\"number\"", significant(number.as_f64().unwrap_or(f64::NAN), 4)),
            Value::Number(number) => (" class=\"number\"", number.to_string()),
            Value::String(text) => ("", text.clone()),
            other => ("", other.to_string()),
        };
        writeln!(html, "<tr><td>{}</td><td{class}>{}</td></tr>", escape(&name), escape(&text))?;
    }
    html += "</table>\n";
    for (name, rows) in &tables {
        writeln!(html, "<h2>{}</h2>\n{}", escape(name), grid(rows)?)?;
    }
    let series = series(metrics);
    let find = |name| series.iter().find(|(other, _)| *other == name).map(|(_, points)| points);
    for (name, points) in &series {
        match (*name, find(LOSSES[0]), find(LOSSES[1])) {
            // On one plot, so that the gap between them is seen.
            ("loss", Some(loss), Some(validation)) => {
                writeln!(
                    html,
                    "<h2>{}</h2>\n{}\n{}",
                    LOSSES.join(", "),
                    plot::legend(&LOSSES),
                    plot::over_steps(name, &[loss, validation])?
                )?;
            }
            ("validation_loss", Some(_), _) => {}
            _ => writeln!(html, "<h2>{}</h2>\n{}", escape(name), plot::over_steps(name, &[points])?)?,
        }
    }
    writeln!(html, "<details><summary>Configuration</summary>\n<pre>{}</pre>\n</details>\n</html>", escape(config))?;
    Ok(html)
}

/// Several runs on one page: what they came to, and how they went.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The heading.
    pub title: &'a str,
    /// The names of the columns of `rows`.
    pub header: &'a [&'a str],
    /// The table.
    pub rows: &'a [Vec<String>],
    /// The metric that is plotted.
    pub metric: &'a str,
    /// A plot for each pair of runs.
    pub plots: &'a [Pair<'a>],
}

/// Two runs that share a plot.
#[derive(Debug)]
pub struct Pair<'a> {
    /// The plot's heading.
    pub title: &'a str,
    /// What the runs are called, and their metrics.
    pub runs: [(&'a str, Vec<Line>); 2],
}

impl Comparison<'_> {
    /// Writes the page to `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomic(path, |temporary| std::fs::write(temporary, self.page().map_err(std::io::Error::other)?))
    }

    fn page(&self) -> Drawn<String> {
        let mut html = head(self.title);
        let cells = |tag: &str, texts: &mut dyn Iterator<Item = &str>| {
            texts.map(|text| format!("<{tag}>{}</{tag}>", escape(text))).collect::<String>()
        };
        writeln!(html, "<table>\n<tr>{}</tr>", cells("th", &mut self.header.iter().copied()))?;
        for row in self.rows {
            writeln!(html, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)))?;
        }
        html += "</table>\n";
        for Pair { title, runs } in self.plots {
            let curves = runs.each_ref().map(|(_, metrics)| {
                let found = series(metrics).into_iter().find(|(metric, _)| *metric == self.metric);
                found.map(|(_, points)| points).unwrap_or_default()
            });
            if curves.iter().any(|points| !points.is_empty()) {
                let legend = plot::legend(&runs.each_ref().map(|(name, _)| *name));
                let drawn = plot::over_steps(self.metric, &curves.each_ref())?;
                writeln!(html, "<h2>{}: {}</h2>\n{legend}\n{drawn}", escape(title), escape(self.metric))?;
            }
        }
        html += "</html>\n";
        Ok(html)
    }
}

/// A page up to its heading.
fn head(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n{STYLE}\n</style>\n<h1>{title}</h1>\n"
    )
}

/// Rows with the same columns, by the path of their list.
type Table<'a> = (String, Vec<&'a Map<String, Value>>);

/// Every number, text, and empty list or object inside `value`, named by its path with dots; lists of objects with the same keys, the first
/// of them a text, go to `tables`.
fn flatten<'a>(path: &str, value: &'a Value, cells: &mut Vec<(String, &'a Value)>, tables: &mut Vec<Table<'a>>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(key, value)| flatten(&join(key), value, cells, tables)),
        Value::Array(list) if is_table(list) => tables.push((path.to_owned(), list.iter().filter_map(Value::as_object).collect())),
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(index, value)| flatten(&join(&index.to_string()), value, cells, tables));
        }
        _ => cells.push((path.to_owned(), value)),
    }
}

/// Whether `list` reads best as a table: objects of the same keys, of which the first names the row.
fn is_table(list: &[Value]) -> bool {
    let Some(first) = list.first().and_then(Value::as_object) else { return false };
    first.values().next().is_some_and(Value::is_string)
        && list.iter().all(|row| row.as_object().is_some_and(|row| row.len() > 1 && row.keys().eq(first.keys())))
}

/// Rows under their column names. A figure with its interval takes one cell.
fn grid(rows: &[&Map<String, Value>]) -> std::result::Result<String, std::fmt::Error> {
    let mut html = String::from("<table>\n<tr>");
    rows[0].keys().try_for_each(|name| write!(html, "<td>{}</td>", escape(name)))?;
    for row in rows {
        html += "</tr>\n<tr>";
        for value in row.values() {
            let digits = |value: &Value| value.as_f64().map_or_else(|| value.to_string(), |number| significant(number, 4));
            let range = |interval: &Value| format!("[{}, {}]", digits(&interval["low"]), digits(&interval["high"]));
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Object(figure) if figure.contains_key("interval") => {
                    format!("{} {}", figure.get("value").map_or_else(String::new, digits), range(&figure["interval"]))
                }
                Value::Object(interval) if interval.contains_key("low") => range(value),
                other => digits(other),
            };
            write!(html, "<td>{}</td>", escape(&text))?;
        }
    }
    html += "</tr>\n</table>";
    Ok(html)
}

/// The `(step, value)` pairs of each metric, metrics in the order they first appear; values that were not finite are not there.
fn series(metrics: &[Line]) -> Vec<(&str, Points)> {
    let mut series: Vec<(&str, Points)> = Vec::new();
    for line in metrics {
        for (name, value) in &line.values {
            let Some(value) = value.as_f64() else { continue };
            match series.iter_mut().find(|(known, _)| known == name) {
                Some((_, points)) => points.push((line.step, value)),
                None => series.push((name, vec![(line.step, value)])),
            }
        }
    }
    series
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// `value` with `n_digits` significant digits less trailing zeros, in powers of ten from a million and below a thousandth.
pub(crate) fn significant(value: f64, n_digits: usize) -> String {
    let n_decimals = n_digits.max(1) - 1;
    // Rounded first: the exponent of 0.99999 is then that of 1.
    let rounded = format!("{value:.n_decimals$e}");
    let trim = |text: &str| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() };
    match rounded.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>())) {
        Some((_, Ok(exponent @ -3..6))) => trim(&format!("{value:.*}", n_decimals.saturating_add_signed(-exponent as isize))),
        Some((digits, Ok(exponent))) => format!("{}e{exponent}", trim(digits)),
        _ => rounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(n_steps: usize, value: impl Fn(usize) -> f64) -> Vec<Line> {
        let line = |step| Line { step, seconds: step as f64, values: [("loss".to_owned(), json!(value(step)))].into_iter().collect() };
        (1..=n_steps).map(line).collect()
    }

    fn report(results: &Value, metrics: &[Line]) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), "label = \"<a> & 'b'\"\n").unwrap();
        write(folder.path(), "run \"<1>\"", results, metrics).unwrap();
        let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        assert!(!html.contains("http") && !html.contains("src=") && !html.contains("<script") && !html.contains("NaN"), "{html}");
        html
    }

    fn count(html: &str, part: &str) -> usize {
        html.matches(part).count()
    }

    #[test]
    fn results_are_flattened_and_escaped() {
        let results =
            json!({"test": {"accuracy": 0.912345, "n_rows": 3080, "per_class": [0.5, 1e-9]}, "best": "<b>", "none": {}, "stop": null});
        let html = report(&results, &[]);
        for row in [
            "<tr><td>test.accuracy</td><td class=\"number\">0.9123</td></tr>",
            "<tr><td>test.n_rows</td><td class=\"number\">3080</td></tr>",
            "<tr><td>test.per_class.0</td><td class=\"number\">0.5</td></tr>",
            "<tr><td>test.per_class.1</td><td class=\"number\">1e-9</td></tr>",
            "<tr><td>best</td><td>&lt;b&gt;</td></tr>",
            "<tr><td>none</td><td>{}</td></tr>",
            "<tr><td>stop</td><td>null</td></tr>",
            "<h1>run &quot;&lt;1&gt;&quot;</h1>",
            "<pre>label = &quot;&lt;a&gt; &amp; &#39;b&#39;&quot;\n</pre>",
        ] {
            assert!(html.contains(row), "{row} in {html}");
        }
        assert_eq!(count(&html, "<svg"), 0);
    }

    #[test]
    fn rows_with_the_same_keys_are_a_table() {
        let figure = |value: f64| json!({"value": value, "interval": {"low": value - 0.5, "high": value + 0.5}});
        let row = |after: &str, value| json!({"after": after, "law": figure(value), "n": 3});
        let html = report(&json!({"matrix": [row("start", 61.5), row("<law>", 8.25)], "other": [1, {"a": 2}]}), &[]);
        assert!(html.contains("<h2>matrix</h2>\n<table>\n<tr><td>after</td><td>law</td><td>n</td></tr>"), "{html}");
        assert!(html.contains("<tr><td>&lt;law&gt;</td><td>8.25 [7.75, 8.75]</td><td>3</td></tr>\n</table>"), "{html}");
        assert!(html.contains("<tr><td>other.1.a</td>") && !html.contains("matrix.0"), "{html}");
    }

    #[test]
    fn one_point_and_constant_values_are_plotted() {
        for (value, tick) in [(0.0, "0"), (5e-5, "5e-5"), (-3.0, "-3"), (1e300, "1e300"), (1e-320, "0")] {
            for n_steps in [1, 20] {
                let html = report(&json!({}), &lines(n_steps, |_| value));
                assert_eq!(count(&html, "<svg"), 1);
                assert_eq!(count(&html, "<circle"), n_steps, "{value}");
                assert!(html.contains(&format!(">\n{tick}\n</text>")), "no tick at {value}: {html}");
            }
        }
    }

    #[test]
    fn ticks_tell_close_values_apart() {
        let html = report(&json!({}), &lines(20, |step| 0.693 + 1e-6 * step as f64));
        for tick in ["0.693005", "0.69301", "0.693015", "0.69302"] {
            assert!(html.contains(&format!(">\n{tick}\n</text>")), "{tick} in {html}");
        }
    }

    #[test]
    fn each_metric_has_its_plot_and_holes_are_left_out() {
        let mut metrics = lines(30, |step| step as f64);
        metrics[4].values["loss"] = Value::Null;
        metrics[29].values.insert("f<1>".into(), json!(0.5));
        let html = report(&json!({}), &metrics);
        assert_eq!(count(&html, "<svg"), 2);
        assert_eq!(count(&html, "<circle"), 29 + 1);
        assert!(html.contains("<h2>loss</h2>") && html.contains("<h2>f&lt;1&gt;</h2>"));
    }

    #[test]
    fn training_and_validation_share_a_plot() {
        let mut metrics = lines(10, |step| 1.0 / step as f64);
        metrics[4].values.insert("validation_loss".into(), json!(0.5));
        let html = report(&json!({}), &metrics);
        assert_eq!([count(&html, "<svg"), count(&html, "<circle")], [1, 11]);
        assert!(html.contains("<h2>loss, validation_loss</h2>") && html.contains("</span> validation_loss"));
    }

    #[test]
    fn numbers_keep_the_digits_that_count() {
        let texts = [0.0, 0.61234, 12.3456, 15234.7, 0.0012, 4.5e-5, 0.99999, 1.5e7, -2.0, f64::NAN].map(|value| significant(value, 4));
        assert_eq!(texts, ["0", "0.6123", "12.35", "15235", "0.0012", "4.5e-5", "1", "1.5e7", "-2", "NaN"]);
    }

    #[test]
    fn a_comparison_has_its_table_and_a_plot_with_two_curves_for_each_pair() {
        let rows = vec![vec!["first <b>".to_owned(), "0.5".to_owned()]];
        let plots = [Pair { title: "first", runs: [("rows", lines(5, |step| step as f64)), ("control", lines(3, |_| 1.0))] }];
        let comparison = Comparison { title: "demo", header: &["method", "after"], rows: &rows, metric: "loss", plots: &plots };
        let html = comparison.page().unwrap();
        assert!(html.contains("<tr><th>method</th><th>after</th></tr>\n<tr><td>first &lt;b&gt;</td><td>0.5</td></tr>"), "{html}");
        assert_eq!([count(&html, "<svg"), count(&html, "<circle")], [1, 8]);
        assert!(html.contains("</span> control"));
        let other = Comparison { metric: "reward", ..comparison };
        assert_eq!(count(&other.page().unwrap(), "<svg"), 0);
    }
}
