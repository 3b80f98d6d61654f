//! `report.html`: a run's results, metrics and configuration on one page that needs nothing but itself.

use crate::run::Line;
use kiln_core::files::write_atomic;
use kiln_core::{Error, Result};
use plotters::prelude::*;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::Path;

/// The most points a plot shows; of more, each stretch keeps its smallest and its largest, so that no spike is lost.
const MAX_POINTS: usize = 500;

/// Twice the size on the page, because plotters rounds coordinates to whole units.
const PLOT_SIZE: (u32, u32) = (1440, 460);

/// The colour of the data, readable on white and on black.
const DATA: RGBColor = RGBColor(0x3b, 0x82, 0xc4);

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --faint: #dddddd }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #161616; --faint: #3a3a3a } }
body { margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse } td { padding: .15rem 2rem .15rem 0; border-bottom: 1px solid var(--faint); overflow-wrap: anywhere }
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

/// What the page's functions fail with; drawing into a string does not.
type Drawn<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn page(title: &str, results: &Value, metrics: &[Line], config: &str) -> Drawn<String> {
    let title = escape(title);
    let mut html = format!("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n");
    html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    write!(html, "<style>\n{STYLE}\n</style>\n<h1>{title}</h1>\n<table>\n")?;
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
    for (name, points) in series(metrics) {
        writeln!(html, "<h2>{}</h2>\n{}", escape(name), plot(name, &points)?)?;
    }
    writeln!(html, "<details><summary>Configuration</summary>\n<pre>{}</pre>\n</details>\n</html>", escape(config))?;
    Ok(html)
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
fn series(metrics: &[Line]) -> Vec<(&str, Vec<(usize, f64)>)> {
    let mut series: Vec<(&str, Vec<(usize, f64)>)> = Vec::new();
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

/// At most [`MAX_POINTS`] indices into `points`, rising.
fn thin(points: &[(usize, f64)]) -> Vec<usize> {
    if points.len() <= MAX_POINTS {
        return (0..points.len()).collect();
    }
    let n_stretches = MAX_POINTS / 2;
    let mut kept = Vec::with_capacity(MAX_POINTS);
    for stretch in 0..n_stretches {
        let indices = || stretch * points.len() / n_stretches..(stretch + 1) * points.len() / n_stretches;
        let by_value = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
        let mut ends: Vec<usize> = indices().min_by(by_value).into_iter().chain(indices().max_by(by_value)).collect();
        ends.sort_unstable();
        ends.dedup();
        kept.append(&mut ends);
    }
    kept
}

/// The mean of the values around `index`, 2% of all on each side; nothing where `points` ends before that, as fewer would be noise again.
fn running_mean(points: &[(usize, f64)], index: usize) -> Option<f64> {
    let reach = points.len() / 50;
    let window = points.get(index.checked_sub(reach)?..=index + reach)?;
    Some(window.iter().map(|(_, value)| value / window.len() as f64).sum())
}

/// An SVG of at least one point, in the page's text colour except for the data.
fn plot(name: &str, points: &[(usize, f64)]) -> Drawn<String> {
    let largest = points.iter().map(|(_, value)| value.abs()).fold(0.0, f64::max);
    // Plotted in units of a power of ten near the values: plotters' search for round ticks compares with absolute tolerances.
    let unit = if largest > 0.0 { 10f64.powf(largest.log10().floor().max(-300.0)) } else { 1.0 };
    let low = points.iter().map(|(_, value)| value / unit).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|(_, value)| value / unit).fold(f64::NEG_INFINITY, f64::max);
    let margin = if high - low > 1e-6 { 0.05 * (high - low) } else { 0.5 };
    let n_digits = 3 + (10.0 / (high - low + margin)).log10().max(0.0) as usize;
    let last_step = points.iter().map(|(step, _)| *step).max().unwrap_or(0).max(1) as u64;
    let kept = thin(points);

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, PLOT_SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(40)
            .x_label_area_size(80)
            .y_label_area_size(150)
            .build_cartesian_2d(0..last_step, low - margin..high + margin)?;
        let text = ("sans-serif", 30).into_font().color(&BLACK);
        chart
            .configure_mesh()
            // Transparent instead of none: plotters counts ticks for no lines forever.
            .max_light_lines(1)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.4))
            .label_style(text)
            .x_labels(8)
            .y_labels(6)
            .x_desc("step")
            // Rounded, because a tick at 0 may come as -5e-17; the sum makes -0 a plain 0.
            .y_label_formatter(&|value| significant(((value * 1e9).round() / 1e9 + 0.0) * unit, n_digits))
            .draw()?;
        let at = |index: usize, value: f64| (points[index].0 as u64, value / unit);
        chart.draw_series(kept.iter().map(|&index| Circle::new(at(index, points[index].1), 4, DATA.mix(0.3).filled())))?;
        let mean = kept.iter().filter_map(|&index| Some(at(index, running_mean(points, index)?)));
        chart.draw_series(LineSeries::new(mean, DATA.stroke_width(4)))?;
        area.present()?;
    }
    // Our own opening tag: inside HTML an SVG needs no namespace, and it takes its size from the page.
    let (_, content) = svg.split_once('>').ok_or("no SVG was drawn")?;
    let content = content.replace("#000000", "currentColor");
    let (width, height) = PLOT_SIZE;
    Ok(format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{} over steps\">{content}", escape(name)))
}

fn escape(text: &str) -> String {
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
    fn long_runs_are_thinned_but_keep_their_spikes() {
        let loss = |step| if step == 7777 { 900.0 } else { 2.0 + (step as f64).sin() };
        let metrics = lines(10_000, loss);
        let points = &series(&metrics)[0].1;
        let kept = thin(points);
        assert!(kept.len() <= MAX_POINTS && kept.is_sorted());
        assert!(kept.contains(&7776));
        let html = report(&json!({}), &metrics);
        assert_eq!(count(&html, "<circle"), kept.len());
        assert!(html.contains(">\n10000\n</text>") && html.contains(">\n800\n</text>"));
        assert!(html.len() < 100_000, "{} bytes", html.len());
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
    fn the_running_mean_keeps_lines_straight_and_flattens_noise() {
        let line: Vec<(usize, f64)> = (0..200).map(|step| (step, 3.0 * step as f64 - 50.0)).collect();
        let means: Vec<Option<f64>> = (0..200).map(|index| running_mean(&line, index)).collect();
        assert!(means[..4].iter().chain(&means[196..]).all(Option::is_none));
        assert!((4..196).all(|index| (means[index].unwrap() - line[index].1).abs() < 1e-9));
        let saw: Vec<(usize, f64)> = (0..200).map(|step| (step, if step % 9 == 0 { 9.0 } else { 0.0 })).collect();
        assert!((4..196).all(|index| (running_mean(&saw, index).unwrap() - 1.0).abs() < 1e-12));
        assert_eq!(running_mean(&line[..1], 0), Some(-50.0));
    }

    #[test]
    fn numbers_keep_the_digits_that_count() {
        let texts = [0.0, 0.61234, 12.3456, 15234.7, 0.0012, 4.5e-5, 0.99999, 1.5e7, -2.0, f64::NAN].map(|value| significant(value, 4));
        assert_eq!(texts, ["0", "0.6123", "12.35", "15235", "0.0012", "4.5e-5", "1", "1.5e7", "-2", "NaN"]);
    }
}
