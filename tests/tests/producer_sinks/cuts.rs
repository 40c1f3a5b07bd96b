//! Exactly once on the native sink: through a proxy that cuts connections, loses acknowledgements and goes silent, to a
//! broker that is killed, every record is stored, once.
//!
//! ```text
//!  producer ─► proxy: passes on, cuts, or swallows what the broker answers ─► broker ──kill -9──► broker
//! ```

use crate::fixture::{Fixture, Sink, place_of, record, resolve};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemill_producer::Producer;
use tidemill_tests::tell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

const STREAM: &str = "once";
const RECORDS: u32 = 12_000;

/// What the proxy does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Passing,
    /// Requests arrive, answers do not.
    LosingAnswers,
    /// Every connection is closed, and new ones too.
    Cutting,
}

struct Proxy {
    addr: SocketAddr,
    mood: Arc<watch::Sender<Mood>>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let mood = Arc::new(watch::Sender::new(Mood::Passing));
        let moods = Arc::clone(&mood);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, moods.subscribe()));
            }
        });
        Ok(Self { addr, mood })
    }
}

async fn cut(mood: &mut watch::Receiver<Mood>) {
    // an error is the end of the test
    let _ = mood.wait_for(|mood| *mood == Mood::Cutting).await;
}

async fn carry(mut client: TcpStream, to: SocketAddr, mood: watch::Receiver<Mood>) {
    let mut cuts = mood.clone();
    let Ok(mut broker) = TcpStream::connect(to).await else { return };
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            () = cut(&mut cuts) => return,
            read = client.read(&mut up) => match read {
                Ok(bytes) if bytes > 0 && broker.write_all(&up[..bytes]).await.is_ok() => {}
                _ => return,
            },
            read = broker.read(&mut down) => match read {
                Ok(bytes) if bytes > 0 => {
                    let lost = *mood.borrow() == Mood::LosingAnswers;
                    if !lost && client.write_all(&down[..bytes]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_stored_once_whatever_is_cut_lost_or_killed() -> Result<()> {
    let mut fixture = Fixture::start(Sink::Native).await?;
    fixture.create(STREAM, 3).await?;
    let proxy = Proxy::start(fixture.broker.as_ref().context("it runs")?.addr()).await?;
    let config = fixture.config_at(&format!("http://{}", proxy.addr))?;
    let config = config.batch_bytes(4096)?.linger(Duration::from_millis(2))?;
    let producer = Producer::new(config).await?;
    producer.open(STREAM).await?;
    let putting = tokio::spawn({
        let producer = producer.clone();
        async move {
            let mut tickets = Vec::new();
            for n in 0..RECORDS {
                let record = record(&format!("key-{}", n % 100), n.to_be_bytes().to_vec())?;
                tickets.push(producer.put(STREAM, record).await?);
                if n % 8 == 0 {
                    sleep(Duration::from_millis(2)).await;
                }
            }
            anyhow::Ok(tickets)
        }
    });
    let mut rng = StdRng::seed_from_u64(11);
    let mut round = 0;
    while !putting.is_finished() {
        sleep(Duration::from_millis(rng.random_range(30..150))).await;
        // what is lost is followed by a cut: so the producer must ask again
        proxy.mood.send_replace(Mood::LosingAnswers);
        sleep(Duration::from_millis(rng.random_range(5..60))).await;
        if round % 6 == 3 {
            fixture.kill().await?;
            fixture.restart().await?;
        }
        proxy.mood.send_replace(Mood::Cutting);
        sleep(Duration::from_millis(rng.random_range(1..30))).await;
        proxy.mood.send_replace(Mood::Passing);
        round += 1;
    }
    let (mut placed, mut duplicates, mut again) = (HashMap::new(), 0, 0);
    for (n, ticket) in (0u32..).zip(putting.await??) {
        let at = resolve(ticket).await??;
        duplicates += u32::from(at.duplicate);
        again += u32::from(at.attempts > 1);
        placed.insert(place_of(&at), n);
    }
    producer.close().await?;
    let found = fixture.read(STREAM).await?;
    let ids: HashSet<_> = found.iter().map(|found| found.record.data().clone()).collect();
    ensure!(ids.len() == RECORDS as usize, "{} of {RECORDS} records are there", ids.len());
    ensure!(found.len() == RECORDS as usize, "{} records are stored twice", found.len() - ids.len());
    for found in &found {
        let n = placed.get(&found.place()).context("it lies where no ticket says")?;
        ensure!(found.record.data()[..] == n.to_be_bytes(), "a ticket tells another place");
    }
    ensure!(
        again > 0 && duplicates > 0,
        "no acknowledgement was lost: {again} sent again, {duplicates} stored before"
    );
    tell(&format!(
        "exactly once: {RECORDS} records, {round} rounds of lost answers, cuts and kills; {again} sent more than once, \
         {duplicates} of them had been stored, none is stored twice"
    ));
    Ok(())
}
