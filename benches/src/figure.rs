//! What a measurement came to, and what several of the same come to together.

use serde::Deserialize;

/// One measurement: a line of `tidemill bench --json`, or one of our own. A megabyte is 10^6 bytes of record data. What a
/// workload does not tell is zero.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Figure {
    pub(crate) workload: String,
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) records_per_s: f64,
    #[serde(default)]
    pub(crate) mb_per_s: f64,
    #[serde(default)]
    pub(crate) p50_ms: f64,
    #[serde(default)]
    pub(crate) p99_ms: f64,
    #[serde(default)]
    pub(crate) p999_ms: f64,
    #[serde(default)]
    pub(crate) max_ms: f64,
    #[serde(default)]
    pub(crate) errors: u64,
}

/// What makes measurements repetitions of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    pub(crate) workload: &'a str,
    pub(crate) target: &'a str,
}

impl<'a> Name<'a> {
    pub(crate) const fn new(workload: &'a str, target: &'a str) -> Self {
        Self { workload, target }
    }
}

impl Figure {
    pub(crate) fn name(&self) -> Name<'_> {
        Name::new(&self.workload, &self.target)
    }
    pub(crate) fn named(self, name: Name<'_>) -> Self {
        Self { workload: name.workload.to_owned(), target: name.target.to_owned(), ..self }
    }
}

/// Repetitions of one measurement.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) workload: String,
    pub(crate) target: String,
    pub(crate) runs: Vec<Figure>,
}

impl Series {
    pub(crate) fn name(&self) -> Name<'_> {
        Name::new(&self.workload, &self.target)
    }
    pub(crate) fn median(&self, of: impl Fn(&Figure) -> f64) -> f64 {
        median(self.runs.iter().map(of).collect())
    }
    /// Distance of the extremes over the median of the throughput, or where there is none of the latency, in percent.
    pub(crate) fn spread_percent(&self) -> f64 {
        let throughput = self.runs.iter().any(|run| run.mb_per_s > 0.0);
        let of = |run: &Figure| if throughput { run.mb_per_s } else { run.p50_ms };
        spread_percent(self.runs.iter().map(of).collect())
    }
    pub(crate) fn errors(&self) -> u64 {
        self.runs.iter().map(|run| run.errors).sum()
    }
}

/// The middle one, or between the two in the middle; zero of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Distance of the extremes over the median, in percent.
pub(crate) fn spread_percent(values: Vec<f64>) -> f64 {
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    match median(values) {
        median if median > 0.0 => (most - least) / median * 100.0,
        _ => 0.0,
    }
}

/// Sorts figures into series, in the order in which each first came.
pub(crate) fn series(figures: &[Figure]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for figure in figures {
        match all.iter_mut().find(|series| series.name() == figure.name()) {
            Some(series) => series.runs.push(figure.clone()),
            None => all.push(Series {
                workload: figure.workload.clone(),
                target: figure.target.clone(),
                runs: vec![figure.clone()],
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(workload: &str, mb_per_s: f64) -> Figure {
        Figure { mb_per_s, errors: 1, ..Figure::default() }.named(Name::new(workload, "t"))
    }

    #[test]
    fn repetitions_become_medians_in_the_order_of_first_appearance() {
        let all = series(&[figure("b", 3.0), figure("a", 1.0), figure("b", 1.0), figure("b", 2.0)]);
        assert_eq!(all.iter().map(|s| s.workload.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(all[0].median(|run| run.mb_per_s), 2.0);
        assert_eq!(all[0].spread_percent(), 100.0);
        assert_eq!(all[0].errors(), 3);
        assert_eq!(series(&[figure("a", 1.0), figure("a", 2.0)])[0].median(|run| run.mb_per_s), 1.5);
    }
}
