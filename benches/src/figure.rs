//! What a measurement came to, and what several of the same come to together.

use serde::Deserialize;

/// One measurement: a line of `tidemill bench --json`, or one of our own. A megabyte is 10^6 bytes of record data.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Figure {
    pub(crate) workload: String,
    pub(crate) target: String,
    pub(crate) records_per_s: f64,
    pub(crate) mb_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) errors: u64,
}

impl Figure {
    /// Which of them may be compared: those of one name.
    pub(crate) fn name(&self) -> (String, String) {
        (self.workload.clone(), self.target.clone())
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
    pub(crate) fn median(&self, of: impl Fn(&Figure) -> f64) -> f64 {
        let mut values: Vec<f64> = self.runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        }
    }
    /// Distance of the extremes over the median, in percent.
    pub(crate) fn spread_percent(&self) -> f64 {
        let all = || self.runs.iter().map(|run| run.mb_per_s);
        let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
        match self.median(|run| run.mb_per_s) {
            median if median > 0.0 => (most - least) / median * 100.0,
            _ => 0.0,
        }
    }
    pub(crate) fn errors(&self) -> u64 {
        self.runs.iter().map(|run| run.errors).sum()
    }
}

/// Sorts figures into series, in the order in which each first came.
pub(crate) fn series(figures: &[Figure]) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for figure in figures {
        let (workload, target) = figure.name();
        match all.iter_mut().find(|series| series.workload == workload && series.target == target) {
            Some(series) => series.runs.push(figure.clone()),
            None => all.push(Series { workload, target, runs: vec![figure.clone()] }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(workload: &str, mb_per_s: f64) -> Figure {
        let (workload, target) = (workload.to_owned(), "t".to_owned());
        Figure { workload, target, records_per_s: 0.0, mb_per_s, p50_ms: 0.0, p99_ms: 0.0, errors: 1 }
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
