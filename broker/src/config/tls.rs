//! How the broker speaks TLS: the flags, the section `[tls]` of the file, and what they come to.

use crate::error::{Error, Result};
use crate::tls::{Certificate, TlsSettings};
use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Which certificate, where no files are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TlsMode {
    /// None: clear text only.
    Off,
    /// One made by an authority of the data directory, for development.
    Local,
}

/// The flags. A certificate named by flags, or none, replaces the one of the file.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TlsFlags {
    /// Speak TLS as well, on the same port: `local` makes an authority and a certificate in DIR/tls [default: off]
    #[arg(id = "tls", long = "tls", value_enum, value_name = "MODE", env = "TIDEMILL_TLS")]
    pub(super) mode: Option<TlsMode>,
    /// PEM file with the certificate to show, read again when it changes
    #[arg(
        id = "tls-cert",
        long = "tls-cert",
        value_name = "FILE",
        env = "TIDEMILL_TLS_CERT",
        requires = "tls-key"
    )]
    pub(super) cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(
        id = "tls-key",
        long = "tls-key",
        value_name = "FILE",
        env = "TIDEMILL_TLS_KEY",
        requires = "tls-cert"
    )]
    pub(super) key: Option<PathBuf>,
    /// Refuse clear text
    #[arg(id = "tls-required", long = "tls-required", env = "TIDEMILL_TLS_REQUIRED", value_parser = FalseyValueParser::new())]
    pub(super) required: bool,
    /// A second address, for TLS alone
    #[arg(id = "tls-listen", long = "tls-listen", value_name = "ADDR", env = "TIDEMILL_TLS_LISTEN")]
    pub(super) listen: Option<SocketAddr>,
}

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsFile {
    mode: Option<TlsMode>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    names: Vec<String>,
    required: Option<bool>,
    listen: Option<SocketAddr>,
}

/// What flags and file come to; none if no certificate is asked for.
pub(super) fn compose(flags: TlsFlags, file: TlsFile) -> Result<Option<TlsSettings>> {
    let chosen_by_flags = flags.mode.is_some() || flags.cert.is_some();
    let (mode, cert, key) =
        if chosen_by_flags { (flags.mode, flags.cert, flags.key) } else { (file.mode, file.cert, file.key) };
    // who turns TLS off on the command line does so whatever the file says of it
    let (file_required, file_listen) =
        if flags.mode == Some(TlsMode::Off) { (None, None) } else { (file.required, file.listen) };
    let required = flags.required || file_required.unwrap_or(false);
    let listen = flags.listen.or(file_listen);
    let certificate = match (mode, cert, key) {
        (Some(TlsMode::Off), None, None) if required || listen.is_some() => {
            let message = "TLS is turned off and asked for at the same time: leave out either tls off, or what requires \
                           TLS or has it spoken on a second address";
            return Err(Error::usage(message));
        }
        (Some(TlsMode::Off), None, None) => return Ok(None),
        (None, None, None) if !required && listen.is_none() => return Ok(None),
        (None, None, None) => {
            let message = "TLS is asked for without a certificate: name one with --tls-cert and --tls-key, or have one \
                           made with --tls local";
            return Err(Error::usage(message));
        }
        (Some(TlsMode::Local), None, None) => Certificate::Local { names: file.names },
        (None, Some(certificate), Some(key)) => Certificate::Files { certificate, key },
        (None, ..) => return Err(Error::usage("tls.cert and tls.key go together: one of them is missing")),
        (Some(_), ..) => {
            let message = "a TLS mode and certificate files exclude each other: leave out tls.mode, or tls.cert and tls.key";
            return Err(Error::usage(message));
        }
    };
    Ok(Some(TlsSettings { certificate, required, listen }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn flags(args: &[&str]) -> TlsFlags {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            flags: TlsFlags,
        }
        let args = std::iter::once("tidemill").chain(args.iter().copied());
        <Line as clap::Parser>::try_parse_from(args).unwrap().flags
    }

    fn file(text: &str) -> TlsFile {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn without_a_word_there_is_no_tls() {
        assert_eq!(compose(flags(&[]), file("")).unwrap(), None);
        assert_eq!(compose(flags(&["--tls", "off"]), file("mode = 'local'\nrequired = true")).unwrap(), None);
    }

    #[test]
    fn a_certificate_of_the_flags_replaces_the_one_of_the_file() {
        let local = compose(
            flags(&["--tls", "local"]),
            file("cert = 'a'\nkey = 'b'\nnames = ['c']\nrequired = true"),
        );
        let local = local.unwrap().unwrap();
        assert_eq!(local.certificate, Certificate::Local { names: vec!["c".into()] });
        assert!(local.required);
        let files =
            compose(flags(&["--tls-cert", "x", "--tls-key", "y"]), file("mode = 'local'")).unwrap().unwrap();
        let Certificate::Files { certificate, key } = files.certificate else { panic!() };
        assert_eq!((certificate.as_path(), key.as_path()), (Path::new("x"), Path::new("y")));
        assert!(!files.required);
    }

    #[test]
    fn what_does_not_go_together_is_bad_usage() {
        for (args, text) in [
            (&["--tls-required"][..], ""),
            (&["--tls-listen", "127.0.0.1:0"], ""),
            (&[], "cert = 'a'"),
            (&[], "key = 'a'"),
            (&[], "mode = 'local'\ncert = 'a'\nkey = 'b'"),
            (&["--tls", "off", "--tls-required"], ""),
            (&["--tls", "off", "--tls-listen", "127.0.0.1:0"], ""),
            (&["--tls-required"], "mode = 'off'"),
            (&[], "mode = 'off'\nrequired = true"),
            (&[], "mode = 'off'\nlisten = '127.0.0.1:0'"),
            (&["--tls", "off", "--tls-cert", "x", "--tls-key", "y"], ""),
        ] {
            let error = compose(flags(args), file(text)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{args:?} {text}");
        }
    }
}
