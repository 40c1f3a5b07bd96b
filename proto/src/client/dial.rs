//! Connections to a broker that are made in another way than by TCP from this machine.

use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::Service;

/// A connection: bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send>>;

/// How connections to a broker are made where plain TCP does not reach it: through a tunnel, over a Unix socket, in a
/// simulated network. Called with the authority of the endpoint, `host:port`, whenever a connection is needed, within the
/// connect deadline of 5 s; what it gives is used as the TCP connection would be, so `https://` encrypts it. Cheap to clone.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(String) -> Dialing + Send + Sync>);

impl Dial {
    /// By calling `dial`.
    pub fn new<F, Fut, W>(dial: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<W>> + Send + 'static,
        W: Duplex,
    {
        Self(Arc::new(move |authority| {
            let dialing = dial(authority);
            Box::pin(async move { Ok(Box::new(dialing.await?) as Box<dyn Duplex>) })
        }))
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial(…)")
    }
}

/// Two are equal if one is a clone of the other.
impl PartialEq for Dial {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Dial {}

impl Hash for Dial {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl Service<http::Uri> for Dial {
    type Response = TokioIo<Box<dyn Duplex>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let dialing = (self.0)(uri.authority().map_or_else(String::new, ToString::to_string));
        Box::pin(async move { Ok(TokioIo::new(dialing.await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::client::{Channel, Endpoint};
    use std::sync::Mutex;

    #[tokio::test]
    async fn connections_are_made_by_who_is_asked_to() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let of_dial = Arc::clone(&asked);
        let dial = Dial::new(move |authority| {
            of_dial.lock().unwrap().push(authority);
            std::future::ready(Err::<tokio::net::TcpStream, _>(io::Error::other("the tunnel is closed")))
        });
        let endpoint = Endpoint::new("http://far.away:4567").unwrap().dialed_by(dial.clone());
        assert_eq!(endpoint, endpoint.clone());
        assert_ne!(endpoint, Endpoint::new("http://far.away:4567").unwrap());
        let error = Channel::connect(&endpoint).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("the tunnel is closed"), "{error}");
        assert_eq!(*asked.lock().unwrap(), ["far.away:4567"]);
    }
}
