//! What becomes of heads: the facts of an exchange.

use memchr::memchr;
use smol_str::SmolStr;

use super::head::{Head, RequestLine, StatusLine, is_ok};
use crate::l7::{Attribute, Exchange, Part};
use crate::record::Capture;
use crate::reveal::Class;
use crate::text;

/// An answer, while it is read.
pub(in crate::l7) struct Answering {
    pub(in crate::l7) line: StatusLine,
    pub(in crate::l7) part: Part,
    pub(in crate::l7) body_bytes: u64,
    pub(in crate::l7) capture: Capture,
    pub(in crate::l7) anomalies: Vec<&'static str>,
}

impl Answering {
    /// Puts the two together.
    pub(in crate::l7) fn add_to(self, exchange: &mut Exchange) {
        let Self { line, part, body_bytes, capture, anomalies } = self;
        let ok = is_ok(line.status);
        let status = text::number(line.status.into());
        exchange.response = Some(part);
        exchange.status = Some(status.clone());
        exchange.ok = Some(ok);
        if !ok {
            exchange.set(Attribute::ErrorType, status);
            exchange.error = Some(line.reason).filter(|reason| !reason.is_empty());
        }
        exchange.note(capture);
        exchange.set(Attribute::HttpResponseStatusCode, u64::from(line.status));
        exchange.set(Attribute::HttpResponseBodySize, body_bytes);
        if !exchange.attributes.contains(Attribute::NetworkProtocolVersion) {
            exchange.set(Attribute::NetworkProtocolVersion, line.version);
        }
        anomalies.into_iter().for_each(|what| exchange.anomaly(what));
    }
}

/// What a request's head says.
pub(in crate::l7) fn asked(line: RequestLine, head: Head<'_>) -> Box<Exchange> {
    let RequestLine { method, is_usual, target, revealed, version } = line;
    // In the order of their names, in which they are kept.
    let mut exchange = Exchange::empty();
    if method.is_empty() {
        // HTTP/2, and it is not known.
    } else if is_usual {
        exchange.set(Attribute::HttpRequestMethod, method.clone());
    } else {
        exchange.set(Attribute::HttpRequestMethod, SmolStr::new_static("_OTHER"));
        exchange.set(Attribute::HttpRequestMethodOriginal, method.clone());
    }
    if let Some(version) = version {
        exchange.set(Attribute::NetworkProtocolVersion, version);
    }
    if let Some(host) = head.host() {
        let (name, port) = name_and_port(host);
        exchange.set(Attribute::ServerAddress, name);
        if let Some(port) = port {
            exchange.set(Attribute::ServerPort, port);
        }
    }
    let (path, query) = match memchr(b'?', target.as_bytes()).and_then(|mark| target.split_at_checked(mark)) {
        Some((path, query)) => (SmolStr::new(path), query.get(1..)),
        None => (target.clone(), None),
    };
    if path.starts_with('/') {
        exchange.set(Attribute::UrlPath, path);
    }
    if let Some(query) = query {
        exchange.set(Attribute::UrlQuery, query);
    }
    if let Some(agent) = head.user_agent() {
        exchange.set(Attribute::UserAgentOriginal, agent);
    }
    head.anomalies.iter().for_each(|what| exchange.anomaly(what));
    if revealed {
        exchange.revealed.insert(Class::QueryStrings);
    }
    exchange.operation = method;
    exchange.target = Some(target).filter(|target| !target.is_empty());
    exchange
}

/// The two parts of a Host header: `shop.test:8080`, `[::1]:80`.
fn name_and_port(host: SmolStr) -> (SmolStr, Option<u64>) {
    if !host.bytes().any(|byte| matches!(byte, b':' | b'[' | b']')) {
        return (host, None); // as most are
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
        _ => (host.as_str(), None),
    };
    (name.trim_matches(['[', ']']).into(), port)
}
