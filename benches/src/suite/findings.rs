//! What a run has found so far: figures, single values, curves, and what could not be measured and why.

use super::check::Found;
use crate::figure::{Figure, Name, Series, median, series, spread_percent};
use anyhow::Result;

/// A value that is no figure of a load: memory, a count, a time.
struct Value {
    name: String,
    unit: &'static str,
    runs: Vec<f64>,
}

#[derive(Default)]
pub(super) struct Findings {
    figures: Vec<Figure>,
    values: Vec<Value>,
    /// Name and reason.
    missing: Vec<(String, String)>,
    /// Second and mebibytes.
    pub(super) memory: Vec<(f64, f64)>,
}

impl Findings {
    pub(super) fn took(&mut self, name: Name<'_>, figure: Result<Figure>) {
        let key = format!("{} · {}", name.workload, name.target);
        match figure {
            Ok(figure) => {
                let Figure { records_per_s, mb_per_s, p50_ms, .. } = figure;
                eprintln!("  {key}: {records_per_s:.0}/s, {mb_per_s:.1} MB/s, median {p50_ms:.3} ms");
                self.figures.push(figure.named(name));
            }
            Err(error) => self.lacks(key, &error),
        }
    }
    pub(super) fn found(&mut self, name: &str, unit: &'static str, value: Result<f64>) {
        let run = match value {
            Ok(run) => run,
            Err(error) => return self.lacks(name.to_owned(), &error),
        };
        eprintln!("  {name}: {run:.3} {unit}");
        match self.values.iter_mut().find(|value| value.name == name) {
            Some(value) => value.runs.push(run),
            None => self.values.push(Value { name: name.to_owned(), unit, runs: vec![run] }),
        }
    }
    fn lacks(&mut self, name: String, error: &anyhow::Error) {
        let why = format!("{error:#}");
        eprintln!("  {name}: not measured: {why}");
        self.missing.push((name, why));
    }

    pub(super) fn series(&self) -> Vec<Series> {
        series(&self.figures)
    }
    /// The median of all repetitions.
    pub(super) fn median(&self, name: Name<'_>, of: impl Fn(&Figure) -> f64) -> Found {
        let runs: Vec<f64> = self.figures.iter().filter(|figure| figure.name() == name).map(of).collect();
        match runs.is_empty() {
            true => Err(self.why_not(&format!("{} · {}", name.workload, name.target))),
            false => Ok(median(runs)),
        }
    }
    /// The median of all repetitions.
    pub(super) fn value(&self, name: &str) -> Found {
        match self.values.iter().find(|value| value.name == name) {
            Some(value) => Ok(median(value.runs.clone())),
            None => Err(self.why_not(name)),
        }
    }
    fn why_not(&self, name: &str) -> String {
        let reason = self.missing.iter().find(|(missing, _)| missing == name);
        reason.map_or_else(|| format!("{name} is not part of this run"), |(_, why)| why.clone())
    }

    /// Name, median, spread.
    pub(super) fn value_cells(&self) -> Vec<[String; 4]> {
        let cells = |value: &Value| {
            [
                value.name.clone(),
                value.unit.to_owned(),
                super::check::shown(median(value.runs.clone())),
                format!("{:.0}", spread_percent(value.runs.clone())),
            ]
        };
        self.values.iter().map(cells).collect()
    }
}
