//! The page of results, in Markdown.

use super::Args;
use super::check::Check;
use super::findings::Findings;
use super::pictures::{FOLDER, Picture};
use super::site::WARMUP_SECONDS;
use crate::libraries::RECORD_BYTES;
use crate::report;
use std::fmt::Write;

/// Targets, then what was measured.
pub(super) fn tables(findings: &Findings, checks: &[Check]) -> String {
    let mut targets = vec![["row", "what", "measured", "target", "verdict"].map(str::to_owned)];
    targets.extend(checks.iter().map(Check::cells));
    let mut text = format!("## Targets\n\n{}\n", report::markdown(&targets));
    let series = findings.series();
    if !series.is_empty() {
        let _ = write!(text, "## Figures\n\n{}\n", report::table(&series));
    }
    let mut values = vec![["what", "unit", "median", "± %"].map(str::to_owned)];
    values.extend(findings.value_cells());
    if values.len() > 1 {
        let _ = writeln!(text, "{}", report::markdown(&values));
    }
    text
}

/// The whole page.
pub(super) fn page(args: &Args, facts: &[(&str, String)], tables: &str, pictures: &[Picture]) -> String {
    let mut page = format!(
        "# Results\n\nWritten by `cargo run --release -p tidemill-benches -- suite`: medians of {} interleaved repetitions \
         of {} s each behind {WARMUP_SECONDS} s of warm-up; ± is the distance of the extremes over the median. Records of \
         {RECORD_BYTES} bytes, 8 shards and every acknowledgement on the device unless said otherwise. A megabyte is 10^6 \
         bytes of record data. Load, broker and bare servers share the machine, as separate processes; ratios are of one \
         run. Latencies of throughput measurements are those of a full queue. Memory at full load is of {} s; much stored \
         is {} GB.\n\n{}\n\n",
        args.rounds.repetitions,
        args.rounds.seconds,
        args.soak_seconds,
        args.stored_gb,
        match args.directory.warm_memory {
            true => "The page cache was full before each measurement of a broker (`--warm-memory`).",
            false =>
                "Memory was as it came: on a virtual machine whose host provides it at first touch, that touch bounds \
                 what is produced (see `--warm-memory`).",
        }
    );
    for (name, value) in facts {
        let _ = writeln!(page, "- {name}: {value}");
    }
    let _ = write!(page, "\n{tables}");
    for Picture { file, title, .. } in pictures {
        let _ = writeln!(page, "![{title}]({FOLDER}/{file})");
    }
    page
}
