//! What runs on the machines of a simulation: the broker, producers, workers, and an operator who changes the shards.

use super::plan::{Producing, Working};
use super::world::{Answer, Asked, Id, Put, Session, SimulatedClock, World};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tidemill::server::Wire;
use tidemill_consumer::{Batch, Checkpointer, ProcessError, RecordProcessor, Start, Worker};
use tidemill_engine::simulation::{FaultDisk, MemoryStore};
use tidemill_engine::{Engine, ErrorKind, Settings, StreamSpec};
use tidemill_producer::{Config, Dial, Endpoint, Producer};
use tidemill_proto::Outcome;
use tidemill_proto::client::{Channel, Control};
use tidemill_types::{AccountId, HashKey, PartitionKey, Record, StreamKey, StreamName};
use tokio::sync::Notify;
use tokio::time::sleep;

pub(crate) const BROKER: &str = "broker";
pub(crate) const STREAM: &str = "events";
const PORT: u16 = 4567;
const ENDPOINT: &str = "http://broker:4567";
/// Before a client tries again what failed at its start.
const PAUSE: Duration = Duration::from_millis(300);

pub(crate) fn stream_key() -> StreamKey {
    let account = AccountId::new("000000000000").expect("twelve digits");
    StreamKey::new(account, StreamName::new(STREAM).expect("a valid name"))
}

fn dial() -> Dial {
    Dial::new(|authority: String| async move { turmoil::net::TcpStream::connect(authority).await })
}

/// The broker's machine: what survives its process, and the process that runs.
pub(crate) struct BrokerMachine {
    pub disk: FaultDisk,
    pub metadata: MemoryStore,
    pub clock: SimulatedClock,
    pub settings: Settings,
    pub shards: u32,
    pub engine: Option<Engine>,
    /// Asks the process to stop in order.
    pub stop: Arc<Notify>,
}

/// The broker's process, until it is killed or told to stop.
pub(crate) async fn broker(machine: Rc<RefCell<BrokerMachine>>, world: World) -> turmoil::Result {
    let (engine, stop) = match open(&machine).await {
        Ok(opened) => opened,
        Err(error) => {
            world.note(format_args!("broker: does not start: {error}"));
            return Ok(());
        }
    };
    let wire = Wire::new(&engine).await?;
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    machine.borrow_mut().engine = Some(engine.clone());
    world.note(format_args!("broker: serves"));
    loop {
        tokio::select! {
            biased;
            () = stop.notified() => break,
            accepted = listener.accept() => {
                let (connection, wire) = (accepted?.0, wire.clone());
                tokio::spawn(async move { wire.serve(connection).await });
            }
        }
    }
    wire.stop();
    sleep(Duration::from_millis(50)).await;
    let closed = engine.close().await;
    machine.borrow_mut().engine = None;
    world.note(format_args!("broker: stopped, {closed:?}"));
    Ok(())
}

async fn open(machine: &RefCell<BrokerMachine>) -> tidemill_engine::Result<(Engine, Arc<Notify>)> {
    let (disk, metadata, settings, clock, shards, stop) = {
        let mut machine = machine.borrow_mut();
        machine.stop = Arc::default();
        let (disk, metadata) = (machine.disk.clone(), machine.metadata.clone());
        let clock = Arc::new(machine.clock.clone());
        (disk, metadata, machine.settings.clone(), clock, machine.shards, Arc::clone(&machine.stop))
    };
    let engine = Engine::simulated(disk, metadata, settings, clock).await?;
    let spec = StreamSpec { shard_count: shards, ..StreamSpec::default() };
    match engine.create_stream(&stream_key(), spec).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok((engine, stop))
}

/// A producer that puts its records; what an earlier life of it has put already, it does not put again.
pub(crate) async fn producer(
    index: u8,
    life: u8,
    plan: Producing,
    seed: u64,
    world: World,
) -> turmoil::Result {
    let mut rng = StdRng::seed_from_u64(seed ^ u64::from(life) << 32);
    let config = Config::new(ENDPOINT)?
        .dialed_by(dial())?
        .linger(Duration::from_millis(plan.linger_ms))?
        .record_deadline(Duration::from_secs(20))?;
    let config = if plan.ordered { config.ordered() } else { config };
    let producer = loop {
        match Producer::new(config.clone()).await {
            Ok(producer) => break producer,
            Err(_) => sleep(PAUSE).await,
        }
    };
    let begun = world.facts().puts.keys().filter(|id| id.producer == index).count() as u32;
    for nth in begun..plan.records {
        let id = Id { producer: index, life, nth };
        let key = format!("{index}-{}", rng.random_range(0..plan.keys));
        let record = Record::new(PartitionKey::new(&key)?, payload(id, &plan, &mut rng))?;
        put(&producer, id, key, record, &world).await;
        sleep(Duration::from_millis(rng.random_range(0..=2 * plan.pause_ms))).await;
    }
    producer.close().await.ok(); // failures are told by the tickets too
    world.facts().producers_done.insert(index);
    world.note(format_args!("producer {index}: done"));
    Ok(())
}

async fn put(producer: &Producer, id: Id, key: String, record: Record, world: &World) {
    {
        let mut facts = world.facts();
        let put_at = facts.event();
        facts.puts.insert(id, Put { key, put_at, answered: None });
    }
    let ticket = match producer.put(STREAM, record).await {
        Ok(ticket) => ticket,
        Err(error) => return answered(id, Err(error.kind()), world),
    };
    let world = world.clone();
    tokio::spawn(async move {
        let placed = ticket.await.map_err(|error| error.kind());
        answered(id, placed, &world);
    });
}

fn answered(id: Id, placed: Result<tidemill_producer::Placed, tidemill_producer::ErrorKind>, world: &World) {
    let answer = match placed {
        Ok(placed) => Answer::Stored { shard: placed.shard, number: placed.number },
        Err(kind) if kind.outcome() == Outcome::NotDone => Answer::NotStored(kind),
        Err(kind) => Answer::Unknown(kind),
    };
    {
        let mut facts = world.facts();
        let at = facts.event();
        facts.puts.get_mut(&id).expect("it was put").answered = Some((at, answer));
    }
    world.note(format_args!("{id}: {answer:?}"));
}

/// Who it is, and bytes that follow from that.
fn payload(id: Id, plan: &Producing, rng: &mut StdRng) -> Vec<u8> {
    let bytes = if rng.random_range(0..8) == 0 { plan.bytes_max } else { plan.bytes_max / 10 };
    let mut payload = format!("{id}:").into_bytes();
    payload.extend((0..rng.random_range(0..=bytes) as u64).map(|at| (at * 31 + u64::from(id.nth)) as u8));
    payload
}

/// Whose payload it is, if it is whole.
pub(crate) fn read_payload(payload: &[u8]) -> Option<Id> {
    let colon = payload.iter().position(|byte| *byte == b':')?;
    let mut numbers = std::str::from_utf8(&payload[..colon]).ok()?.split('.');
    let id = Id {
        producer: numbers.next()?.parse().ok()?,
        life: numbers.next()?.parse().ok()?,
        nth: numbers.next()?.parse().ok()?,
    };
    let whole = payload[colon + 1..]
        .iter()
        .zip(0u64..)
        .all(|(byte, at)| *byte == (at * 31 + u64::from(id.nth)) as u8);
    whole.then_some(id)
}

/// A worker that processes whatever shards it gets, and is started again when it ends.
pub(crate) async fn worker(
    index: u8,
    life: u64,
    lease: Duration,
    plan: Working,
    seed: u64,
    world: World,
) -> turmoil::Result {
    let id = format!("w{index}");
    loop {
        let worker = Worker::builder(ENDPOINT, "app", STREAM)
            .dialed_by(dial())
            .worker_id(&id)
            .lease_duration(lease)
            .handoff_deadline(2 * lease)
            .checkpointing(tidemill_consumer::Checkpointing::Manual)
            .build()?;
        let (of_probe, plan, name) = (world.clone(), plan.clone(), id.clone());
        let mut made = 0;
        let factory = move |_: &tidemill_consumer::ShardRef| {
            made += 1;
            let rng = StdRng::seed_from_u64(seed ^ life << 32 ^ made << 16);
            Probe { worker: name.clone(), session: None, rng, plan: plan.clone(), world: of_probe.clone() }
        };
        let ended = worker.start(factory).join().await;
        world.note(format_args!("{id}: ended, {:?}", ended.map_err(|error| error.kind())));
        sleep(PAUSE).await;
    }
}

/// Processes the records of one shard and notes what it is told.
struct Probe {
    worker: String,
    session: Option<usize>,
    rng: StdRng,
    plan: Working,
    world: World,
}

impl RecordProcessor for Probe {
    async fn initialize(&mut self, start: &Start) -> Result<(), ProcessError> {
        let (shard, epoch, from) = (start.shard.shard(), start.epoch.get(), start.from);
        {
            let mut facts = self.world.facts();
            let began_at = facts.event();
            let (worker, processed, checkpoints) = (self.worker.clone(), Vec::new(), Vec::new());
            facts.sessions.push(Session { shard, worker, epoch, began_at, from, processed, checkpoints });
            self.session = Some(facts.sessions.len() - 1);
        }
        self.world.note(format_args!("{}: {shard} begins under {epoch} behind {from:?}", self.worker));
        Ok(())
    }

    async fn process(&mut self, batch: Batch, checkpointer: &Checkpointer) -> Result<(), ProcessError> {
        sleep(Duration::from_millis(self.rng.random_range(0..=self.plan.batch_ms))).await;
        if self.rng.random_range(0..1000) < self.plan.fails {
            return Err(ProcessError::new("told to fail"));
        }
        let last = batch.last_sequence_number();
        let session = self.session.expect("it was initialized");
        let nth = {
            let mut facts = self.world.facts();
            for record in batch.records() {
                let at = facts.event();
                facts.sessions[session].processed.push((record.sequence_number(), at));
            }
            facts.sessions[session].checkpoints.push(Asked { number: last, is_kept: false });
            facts.sessions[session].checkpoints.len() - 1
        };
        self.world.note(format_args!(
            "{}: {} records of {} up to {last}",
            self.worker,
            batch.len(),
            batch.shard()
        ));
        match checkpointer.checkpoint().await {
            Ok(()) => self.world.facts().sessions[session].checkpoints[nth].is_kept = true,
            // somebody else has moved the checkpoint
            Err(error) if error.kind() == tidemill_consumer::ErrorKind::Invalid => {
                self.world.facts().wrong.push(format!("{}: {error}", batch.shard()));
            }
            Err(_) => {}
        }
        Ok(())
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        self.world.note(format_args!("{}: shard ended", self.worker));
        Ok(())
    }

    async fn lease_lost(&mut self) {
        self.world.note(format_args!("{}: lease lost", self.worker));
    }
}

/// Splits and merges at the times planned, and does not mind what becomes of it.
pub(crate) async fn operator(reshards: Vec<u64>, seed: u64, world: World) -> turmoil::Result {
    let mut rng = StdRng::seed_from_u64(seed);
    let endpoint = Endpoint::new(ENDPOINT)?.dialed_by(dial());
    let control = Control::new(Channel::lazy(&endpoint), seed);
    let stream = StreamName::new(STREAM)?;
    for at in reshards {
        sleep(Duration::from_millis(at.saturating_sub(world.elapsed_ms()))).await;
        let Ok(list) = control.list_shards(&stream).await else { continue };
        let open = list.map.open();
        let shard = &open[rng.random_range(0..open.len())];
        let done = match rng.random_range(0..3) {
            0 => control
                .scale_stream(&stream, rng.random_range(1..=4))
                .await
                .map(|scaled| format!("{scaled:?}")),
            1 if open.len() > 1 => {
                let lower = rng.random_range(0..open.len() - 1);
                let merged = control.merge_shards(&stream, open[lower].id, open[lower + 1].id).await;
                merged.map(|()| format!("merged {} and {}", open[lower].id, open[lower + 1].id))
            }
            _ => {
                let split = control.split_shard(&stream, shard.id, middle(shard)).await;
                split.map(|()| format!("split {}", shard.id))
            }
        };
        world.note(format_args!("operator: {:?}", done.map_err(|error| error.kind())));
    }
    Ok(())
}

fn middle(shard: &tidemill_types::Shard) -> HashKey {
    let (start, end) = (shard.range.start().get(), shard.range.end().get());
    HashKey::new(start + (end - start) / 2 + 1)
}
