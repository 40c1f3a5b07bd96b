//! What it costs to wake somebody who sleeps: the part of a latency that no program can save. A record that is acknowledged
//! alone pays for one turn over loopback and one between threads, beside the write itself.

use super::{TURN_TCP, TURN_THREAD};
use crate::figure::Figure;
use crate::window::{Meter, Window};
use anyhow::{Context, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use tokio::time::Instant;

const THERE_BYTES: usize = 1024;
const BACK_BYTES: usize = 64;

/// A request and its answer over loopback, one at a time.
pub(crate) fn over_tcp(window: Window) -> Result<Figure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut asking = TcpStream::connect(listener.local_addr()?)?;
    let (answering, _) = listener.accept()?;
    asking.set_nodelay(true)?;
    answering.set_nodelay(true)?;
    let answerer = std::thread::spawn(move || answer(answering));
    let (there, mut back) = ([1; THERE_BYTES], [0; BACK_BYTES]);
    let mut meter = Meter::new(window);
    while !window.is_over() {
        let began = Instant::now();
        asking.write_all(&there)?;
        asking.read_exact(&mut back)?;
        meter.done(began, 1, THERE_BYTES as u64);
    }
    drop(asking);
    answerer.join().expect("the answering thread does not panic").context("loopback cannot be answered")?;
    Ok(meter.figure(TURN_TCP.workload, TURN_TCP.target))
}

/// Ends with the connection.
fn answer(mut asked: TcpStream) -> std::io::Result<()> {
    let (mut there, back) = ([0; THERE_BYTES], [1; BACK_BYTES]);
    loop {
        match asked.read_exact(&mut there) {
            Ok(()) => asked.write_all(&back)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A word to another thread and one back, one at a time; whoever waits sleeps.
pub(crate) fn between_threads(window: Window) -> Figure {
    let (ask, asked) = sync_channel(1);
    let (answer, answered) = sync_channel(1);
    let other = std::thread::spawn(move || asked.into_iter().try_for_each(|()| answer.send(())));
    let mut meter = Meter::new(window);
    while !window.is_over() {
        let began = Instant::now();
        ask.send(()).expect("the other thread listens for as long as it is asked");
        answered.recv().expect("and answers");
        meter.done(began, 1, 0);
    }
    drop(ask);
    other.join().expect("the other thread does not panic").expect("nobody has stopped listening");
    meter.figure(TURN_THREAD.workload, TURN_THREAD.target)
}
