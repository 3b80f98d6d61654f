//! What must not be exceeded, so that an audit can fail a build.

use kiln_core::{Error, Result};

/// A number that an audit came to, under the name that limits know it by.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// The number.
    pub value: f64,
    /// What 100 % of it would be: the rows of the file, or 1.
    pub whole: f64,
}

/// Checks assignments such as `duplicates=0` and `label-errors=2%` against what was measured: none may be exceeded.
///
/// # Errors
/// [`Error::Config`] if one cannot be read or names nothing that was measured; [`Error::Unmet`] naming all that are exceeded.
pub fn check(limits: &[String], measured: &[Measured]) -> Result<()> {
    let mut exceeded = Vec::new();
    for limit in limits {
        let (measured, most) = parse(limit, measured)?;
        // What could not be measured keeps no promise.
        if measured.value > most || measured.value.is_nan() {
            exceeded.push(format!("{} is {}, more than {limit}", measured.name, shown(measured.value)));
        }
    }
    if exceeded.is_empty() { Ok(()) } else { Err(Error::Unmet { message: exceeded.join("; ") }) }
}

/// A whole number as it is, others with four digits.
fn shown(value: f64) -> String {
    if value.fract() == 0.0 { value.to_string() } else { format!("{value:.4}") }
}

fn parse<'a>(limit: &str, measured: &'a [Measured]) -> Result<(&'a Measured, f64)> {
    let place = || format!("--fail-if {limit}");
    let Some((name, value)) = limit.split_once('=') else {
        return Err(Error::config(place(), "expected NAME=LIMIT, such as duplicates=0 or label-errors=2%"));
    };
    let Some(found) = measured.iter().find(|measured| measured.name == name.trim()) else {
        let known: Vec<&str> = measured.iter().map(|measured| measured.name.as_str()).collect();
        return Err(Error::config(place(), format!("nothing named {:?} was measured; there are {}", name.trim(), known.join(", "))));
    };
    let value = value.trim();
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let most = match value.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0 * found.whole),
        None => number(value),
    };
    let most = most.ok_or_else(|| Error::config(place(), format!("found {value:?}, expected a number or a percentage")))?;
    Ok((found, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_or_named() {
        let measured = |name: &str, value, whole| Measured { name: name.into(), value, whole };
        let all = [measured("duplicates", 3.0, 200.0), measured("equalized_odds", 0.25, 1.0), measured("leakage", f64::NAN, 200.0)];
        let check = |limits: &[&str]| check(&limits.iter().map(|&limit| limit.to_owned()).collect::<Vec<_>>(), &all);
        check(&["duplicates=3", "duplicates = 1.5%", "equalized_odds=0.25", "equalized_odds=25 %"]).unwrap();
        let error = check(&["duplicates=1%", "equalized_odds=0.3", "equalized_odds=0.1"]).unwrap_err();
        assert!(matches!(error, Error::Unmet { .. }));
        assert_eq!(error.to_string(), "duplicates is 3, more than duplicates=1%; equalized_odds is 0.2500, more than equalized_odds=0.1");
        assert!(matches!(check(&["leakage=5"]), Err(Error::Unmet { .. })), "not measured is not met");
        for (limit, part) in
            [("duplicates", "expected NAME=LIMIT"), ("copies=0", "there are duplicates, equalized_odds"), ("duplicates=-1", "\"-1\"")]
        {
            let error = check(&[limit]).unwrap_err();
            assert!(matches!(&error, Error::Config { .. }) && error.to_string().contains(part), "{error}");
        }
    }
}
