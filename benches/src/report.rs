//! Figures as a table, for people.

use crate::figure::Series;
use std::fmt::Write;

/// One line per series: medians, and the spread of the throughput.
pub(crate) fn table(all: &[Series]) -> String {
    let head = [
        "workload",
        "target",
        "records/s",
        "MB/s",
        "± %",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "errors",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for series in all {
        rows.push([
            series.workload.clone(),
            series.target.clone(),
            format!("{:.0}", series.median(|run| run.records_per_s)),
            format!("{:.1}", series.median(|run| run.mb_per_s)),
            format!("{:.0}", series.spread_percent()),
            format!("{:.3}", series.median(|run| run.p50_ms)),
            format!("{:.3}", series.median(|run| run.p99_ms)),
            format!("{:.3}", series.median(|run| run.p999_ms)),
            format!("{:.3}", series.median(|run| run.max_ms)),
            series.errors().to_string(),
        ]);
    }
    markdown(&rows)
}

/// Aligned in a terminal, a table in Markdown; numbers to the right. The first row is the head.
pub(crate) fn markdown<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let right = |column: usize| column >= 2;
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(width(column) - cell.chars().count());
            let _ = match right(column) {
                true => write!(out, "| {pad}{cell} "),
                false => write!(out, "| {cell}{pad} "),
            };
        }
        out.push_str("|\n");
        if at == 0 {
            for column in 0..COLUMNS {
                let colon = if right(column) { ":" } else { "-" };
                let _ = write!(out, "|{}{colon}", "-".repeat(width(column) + 1));
            }
            out.push_str("|\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "b", "c"], ["long one", "x", "12"]].map(|row| row.map(str::to_owned));
        let text = markdown(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            ["| a        | b   |   c |", "|----------|-----|----:|", "| long one | x   |  12 |"]
        );
    }
}
