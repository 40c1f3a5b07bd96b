//! Row l: one shard pushed to many readers.

use super::check::Check;
use super::findings::Findings;
use super::load::Load;
use super::site::Site;
use super::watch::watch;
use crate::figure::Name;

const TARGET: &str = "push readers, delivered";
const READERS: [u64; 6] = [1, 2, 5, 10, 25, 50];
/// What counts as no less than before.
const TOLERANCE: f64 = 0.95;
/// A broker that uses as much of a core has no more to give to its readers.
const FULL_CORE: f64 = 0.9;

fn workload(readers: u64) -> String {
    format!("fan-out to {readers}")
}

fn cores(readers: u64) -> String {
    format!("cores of the broker, fan-out to {readers}")
}

pub(super) fn measure(site: &Site, findings: &mut Findings) {
    for readers in READERS {
        let load = Load::new("fanout", "bare").with("--readers", readers);
        let watched = watch(&site.device, || site.load_told(&load, &site.device));
        let (figure, used) = match watched {
            Ok(watched) => {
                let (used, told) = (watched.peak_cores(), watched.done);
                (Ok(told.delivered.unwrap_or(told.figure)), Some(used))
            }
            Err(error) => (Err(error), None),
        };
        findings.took(Name::new(&workload(readers), TARGET), figure);
        if let Some(used) = used {
            findings.found(&cores(readers), "cores", Ok(used));
        }
    }
}

/// Readers and megabytes a second.
pub(super) fn curve(findings: &Findings) -> Vec<(f64, f64)> {
    let delivered = |readers: u64| {
        let workload = workload(readers);
        let mb = findings.median(Name::new(&workload, TARGET), |run| run.mb_per_s).ok()?;
        Some((readers as f64, mb))
    };
    READERS.into_iter().filter_map(delivered).collect()
}

pub(super) fn checks(findings: &Findings) -> Vec<Check> {
    let falls = READERS.windows(2).map(|pair| {
        let delivered = |readers| {
            let workload = workload(readers);
            findings.median(Name::new(&workload, TARGET), |run| run.mb_per_s)
        };
        let (fewer, more) = (delivered(pair[0])?, delivered(pair[1])?);
        let fell = more < fewer * TOLERANCE && findings.value(&cores(pair[0]))? < FULL_CORE;
        Ok(f64::from(u8::from(fell)))
    });
    let found = falls.sum();
    vec![Check::at_most("more readers that get less in all, before a core is full", "", found, Ok(0.0))]
}
