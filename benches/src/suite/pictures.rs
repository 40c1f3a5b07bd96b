//! Which pictures a run gives: those it has something to show in.

use super::findings::Findings;
use super::{fanout, latency};
use crate::figure::Series;
use crate::limits;
use crate::plot::{Curve, bars, lines};

/// Beside the page.
pub(super) const FOLDER: &str = "plots";

pub(super) struct Picture {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) svg: String,
}

pub(super) fn draw(findings: &Findings) -> Vec<Picture> {
    let series = findings.series();
    [throughput(&series), latencies(&series), readers(findings), memory(findings)]
        .into_iter()
        .flatten()
        .collect()
}

fn throughput(all: &[Series]) -> Option<Picture> {
    let title = "Throughput beside the limits";
    let rows: Vec<_> = all.iter().map(|series| (label(series), series.median(|run| run.mb_per_s))).collect();
    let svg = (!rows.is_empty()).then(|| bars(title, "MB/s", &rows))?;
    Some(Picture { file: "throughput.svg", title, svg })
}

/// Of what is not measured with a full queue.
fn latencies(all: &[Series]) -> Option<Picture> {
    let title = "Latency";
    let shown = [limits::DISK_SMALL, latency::SINGLE, latency::ACKNOWLEDGED, latency::DELIVERED];
    let mut rows = Vec::new();
    for series in all.iter().filter(|series| shown.contains(&series.name())) {
        rows.push((format!("{}, median", label(series)), series.median(|run| run.p50_ms)));
        rows.push((format!("{}, p99", label(series)), series.median(|run| run.p99_ms)));
    }
    let svg = (!rows.is_empty()).then(|| bars(title, "ms", &rows))?;
    Some(Picture { file: "latency.svg", title, svg })
}

fn readers(findings: &Findings) -> Option<Picture> {
    let title = "Fan-out of one shard";
    let curve =
        Curve { name: "delivered to all readers together".to_owned(), points: fanout::curve(findings) };
    let svg = (!curve.points.is_empty()).then(|| lines(title, "readers", "MB/s", &[curve]))?;
    Some(Picture { file: "fan-out.svg", title, svg })
}

fn memory(findings: &Findings) -> Option<Picture> {
    let title = "Memory of the broker at full load";
    let curve = Curve { name: "page cache not counted".to_owned(), points: findings.memory.clone() };
    let svg = (!curve.points.is_empty()).then(|| lines(title, "seconds", "MiB", &[curve]))?;
    Some(Picture { file: "memory.svg", title, svg })
}

fn label(series: &Series) -> String {
    format!("{} · {}", series.workload, series.target)
}
