//! Tidemill beside its peers: the same records, as many shards or streams, each with its best configuration that keeps the
//! durability said beside its figures.
//!
//! ```text
//!  install what is missing ─► repetition: for each measure, for each peer that has it:
//!                               start its server on a fresh directory ─► load it ─► stop it ─► a figure
//!                          ─► medians, ratios, goals ─► table, PEERS.md
//! ```
//!
//! One server runs at a time, and repetitions are interleaved, so that a change of the machine's mood meets all alike. What
//! cannot be installed, started or measured becomes a row with the reason. Load and server share the machine.

mod goal;
mod install;
mod kinesis;
mod load;
mod nats;
mod page;
mod peer;
mod redis;
mod running;
mod wire;

use crate::figure::{Figure, series};
use crate::{machine, memory, process};
use anyhow::{Context, Result};
use install::Installed;
use peer::{Measure, PEERS, Peer, SUBJECT};
use running::Running;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    directory: crate::Directory,
    #[command(flatten)]
    rounds: crate::Rounds,
    /// Only peers whose name contains one of these; Tidemill is always beside them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Where peers are installed [default: the folder `peers` beside that of this program]
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Where to write the results
    #[arg(long, value_name = "FILE", default_value = "benches/PEERS.md")]
    results: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = args.directory.make()?;
    let facts = machine::facts(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let comparison = runtime.block_on(args.compare(dir.path()))?;
    let text = page::text(args, &facts, &comparison, &series(&comparison.figures))?;
    println!("{text}");
    std::fs::write(&args.results, text).with_context(|| format!("cannot write {}", args.results.display()))
}

/// All that came of it.
#[derive(Default)]
struct Comparison {
    figures: Vec<Figure>,
    /// Versions by the names of peers.
    versions: Vec<(&'static str, String)>,
    /// What has no figure, or fewer than the others, and why.
    failures: Vec<Failure>,
}

struct Failure {
    peer: &'static str,
    /// None: it could not be installed.
    measure: Option<Measure>,
    reason: String,
}

impl Args {
    fn wanted(&self) -> Vec<&'static Peer> {
        let chosen = |peer: &Peer| {
            let name = peer.name.to_lowercase();
            self.only.is_empty() || self.only.iter().any(|only| name.contains(&only.to_lowercase()))
        };
        PEERS.iter().filter(|peer| peer.name == SUBJECT || chosen(peer)).collect()
    }

    fn peers_folder(&self) -> Result<PathBuf> {
        let default = || Ok(process::program_folder()?.join("../peers"));
        let folder = self.peers.clone().map_or_else(default, anyhow::Ok)?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(folder.canonicalize()?)
    }

    async fn compare(&self, dir: &Path) -> Result<Comparison> {
        let mut all = Comparison::default();
        let mut peers = self.wanted();
        let installed = all.install(&mut peers, &self.peers_folder()?).await;
        let ballast = self.directory.ballast(dir)?;
        for repetition in 1..=self.rounds.repetitions {
            eprintln!("repetition {repetition} of {}", self.rounds.repetitions);
            for measure in Measure::ALL {
                // Tidemill alone is nothing to compare
                if !peers.iter().any(|peer| peer.name != SUBJECT && peer.measures.contains(&measure)) {
                    continue;
                }
                for peer in peers.iter().filter(|peer| peer.measures.contains(&measure)) {
                    let package = peer.package.and_then(|package| installed.get(package.name));
                    all.measure(
                        peer,
                        measure,
                        package,
                        dir,
                        Duration::from_secs(self.rounds.seconds),
                        &ballast,
                    )
                    .await?;
                }
            }
        }
        Ok(all)
    }
}

impl Comparison {
    /// Installs what the peers need, by the names of packages; leaves away whom it cannot be got for.
    async fn install(
        &mut self,
        peers: &mut Vec<&'static Peer>,
        folder: &Path,
    ) -> HashMap<&'static str, Installed> {
        let mut installed: HashMap<_, Result<Installed>> = HashMap::new();
        for package in peers.iter().filter_map(|peer| peer.package) {
            if !installed.contains_key(package.name) {
                installed.insert(package.name, package.install(folder).await);
            }
        }
        peers.retain(|peer| match peer.package.map(|package| &installed[package.name]) {
            None => true,
            Some(Ok(package)) => {
                self.versions.push((peer.name, package.version.clone()));
                true
            }
            Some(Err(error)) => {
                self.fail(peer, None, format!("not installed: {error:#}"));
                false
            }
        });
        installed.into_iter().filter_map(|(name, package)| Some((name, package.ok()?))).collect()
    }

    /// Takes one figure. What failed once is not tried again.
    async fn measure(
        &mut self,
        peer: &'static Peer,
        measure: Measure,
        installed: Option<&Installed>,
        dir: &Path,
        time: Duration,
        ballast: &Option<memory::Ballast>,
    ) -> Result<()> {
        if self.failures.iter().any(|f| f.peer == peer.name && f.measure == Some(measure)) {
            return Ok(());
        }
        if let Some(ballast) = ballast {
            ballast.fill()?;
        }
        let server = match Running::start(peer, measure, installed, dir) {
            Ok(server) => server,
            Err(error) => {
                self.fail(peer, Some(measure), format!("not started: {error:#}"));
                return Ok(());
            }
        };
        match load::measure(peer, measure, &server, time).await {
            Ok(figure) => {
                let Figure { workload, target, records_per_s, .. } = &figure;
                eprintln!("  {workload} · {target}: {records_per_s:.0} records/s");
                self.figures.push(figure);
            }
            Err(error) => {
                let reason = format!("{error:#}; its log ends with: {}", server.last_words());
                self.fail(peer, Some(measure), reason);
            }
        }
        Ok(())
    }

    fn fail(&mut self, peer: &Peer, measure: Option<Measure>, reason: String) {
        eprintln!("  {} · {}: {reason}", measure.map_or("everything", Measure::name), peer.name);
        self.failures.push(Failure { peer: peer.name, measure, reason });
    }
}
