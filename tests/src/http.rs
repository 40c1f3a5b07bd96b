//! A raw HTTP/1.1 connection: sends exactly the bytes that a test wants sent, well-formed or not, and reads one reply.

use anyhow::{Context, Result, bail, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A reply that is not complete after this long is a failure; longer than any deadline of the broker for a body.
const REPLY_DEADLINE: Duration = Duration::from_secs(45);
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// All of the body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON in the reply: {}", self.text()))
    }
}

/// One connection, used for one request after the other.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    addr: SocketAddr,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(addr).await.with_context(|| format!("cannot connect to {addr}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, addr, unread: Vec::new() })
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(bytes).await?)
    }

    /// Closes the side that sends.
    pub async fn finish_sending(&mut self) -> Result<()> {
        Ok(self.socket.shutdown().await?)
    }

    /// Sends a request with its body, and reads the reply.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply> {
        let mut bytes = self.head(method, path, headers, body.len()).into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes).await?;
        self.reply().await
    }

    /// A GET and its reply.
    pub async fn get(&mut self, path: &str) -> Result<Reply> {
        self.request("GET", path, &[], b"").await
    }

    /// The head of a request that announces `length` bytes of body.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n{more}\r\n", self.addr)
    }

    /// Reads the next reply.
    pub async fn reply(&mut self) -> Result<Reply> {
        timeout(REPLY_DEADLINE, self.read_reply()).await.context("no whole reply in time")?
    }

    /// Whether the broker has closed the connection, within `limit`.
    pub async fn closed_within(&mut self, limit: Duration) -> bool {
        let mut one = [0u8; 1];
        matches!(timeout(limit, self.socket.read(&mut one)).await, Ok(Ok(0) | Err(_)))
    }

    async fn read_reply(&mut self) -> Result<Reply> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(self.unread.len() < HEAD_BYTES_MAX, "the head of the reply does not end");
            self.read_more().await?;
        };
        let head: Vec<u8> = self.unread.drain(..head_end).collect();
        let head = String::from_utf8(head).context("the head of a reply is text")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let Some(status) = status else { bail!("not a reply: {head:?}") };
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = match length {
            Some((_, value)) => value.parse().context("the length of the reply")?,
            None => bail!("a reply without a length: {head}"),
        };
        while self.unread.len() < length {
            self.read_more().await?;
        }
        Ok(Reply { status, headers, body: self.unread.drain(..length).collect() })
    }

    async fn read_more(&mut self) -> Result<()> {
        let read = self.socket.read_buf(&mut self.unread).await?;
        ensure!(read > 0, "the broker closed the connection before its reply was whole");
        Ok(())
    }
}
