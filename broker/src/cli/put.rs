//! `tidemill put`: lines of stdin become records, through the producer library.
//!
//! A line that cannot become a record, or whose record is not acknowledged, is a failure; the others go on. What it does
//! not do: retry beyond what the library does.

use super::lines::{Line, Lines};
use super::signals::StopSignals;
use super::{Connection, output};
use crate::error::{Error, Result};
use serde_json::Value;
use tidemill_producer::{Config, ErrorKind, PartitionKey, Producer, Record, Ticket};
use tidemill_types::StreamName;
use tidemill_types::limits::RECORD_DATA_BYTES_MAX;
use tokio::io::BufReader;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Records whose acknowledgement is awaited at a time; the library bounds their bytes.
const TICKETS_MAX: usize = 65_536;
/// Failures that are told one by one; of more only the number.
const FAILURES_TOLD: u64 = 10;
const INPUT_BUFFER_BYTES: usize = 256 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The stream to put into
    stream: StreamName,
    #[command(flatten)]
    keying: KeyArgs,
    /// Print the summary as JSON to stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Where partition keys come from; without either, each record gets a random one.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct KeyArgs {
    /// The partition key of all records
    #[arg(long, value_name = "KEY")]
    key: Option<PartitionKey>,
    /// Lines are JSON objects, and this field is the partition key
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
}

/// Where partition keys come from.
enum Keying {
    Fixed(PartitionKey),
    Field(String),
    Random,
}

#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    /// Acknowledged.
    records: u64,
    /// Of their data.
    bytes: u64,
    failures: u64,
    seconds: f64,
}

impl Summary {
    fn failed(&mut self, line: u64, why: &str) {
        self.failures += 1;
        if self.failures <= FAILURES_TOLD {
            eprintln!("tidemill: line {line}: {why}");
        } else if self.failures == FAILURES_TOLD + 1 {
            eprintln!("tidemill: further failures are only counted");
        }
    }
}

/// What became of a line, on its way to the summary.
enum Sent {
    Ticket(Ticket, u64),
    Failed(String),
}

pub(super) async fn run(args: Args) -> Result<()> {
    let started = Instant::now();
    let keying = match (args.keying.key, args.keying.key_field) {
        (Some(key), _) => Keying::Fixed(key),
        (None, Some(field)) => Keying::Field(field),
        (None, None) => Keying::Random,
    };
    let mut config = Config::new(&args.connection.endpoint.to_string()).map_err(failed)?;
    if let Some(pem) = args.connection.authorities()? {
        config = config.ca_certificate(pem).map_err(failed)?;
    }
    if let Some((id, secret)) = args.connection.credentials() {
        config = config.credentials(id, secret).map_err(failed)?;
    }
    let producer = Producer::new(config).await.map_err(failed)?;
    // a stream that is not there is told before any line is read
    producer.open(args.stream.as_str()).await.map_err(failed)?;
    let (sent, settling) = mpsc::channel(TICKETS_MAX);
    let summary = tokio::spawn(settle(settling));
    let read = put_lines(&producer, &args.stream, &keying, &sent).await;
    drop(sent);
    // a failed record is told by its ticket
    let _ = producer.close().await;
    let mut summary = summary.await.map_err(|e| Error::because("counting the answers broke off", e))?;
    summary.seconds = started.elapsed().as_secs_f64();
    if args.json {
        output::json(&summary)?;
    } else {
        let Summary { records, bytes, failures, seconds } = &summary;
        eprintln!("put {records} records, {bytes} bytes, {failures} failures in {seconds:.2} s");
    }
    read?;
    match summary.failures {
        0 => Ok(()),
        failures => Err(Error::failed(format!("{failures} lines are not acknowledged"))),
    }
}

fn failed(error: tidemill_producer::Error) -> Error {
    Error::because("cannot put", error)
}

/// Puts until the lines end, a signal asks to stop, or the stream is gone.
async fn put_lines(
    producer: &Producer,
    stream: &StreamName,
    keying: &Keying,
    sent: &mpsc::Sender<(u64, Sent)>,
) -> Result<()> {
    let mut signals = StopSignals::catch()?;
    let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, tokio::io::stdin());
    let mut lines = Lines::new(input, RECORD_DATA_BYTES_MAX);
    for number in 1.. {
        let line = tokio::select! {
            line = lines.next() => line.map_err(|e| Error::because("cannot read stdin", e))?,
            () = signals.any() => None,
        };
        let Some(line) = line else {
            break;
        };
        let (outcome, go_on) = match keying.record(line) {
            Err(why) => (Sent::Failed(why), true),
            Ok(record) => {
                let bytes = record.data().len() as u64;
                match producer.put(stream.as_str(), record).await {
                    Ok(ticket) => (Sent::Ticket(ticket, bytes), true),
                    Err(error) => (Sent::Failed(error.to_string()), error.kind() != ErrorKind::NotFound),
                }
            }
        };
        if sent.send((number, outcome)).await.is_err() || !go_on {
            break;
        }
    }
    Ok(())
}

/// Awaits the answers in the order of the lines.
async fn settle(mut sent: mpsc::Receiver<(u64, Sent)>) -> Summary {
    let mut summary = Summary::default();
    while let Some((line, outcome)) = sent.recv().await {
        match outcome {
            Sent::Failed(why) => summary.failed(line, &why),
            Sent::Ticket(ticket, bytes) => match ticket.await {
                Ok(_) => {
                    summary.records += 1;
                    summary.bytes += bytes;
                }
                Err(error) => summary.failed(line, &error.to_string()),
            },
        }
    }
    summary
}

impl Keying {
    fn record(&self, line: Line) -> std::result::Result<Record, String> {
        let Line::Whole(data) = line else {
            return Err(format!("longer than {RECORD_DATA_BYTES_MAX} bytes, the most a record holds"));
        };
        let key = match self {
            Self::Fixed(key) => key.clone(),
            Self::Random => {
                PartitionKey::new(&format!("{:016x}", rand::random::<u64>())).map_err(|e| e.to_string())?
            }
            Self::Field(field) => PartitionKey::new(&key_of(&data, field)?).map_err(|e| e.to_string())?,
        };
        Record::new(key, data).map_err(|e| e.to_string())
    }
}

/// The field's text; of a number or truth value, as JSON writes it.
fn key_of(line: &[u8], field: &str) -> std::result::Result<String, String> {
    let value: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON: {e}"))?;
    match value.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(_) => Err(format!("the field {field:?} is neither text nor a number")),
        None => Err(format!("there is no field {field:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_where_they_are_asked_for() {
        let line = || Line::Whole(br#"{"id":7,"name":"x","deep":{}}"#.to_vec());
        let field = |name: &str| Keying::Field(name.to_owned()).record(line()).map(|r| r.key().to_string());
        assert_eq!(field("id").unwrap(), "7");
        assert_eq!(field("name").unwrap(), "x");
        assert!(field("deep").unwrap_err().contains("neither"));
        assert!(field("none").unwrap_err().contains("no field"));
        assert!(Keying::Field("id".to_owned()).record(Line::Whole(b"\xff".to_vec())).is_err());
        let random = |data: &[u8]| Keying::Random.record(Line::Whole(data.to_vec())).unwrap();
        assert_ne!(random(b"a").key(), random(b"a").key());
        assert_eq!(random(b"\xff\x00").data().as_ref(), b"\xff\x00");
        assert!(Keying::Random.record(Line::TooLong).is_err());
    }
}
