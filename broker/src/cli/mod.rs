//! The command line: one file per command.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage. What a program may want goes to stdout (with `--json` as JSON), what a person
//! may want to stderr. What it does not do: anything that a library of this workspace does; commands are thin users.

mod app;
mod backup;
mod bench;
mod consume;
mod demo;
mod lines;
mod output;
mod put;
mod repair;
mod serve;
mod signals;
mod stream;
mod verify;

use crate::auth::Secret;
use crate::error::{Error, ErrorKind, Result};
use clap::{Args, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidemill_proto::client::{Apps, Channel, Control, Endpoint};
use tracing_subscriber::EnvFilter;

/// A Kinesis you run yourself: a durable, sharded log of records.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log to stderr, such as `info` or `tidemill_engine=debug`; before RUST_LOG and the configuration file
    #[arg(long, global = true, value_name = "FILTER", env = "TIDEMILL_LOG")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker
    Serve(serve::Args),
    /// See it work: real events through a broker, both libraries and a failover, checked at the end
    Demo(demo::Args),
    /// Create, list, describe, delete streams
    Stream(stream::Args),
    /// Consumer applications: list, describe, reset, move leases, delete
    App(app::Args),
    /// Put lines of stdin as records
    Put(put::Args),
    /// Read records as a worker of an application
    Consume(consume::Args),
    /// Copy everything that a running broker holds into a folder; again, what is new
    Backup(backup::Args),
    /// Make a data directory from a backup
    Restore(backup::RestoreArgs),
    /// Check a data directory that no broker is using, byte by byte
    Verify(verify::Args),
    /// Make a damaged data directory usable again, at the cost of the records that are damaged
    Repair(repair::Args),
    /// Measure how much a broker takes and gives, and how soon it answers
    Bench(bench::Args),
}

/// Runs the command that this process was started with.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return told(&Error::because("cannot start the runtime", error)),
    };
    let done = runtime.block_on(cli.run());
    // a thread that still reads stdin must not keep the process
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&error),
    }
}

fn told(error: &Error) -> ExitCode {
    eprintln!("tidemill: {error}");
    ExitCode::from(match error.kind() {
        ErrorKind::Failed => 1,
        ErrorKind::Usage => 2,
    })
}

impl Cli {
    async fn run(self) -> Result<()> {
        if let Command::Serve(args) = self.command {
            return serve::run(args, self.log).await;
        }
        log_to_stderr(self.log, "warn")?;
        match self.command {
            Command::Serve(_) => unreachable!("handled above"),
            Command::Demo(args) => demo::run(args).await,
            Command::Stream(args) => stream::run(args).await,
            Command::App(args) => app::run(args).await,
            Command::Put(args) => put::run(args).await,
            Command::Consume(args) => consume::run(args).await,
            Command::Backup(args) => backup::run(args).await,
            Command::Restore(args) => backup::run_restore(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Repair(args) => repair::run(args).await,
            Command::Bench(args) => bench::run(args).await,
        }
    }
}

/// Starts logging: `chosen`, else `RUST_LOG`, else `fallback`.
fn log_to_stderr(chosen: Option<String>, fallback: &str) -> Result<()> {
    let text = chosen
        .or_else(|| std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty()))
        .unwrap_or_else(|| fallback.to_owned());
    let filter =
        EnvFilter::try_new(&text).map_err(|e| Error::usage(format!("not a log filter: {text:?}: {e}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|e| Error::failed(format!("cannot start logging: {e}")))
}

/// Where the broker is: flags of every command that talks to one.
#[derive(Debug, Clone, Args)]
struct Connection {
    /// Where the broker listens
    #[arg(long, value_name = "URL", env = "TIDEMILL_ENDPOINT", default_value = "http://127.0.0.1:4567")]
    endpoint: Endpoint,
    /// PEM file with the authorities to trust for https:// [default: those the system trusts]
    #[arg(long, value_name = "FILE", env = "TIDEMILL_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// Access key id that proves who calls, for a broker with credentials
    #[arg(long, value_name = "ID", env = "TIDEMILL_ACCESS_KEY_ID", requires = "secret_access_key")]
    access_key_id: Option<String>,
    /// Its secret; better given in the environment, where others do not see it
    #[arg(long, value_name = "SECRET", env = "TIDEMILL_SECRET_ACCESS_KEY", hide_env_values = true)]
    #[arg(requires = "access_key_id")]
    secret_access_key: Option<Secret>,
}

impl Connection {
    async fn control(&self) -> Result<Control> {
        Ok(Control::new(self.channel().await?, rand::random()))
    }
    async fn apps(&self) -> Result<Apps> {
        Ok(Apps::new(self.channel().await?, rand::random()))
    }
    async fn channel(&self) -> Result<Channel> {
        let usage = |e: tidemill_proto::Error| Error::usage(e.message());
        let mut endpoint = self.endpoint.clone();
        if let Some(pem) = self.authorities()? {
            endpoint = endpoint.ca_certificate(pem).map_err(usage)?;
        }
        if let Some((id, secret)) = self.credentials() {
            endpoint = endpoint.credentials(id, secret).map_err(usage)?;
        }
        Channel::connect(&endpoint).await.map_err(Error::from)
    }
    /// With what to prove who calls, if that is given.
    fn credentials(&self) -> Option<(&str, &str)> {
        self.access_key_id.as_deref().zip(self.secret_access_key.as_ref().map(Secret::reveal))
    }
    fn authorities(&self) -> Result<Option<Vec<u8>>> {
        authorities(self.ca_file.as_deref())
    }
}

/// What the file of authorities holds, if one is named.
fn authorities(file: Option<&Path>) -> Result<Option<Vec<u8>>> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| Error::usage(format!("cannot read {}: {e}", path.display())))
    };
    file.map(read).transpose()
}

impl From<tidemill_proto::Error> for Error {
    fn from(error: tidemill_proto::Error) -> Self {
        Self::failed(error.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn refused(line: &str) -> bool {
        Cli::try_parse_from(line.split(' ')).is_err_and(|e| e.exit_code() == 2)
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lines_of_the_contract_are_taken() {
        for line in [
            "tidemill serve --listen 127.0.0.1:0 --data-dir d --durability os --config f",
            "tidemill serve --account 123456789012 --region eu-west-1 --insecure --log debug",
            "tidemill demo --json",
            "tidemill stream create s --shards 4 --retention-hours 48 --json",
            "tidemill stream list --endpoint http://127.0.0.1:1",
            "tidemill stream describe s --json --endpoint https://localhost:1 --ca-file f",
            "tidemill stream delete s",
            "tidemill stream list --access-key-id A --secret-access-key s",
            "tidemill app list --json --endpoint http://127.0.0.1:1",
            "tidemill app describe a --stream s --json",
            "tidemill app reset a --stream s --to trim-horizon --dry-run --json",
            "tidemill app reset a --stream s --to 2026-11-29T01:58:04Z --force",
            "tidemill app move-lease a --stream s --shard 0 --to w --within-ms 5000 --json",
            "tidemill app delete a --stream s --force --json",
            "tidemill app delete a --dry-run",
            "tidemill put s --key k --json --endpoint http://127.0.0.1:1",
            "tidemill put s --key-field id",
            "tidemill consume s --app a --worker w --from latest --until-caught-up --json --lease-ms 500",
            "tidemill bench",
            "tidemill bench produce consume --target grpc --durability os --record-bytes 100 --seconds 1 --json",
            "tidemill bench consume --target kinesis --endpoint http://127.0.0.1:1 --records 5 --connections 2",
            "tidemill bench latency fanout --target bare --rate 1000 --readers 8 --shards 10000 --connections 256",
            "tidemill bench single shards recovery idle --linger-ms 0 --batch-records 1 --region eu-west-1",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn bad_usage_is_exit_code_2() {
        for line in [
            "tidemill",
            "tidemill fly",
            "tidemill serve --listen nowhere",
            "tidemill serve --durability sometimes",
            "tidemill serve --account 12",
            "tidemill stream create",
            "tidemill stream create bad/name",
            "tidemill stream create s --shards 0",
            "tidemill stream create s --shards 10001",
            "tidemill stream create s --retention-hours 23",
            "tidemill app",
            "tidemill app describe",
            "tidemill app reset a --to latest",
            "tidemill app reset a --stream s",
            "tidemill app reset a --stream s --to yesterday",
            "tidemill app reset a --stream s --to latest --dry-run --force",
            "tidemill app move-lease a --stream s --shard 0 --to w --within-ms 600001",
            "tidemill put s --key a --key-field b",
            "tidemill put s --endpoint ftp://x",
            "tidemill put s --access-key-id A",
            "tidemill put s --secret-access-key s",
            "tidemill consume s",
            "tidemill consume s --app a --from middle",
            "tidemill consume s --app a --lease-ms 499",
            "tidemill bench fly",
            "tidemill bench --durability os --endpoint http://127.0.0.1:1",
            "tidemill bench --records 5 --seconds 1",
            "tidemill bench --connections 257",
            "tidemill bench --shards 10001",
            "tidemill bench --access-key-id A",
        ] {
            assert!(refused(line), "{line}");
        }
    }
}
