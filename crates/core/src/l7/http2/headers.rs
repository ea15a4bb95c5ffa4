//! What a block of header fields says. It is redacted where it becomes part of an
//! exchange.

use super::grpc;
use super::hpack::{Field, Name};
use crate::l7::http::{Head, TARGET_BYTES_MAX, asked, cut, request_line};
use crate::l7::{Exchange, redact};
use crate::reveal::Reveal;

/// Longer than what anybody sends; references can make more out of few bytes.
const LIST_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) method: Option<String>,
    path: Option<String>,
    authority: Option<String>,
    host: Option<String>,
    user_agent: Option<String>,
    scheme: bool,
    pub(super) status: Option<u16>,
    pub(super) is_call: Option<bool>,
    pub(super) grpc_status: Option<u32>,
    pub(super) grpc_message: Option<String>,
    /// There were fields of which nothing is known.
    pub(super) unseen: bool,
    pub(super) malformed: bool,
    pub(super) too_long: bool,
}

impl Headers {
    pub(super) fn take(&mut self, field: Field<'_>) {
        // What is cut off may say that what stands before it is a password (`@`).
        let hides_end = field.value.len() > TARGET_BYTES_MAX && field.value.first() != Some(&b'/');
        let text = || match field.sensitive || hides_end {
            true => redact::REDACTED.to_owned(),
            false => cut(&String::from_utf8_lossy(field.value), TARGET_BYTES_MAX).to_owned(),
        };
        let number = || std::str::from_utf8(field.value).ok().and_then(|text| text.parse::<u32>().ok());
        match field.name {
            Name::Method => drop(self.method.get_or_insert_with(text)),
            Name::Path => drop(self.path.get_or_insert_with(text)),
            Name::Authority => drop(self.authority.get_or_insert_with(text)),
            Name::Host => drop(self.host.get_or_insert_with(text)),
            Name::UserAgent => drop(self.user_agent.get_or_insert_with(text)),
            Name::Scheme => self.scheme = true,
            Name::Status => {
                let status = number().and_then(|status| status.try_into().ok());
                self.malformed |= status.is_none();
                self.status = self.status.or(status);
            }
            Name::ContentType => self.is_call = self.is_call.or(Some(grpc::is_call(field.value))),
            Name::GrpcStatus => self.grpc_status = self.grpc_status.or_else(number),
            Name::GrpcMessage => drop(self.grpc_message.get_or_insert_with(text)),
            Name::Other => {}
            Name::Unseen => self.unseen = true,
        }
    }

    /// How long they are without references.
    pub(super) fn written_out(&mut self, list_bytes: usize) {
        self.too_long |= list_bytes > LIST_BYTES_MAX;
    }

    /// Whether it says what only a request says.
    pub(super) fn is_request(&self) -> bool {
        self.status.is_none()
            && (self.method.is_some() || self.path.is_some() || self.authority.is_some() || self.scheme)
    }

    /// What a request's head says.
    pub(super) fn asked(&self, reveal: Reveal) -> Exchange {
        let method = self.method.as_deref().unwrap_or_default();
        let named = if method == "CONNECT" { &self.authority } else { &None };
        let target = self.path.as_ref().or(named.as_ref()).map_or("", String::as_str);
        let line = request_line(method.as_bytes(), target, Some("2".into()), reveal);
        let mut head = Head::default();
        if let Some(host) = self.authority.as_ref().or(self.host.as_ref()) {
            head.header(b"host", host.as_bytes());
        }
        if let (Some(authority), Some(host)) = (&self.authority, &self.host)
            && authority != host
        {
            head.anomaly("several hosts");
        }
        if let Some(agent) = &self.user_agent {
            head.header(b"user-agent", agent.as_bytes());
        }
        let mut exchange = *asked(line, head);
        if self.is_call == Some(true) {
            grpc::name_call(&mut exchange);
        }
        exchange
    }

    /// What is wrong with it.
    pub(super) fn anomalies(&self) -> impl Iterator<Item = &'static str> {
        let malformed = self.malformed.then_some("malformed head");
        malformed.into_iter().chain(self.too_long.then_some("header list too long"))
    }
}
