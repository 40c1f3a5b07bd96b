//! What sends a request: a program, or a page that a browser shows.

use http::{HeaderMap, HeaderValue, Uri, header};

/// What sent a request. As long as signatures are not verified, any page that a browser on this machine shows could
/// drive the broker; so only pages served from this machine may. Once they are, a page that knows no key can do nothing,
/// and all origins are alike, as with AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// No page: browsers name the origin of each request across origins, and of each that is no plain read.
    Program,
    /// A page that may: served from this machine, or any, if it has to sign what it sends.
    Page,
    /// Any other page, or one that does not say where it is from.
    ForeignPage,
}

impl Sender {
    /// By the head of a request; `verifies` tells whether requests must prove who sends them.
    pub(crate) fn of(headers: &HeaderMap, verifies: bool) -> Self {
        if !headers.contains_key(header::ORIGIN) {
            return Self::Program;
        }
        let local = headers.get_all(header::ORIGIN).iter().all(is_local);
        if local || verifies { Self::Page } else { Self::ForeignPage }
    }
}

fn is_local(origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let page = origin.as_ref().filter(|origin| origin.scheme().is_some());
    page.and_then(Uri::host).is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))
}
