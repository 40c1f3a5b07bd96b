//! The command line of `serve`; each flag may come from the environment instead.

use super::DurabilityMode;
use super::tls::TlsFlags;
use clap::Args;
use clap::builder::FalseyValueParser;
use std::net::SocketAddr;
use std::path::PathBuf;
use tidemill_types::{AccountId, Region};

/// Flags of `serve`; each may come from the environment instead.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Address and port to serve on; port 0 takes a free one [default: 127.0.0.1:4567]
    #[arg(long, value_name = "ADDR", env = "TIDEMILL_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Directory that holds the data; made if there is none [default: ./tidemill-data]
    #[arg(long, value_name = "DIR", env = "TIDEMILL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// What an acknowledgement promises [default: device]
    #[arg(long, value_enum, env = "TIDEMILL_DURABILITY")]
    pub durability: Option<DurabilityMode>,
    /// Account number in ARNs, 12 digits [default: 000000000000]
    #[arg(long, env = "TIDEMILL_ACCOUNT")]
    pub account: Option<AccountId>,
    /// Region in ARNs [default: us-east-1]
    #[arg(long, env = "TIDEMILL_REGION")]
    pub region: Option<Region>,
    /// Serve anyone who can reach a non-loopback address, without checking signatures
    #[arg(long, env = "TIDEMILL_INSECURE", value_parser = FalseyValueParser::new())]
    pub insecure: bool,
    /// Limits of accounts, streams and shards: `none`, `aws`, or a TOML file of figures [default: none]
    #[arg(long, value_name = "LIMITS", env = "TIDEMILL_LIMITS")]
    pub limits: Option<String>,
    #[command(flatten)]
    pub(super) tls: TlsFlags,
    /// TOML file with the same settings and more
    #[arg(long, value_name = "FILE", env = "TIDEMILL_CONFIG")]
    pub config: Option<PathBuf>,
}
