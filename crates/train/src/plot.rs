//! Plots of metrics over steps, as SVG for a page of ours.

use crate::report::{escape, significant};
use plotters::prelude::*;

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
        for (points, colour) in curves.iter().zip(COLOURS) {
            let kept = thin(points);
            let at = |index: usize, value: f64| (points[index].0 as u64, value / unit);
            chart.draw_series(kept.iter().map(|&index| Circle::new(at(index, points[index].1), 4, colour.mix(0.3).filled())))?;
            let mean = kept.iter().filter_map(|&index| Some(at(index, running_mean(points, index)?)));
            chart.draw_series(LineSeries::new(mean, colour.stroke_width(4)))?;
        }
        area.present()?;
    }
    // Our own opening tag: inside HTML an SVG needs no namespace, and it takes its size from the page.
    let (_, content) = svg.split_once('>').ok_or("no SVG was drawn")?;
    let content = content.replace("#000000", "currentColor");
    let (width, height) = PLOT_SIZE;
    Ok(format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{} over steps\">{content}", escape(name)))
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
