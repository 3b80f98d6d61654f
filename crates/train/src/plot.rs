//! Plots as SVG: of metrics over steps, for a page of ours; and of a few points on axes, as a file.

use crate::report::{escape, significant};
use kiln_core::Result;
use kiln_core::files::write_atomic;
use plotters::chart::MeshStyle;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

/// What a page's functions fail with; drawing into a string does not.
pub(crate) type Drawn<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The most points of a curve that a plot shows; of more, each stretch keeps its smallest and its largest, so that no spike is lost.
const MAX_POINTS: usize = 500;

/// Twice the size on the page, because plotters rounds coordinates to whole units.
const PLOT_SIZE: (u32, u32) = (1440, 460);

/// The colours of the curves, readable on white and on black; a plot has no more curves than these.
const COLOURS: [RGBColor; 2] = [RGBColor(0x3b, 0x82, 0xc4), RGBColor(0xc4, 0x7a, 0x2c)];

/// The values of one run's metric, each with its step.
pub(crate) type Points = Vec<(usize, f64)>;

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

/// An SVG of the values of a metric over steps, each curve of at least one point: the values as light points and their running mean, over
/// 2 % of them on each side, as a line. In the page's text colour except for the data.
pub(crate) fn over_steps(name: &str, curves: &[&Points]) -> Drawn<String> {
    let values = || curves.iter().flat_map(|points| points.iter().map(|(_, value)| *value));
    let largest = values().map(f64::abs).fold(0.0, f64::max);
    // Plotted in units of a power of ten near the values: plotters' search for round ticks compares with absolute tolerances.
    let unit = if largest > 0.0 { 10f64.powf(largest.log10().floor().max(-300.0)) } else { 1.0 };
    let low = values().map(|value| value / unit).fold(f64::INFINITY, f64::min);
    let high = values().map(|value| value / unit).fold(f64::NEG_INFINITY, f64::max);
    let margin = if high - low > 1e-6 { 0.05 * (high - low) } else { 0.5 };
    let n_digits = 3 + (10.0 / (high - low + margin)).log10().max(0.0) as usize;
    let last_step = curves.iter().flat_map(|points| points.iter().map(|(step, _)| *step)).max().unwrap_or(0).max(1) as u64;

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, PLOT_SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(40)
            .x_label_area_size(80)
            .y_label_area_size(150)
            .build_cartesian_2d(0..last_step, low - margin..high + margin)?;
        plain(&mut chart.configure_mesh())
            .x_labels(8)
            .y_labels(6)
            .x_desc("step")
            // Rounded, because a tick at 0 may come as -5e-17; the sum makes -0 a plain 0.
            .y_label_formatter(&|value| significant(((value * 1e9).round() / 1e9 + 0.0) * unit, n_digits))
            .draw()?;
        for (points, colour) in curves.iter().zip(COLOURS) {
            let kept = thin(points);
            let at = |index: usize, value: f64| (points[index].0 as u64, value / unit);
            chart.draw_series(kept.iter().map(|&index| Circle::new(at(index, points[index].1), 4, colour.mix(0.3).filled())))?;
            let mean = kept.iter().filter_map(|&index| Some(at(index, running_mean(points, index)?)));
            chart.draw_series(LineSeries::new(mean, colour.stroke_width(4)))?;
        }
        area.present()?;
    }
    // Inside HTML an SVG needs no namespace, and it takes its size and colour from the page.
    opened(&svg, "", &format!("{name} over steps"))
}

/// The look of axes.
fn plain<'m, 'a, 'b, X: Ranged, Y: Ranged, B: DrawingBackend>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, B>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, B> {
    // Transparent instead of none: plotters counts ticks for no lines forever.
    mesh.max_light_lines(1)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(BLACK.mix(0.4))
        .label_style(("sans-serif", 30).into_font().color(&BLACK))
}

/// What plotters drew under an opening tag of our own, in the text colour of what it stands in.
fn opened(svg: &str, attributes: &str, label: &str) -> Drawn<String> {
    let (_, content) = svg.split_once('>').ok_or("no SVG was drawn")?;
    let content = content.replace("#000000", "currentColor");
    let ((width, height), label) = (PLOT_SIZE, escape(label));
    Ok(format!("<svg{attributes} viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">{content}"))
}

/// One axis of a plot.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    /// What it measures.
    pub name: &'a str,
    /// Whether equal distances are equal factors; only values above 0 are then on it.
    pub is_logarithmic: bool,
    /// Whether it begins at 0.
    pub from_zero: bool,
}

/// Points joined by a line.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// Whose points they are.
    pub name: &'a str,
    /// Where they are.
    pub points: Vec<(f64, f64)>,
}

/// An axis as plotters draws it.
struct Scale {
    is_logarithmic: bool,
    /// What the ends are, on a logarithmic axis their logarithms.
    ends: [f64; 2],
    /// The values that are labelled.
    ticks: Vec<f64>,
}

impl Scale {
    /// An axis with room around `values` and round labels.
    fn around(axis: &Axis<'_>, values: &[f64]) -> Self {
        let mut scale = Self { is_logarithmic: axis.is_logarithmic, ends: [0.0, 1.0], ticks: Vec::new() };
        let places = || values.iter().map(|&value| scale.place(value));
        let low = if axis.from_zero { 0.0 } else { places().fold(f64::INFINITY, f64::min) };
        let high = places().fold(f64::NEG_INFINITY, f64::max);
        let margin = if high > low { 0.06 * (high - low) } else { 0.5 };
        scale.ends = [if axis.from_zero { low } else { low - margin }, high + margin];
        scale.ticks = scale.round_values();
        scale
    }

    fn place(&self, value: f64) -> f64 {
        if self.is_logarithmic { value.log10() } else { value }
    }

    /// A few round values on the axis.
    fn round_values(&self) -> Vec<f64> {
        let [low, high] = self.ends;
        if self.is_logarithmic {
            let decades = low.floor() as i32..=high.floor() as i32;
            let round = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)));
            return round.filter(|value| (low..=high).contains(&value.log10())).collect();
        }
        let decade = 10f64.powf((high - low).log10().floor());
        let step = [0.2, 0.5, 1.0].map(|share| share * decade).into_iter().find(|step| (high - low) / step <= 6.0).unwrap_or(2.0 * decade);
        ((low / step).ceil() as i64..=(high / step).floor() as i64).map(|index| index as f64 * step).collect()
    }
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let [low, high] = self.ends;
        first + (f64::from(last - first) * (self.place(*value) - low) / (high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        let [low, high] = self.ends.map(|end| if self.is_logarithmic { 10f64.powf(end) } else { end });
        low..high
    }
}

/// Writes a plot of at least one point. The first axis is labelled where the points are, the second at round values.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, x: &Axis<'_>, y: &Axis<'_>, curves: &[Curve<'_>]) -> Result<()> {
    write_atomic(path, |temporary| std::fs::write(temporary, drawn(x, y, curves).map_err(std::io::Error::other)?))
}

fn drawn(x: &Axis<'_>, y: &Axis<'_>, curves: &[Curve<'_>]) -> Drawn<String> {
    let (mut columns, rows): (Vec<f64>, Vec<f64>) = curves.iter().flat_map(|curve| curve.points.iter().copied()).unzip();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    let across = Scale { ticks: columns.clone(), ..Scale::around(x, &columns) };
    let label = |value: &f64| significant(*value, 6);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, PLOT_SIZE).into_drawing_area();
        let text = ("sans-serif", 30).into_font();
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(40)
            .x_label_area_size(80)
            .y_label_area_size(150)
            .build_cartesian_2d(across, Scale::around(y, &rows))?;
        plain(&mut chart.configure_mesh()).x_desc(x.name).y_desc(y.name).x_label_formatter(&label).y_label_formatter(&label).draw()?;
        for (index, (curve, colour)) in curves.iter().zip(COLOURS).enumerate() {
            chart.draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(4)))?;
            chart.draw_series(curve.points.iter().map(|&point| Circle::new(point, 8, colour.filled())))?;
            area.draw(&Text::new(curve.name.to_owned(), (190, 30 + 36 * index as i32), text.clone().color(&colour)))?;
        }
        area.present()?;
    }
    // A file of its own takes no colour from a page.
    let attributes = " xmlns=\"http://www.w3.org/2000/svg\" style=\"color:#808080\"";
    let names = curves.iter().map(|curve| curve.name).collect::<Vec<_>>().join(" and ");
    opened(&svg, attributes, &format!("{} over {} of {names}", y.name, x.name))
}

/// The names of the curves of a plot in their colours.
pub(crate) fn legend(names: &[&str]) -> String {
    let name =
        |(name, RGBColor(r, g, b)): (&&str, RGBColor)| format!("<span style=\"color:#{r:02x}{g:02x}{b:02x}\">■</span> {}", escape(name));
    format!("<p>{}</p>", names.iter().zip(COLOURS).map(name).collect::<Vec<_>>().join(" &nbsp; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_are_thinned_but_keep_their_spikes() {
        let points: Points = (1..=10_000).map(|step| (step, if step == 7777 { 900.0 } else { 2.0 + (step as f64).sin() })).collect();
        let kept = thin(&points);
        assert!(kept.len() <= MAX_POINTS && kept.is_sorted());
        assert!(kept.contains(&7776));
        let svg = over_steps("loss", &[&points]).unwrap();
        assert_eq!(svg.matches("<circle").count(), kept.len());
        assert!(svg.contains(">\n10000\n</text>") && svg.contains(">\n800\n</text>"));
        assert!(svg.len() < 100_000, "{} bytes", svg.len());
    }

    #[test]
    fn points_lie_on_axes_with_round_labels() {
        let axis = |name, is_logarithmic, from_zero| Axis { name, is_logarithmic, from_zero };
        let curve = |name, scale: f64| Curve { name, points: [64.0, 128.0, 256.0].map(|x| (x, scale * x * x)).to_vec() };
        let svg = drawn(&axis("length", true, false), &axis("ms", true, false), &[curve("ours", 1e-4), curve("theirs", 2e-4)]).unwrap();
        for label in ["64", "128", "256", "0.5", "1", "2", "5", "10", "length", "ms", "ours", "theirs"] {
            assert!(svg.contains(&format!(">\n{label}\n</text>")), "{label} in {svg}");
        }
        assert!(svg.starts_with("<svg xmlns=") && svg.len() < 20_000 && !svg.contains("NaN"), "{svg}");
        // A power is a straight line on logarithmic axes: the points of a curve are equal distances apart.
        let centres: Vec<i32> = svg.split("<circle ").skip(1).filter_map(|circle| circle.split('"').nth(3)?.parse().ok()).collect();
        assert_eq!(centres.len(), 6);
        assert!((centres[0] - 2 * centres[1] + centres[2]).abs() <= 1 && centres[0] > centres[2], "{centres:?}");
        assert!(centres[0] > centres[3], "twice the cost is further up");
    }

    #[test]
    fn linear_ticks_are_round_and_few() {
        let axis = Axis { name: "ms", is_logarithmic: false, from_zero: true };
        let ticks = |values: &[f64]| Scale::around(&axis, values).ticks.into_iter().map(|tick| significant(tick, 6)).collect::<Vec<_>>();
        assert_eq!(ticks(&[0.3, 0.8]), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(ticks(&[33_000.0]), ["0", "10000", "20000", "30000"]);
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
}
