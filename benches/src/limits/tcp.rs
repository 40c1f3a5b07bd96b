//! The limit of loopback: one connection, one thread that writes and one that reads.

use super::TCP;
use super::raw_disk::noise;
use crate::figure::Figure;
use crate::window::{Meter, Window};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const PIECE_BYTES: usize = 256 << 10;

pub(crate) fn loopback(window: Window) -> Result<Figure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let (receiver, _) = listener.accept()?;
    let meter = std::thread::scope(|scope| {
        let sending = scope.spawn(move || send(sender, window));
        let meter = receive(receiver, window);
        sending.join().expect("the sender does not panic").context("loopback cannot be sent to")?;
        meter
    })?;
    Ok(meter.figure(TCP.workload, TCP.target))
}

/// Its end closes the connection.
fn send(mut into: TcpStream, window: Window) -> std::io::Result<()> {
    let piece = noise(PIECE_BYTES);
    while !window.is_over() {
        into.write_all(&piece)?;
    }
    Ok(())
}

fn receive(mut from: TcpStream, window: Window) -> Result<Meter> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut meter = Meter::new(window);
    loop {
        let began = Instant::now();
        match from.read(&mut piece).context("loopback cannot be read from")? {
            0 => return Ok(meter),
            bytes => meter.done(began, 1, bytes as u64),
        }
    }
}
