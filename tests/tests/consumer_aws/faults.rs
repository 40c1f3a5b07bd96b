//! Polling through something that refuses every other read: throttled, with an iterator that has expired, with a fault of the
//! service, with a connection that is cut. Nothing is missed, nothing comes twice.

use crate::world::{APP, Log, On, SOON, STREAM, World, start};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidemill_consumer::aws::Kinesis;
use tidemill_consumer::{MemoryLeases, Worker};
use tidemill_tests::Connection;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of every other read, in turn; nothing: the connection is cut.
const FAULTS: [Option<(u16, &str)>; 4] = [
    Some((400, "ProvisionedThroughputExceededException")),
    Some((400, "ExpiredIteratorException")),
    Some((500, "InternalFailure")),
    None,
];

#[derive(Debug)]
struct Faulty {
    broker: SocketAddr,
    reads: AtomicUsize,
}

impl Faulty {
    /// Begins to listen, for as long as the test runs.
    async fn start(broker: SocketAddr) -> Result<(Arc<Self>, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let faulty = Arc::new(Self { broker, reads: AtomicUsize::new(0) });
        let accepting = Arc::clone(&faulty);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let faulty = Arc::clone(&accepting);
                tokio::spawn(async move {
                    // a client that goes away is none of the test's business
                    let _ = faulty.serve(stream).await;
                });
            }
        });
        Ok((faulty, url))
    }

    async fn serve(&self, stream: TcpStream) -> Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut target, mut kind, mut length) = (String::new(), String::new(), 0);
            loop {
                let mut line = String::new();
                ensure!(stream.read_line(&mut line).await? > 0, "the client has gone");
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                if let Some((name, value)) = line.split_once(": ") {
                    match name.to_ascii_lowercase().as_str() {
                        "x-amz-target" => value.clone_into(&mut target),
                        "content-type" => value.clone_into(&mut kind),
                        "content-length" => length = value.parse()?,
                        _ => {}
                    }
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let (status, reply) = match self.fault(&target) {
                Some(Some((status, name))) => {
                    (status, format!("{{\"__type\":\"{name}\",\"message\":\"told to\"}}").into_bytes())
                }
                Some(None) => return Ok(()),
                None => {
                    let headers = [("x-amz-target", target.as_str()), ("content-type", kind.as_str())];
                    let mut broker = Connection::open(self.broker).await?;
                    let reply = broker.request("POST", "/", &headers, &body).await?;
                    (reply.status, reply.body.to_vec())
                }
            };
            let head = format!(
                "HTTP/1.1 {status} Told\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
                reply.len()
            );
            stream.get_mut().write_all(&[head.as_bytes(), &reply].concat()).await?;
        }
    }

    fn fault(&self, target: &str) -> Option<Option<(u16, &'static str)>> {
        if !target.ends_with(".GetRecords") {
            return None;
        }
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        read.is_multiple_of(2).then(|| FAULTS[(read / 2) % FAULTS.len()])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_are_refused_in_all_ways_miss_nothing_and_bring_nothing_twice() -> Result<()> {
    let world = World::start(On::Memory, 1).await?.context("nothing else is needed")?;
    let (faulty, url) = Faulty::start(world.broker.addr()).await?;
    let kinesis = Kinesis::at(&url).credentials("test", "test");
    let kinesis = kinesis.idle_time(Duration::from_millis(200)).records_max(10);
    let log = Log::default();
    let builder = Worker::kinesis(kinesis, APP, STREAM).leases_in_memory(&MemoryLeases::new());
    let one = start(builder, "one", &log)?;
    let mut written = Vec::new();
    for round in 0..6u32 {
        written.extend(world.put(round * 25..round * 25 + 25).await?);
        log.all_of(&written).await?;
    }
    let twice: Vec<_> = log.counts().into_iter().filter(|(_, count)| *count > 1).collect();
    ensure!(twice.is_empty(), "delivered again: {twice:?}");
    log.assert_ordered();
    let reads = faulty.reads.load(Ordering::Relaxed);
    ensure!(reads >= 2 * FAULTS.len(), "every fault was met: {reads} reads");
    one.stop(SOON).await?;
    Ok(())
}
