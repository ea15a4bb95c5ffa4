//! What becomes of heads: the facts of an exchange.

use smol_str::ToSmolStr;

use super::head::{self, Head, RequestLine, StatusLine};
use crate::l7::{Attribute, Exchange, Part};
use crate::record::Capture;
use crate::reveal::Class;

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
        let ok = line.status < 400;
        exchange.response = Some(part);
        exchange.status = Some(line.status.to_smolstr());
        exchange.ok = Some(ok);
        if !ok {
            exchange.set(Attribute::ErrorType, line.status.to_smolstr());
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
pub(in crate::l7) fn asked(line: &RequestLine, head: &Head) -> Exchange {
    let mut exchange = Exchange {
        operation: line.method.clone(),
        target: Some(line.target.clone()).filter(|target| !target.is_empty()),
        ..Exchange::default()
    };
    if line.revealed {
        exchange.revealed.insert(Class::QueryStrings);
    }
    if line.method.is_empty() {
        // HTTP/2, and it is not known.
    } else if head::METHODS.contains(&line.method.as_str()) {
        exchange.set(Attribute::HttpRequestMethod, line.method.clone());
    } else {
        exchange.set(Attribute::HttpRequestMethod, "_OTHER");
        exchange.set(Attribute::HttpRequestMethodOriginal, line.method.clone());
    }
    if let Some(version) = &line.version {
        exchange.set(Attribute::NetworkProtocolVersion, version.clone());
    }
    let (path, query) = match line.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (line.target.as_str(), None),
    };
    if path.starts_with('/') {
        exchange.set(Attribute::UrlPath, path);
    }
    if let Some(query) = query {
        exchange.set(Attribute::UrlQuery, query);
    }
    if let Some(host) = &head.host {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
                (name, port.parse::<u64>().ok())
            }
            _ => (host.as_str(), None),
        };
        exchange.set(Attribute::ServerAddress, name.trim_matches(['[', ']']));
        if let Some(port) = port {
            exchange.set(Attribute::ServerPort, port);
        }
    }
    if let Some(agent) = &head.user_agent {
        exchange.set(Attribute::UserAgentOriginal, agent.clone());
    }
    head.anomalies.iter().for_each(|what| exchange.anomaly(what));
    exchange
}
