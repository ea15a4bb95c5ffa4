//! Requests, each with its answer.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use smol_str::SmolStr;

use super::{Attributes, Translated, nanoseconds};
use crate::endpoint::Endpoint;
use crate::flow::ConnectionId;

/// What was asked of a server, and what it answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestRecord {
    /// First byte of the request (of the answer, if there is no request).
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// The connection's id, as in its flow records.
    pub flow: ConnectionId,
    /// Who asked.
    pub client: Endpoint,
    /// Who was asked, as the client sees it.
    pub server: Endpoint,
    /// The name of the rule that redirected the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Both ends as the server sees them, if that is not what the client sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translated: Option<Box<Translated>>,
    /// Name of the application protocol.
    pub protocol: &'static str,
    /// What was asked for: the method, the command, the kind of statement.
    pub operation: SmolStr,
    /// Of what: path, statement, key, name asked for. Redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<SmolStr>,
    /// As the protocol says it: `200`, `NOERROR`, an error number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<SmolStr>,
    /// Whether the server did what was asked. Absent without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// What the server said was wrong. Redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SmolStr>,
    /// Of the whole request as sent, its head included.
    pub request_bytes: u64,
    /// Of the whole answer as sent.
    pub response_bytes: u64,
    /// Last byte of the request to the first of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// First byte of the request to the last of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_us: Option<u64>,
    /// Whether request and answer were found together.
    pub matched: Matched,
    /// How much of it was seen.
    pub capture: Capture,
    /// More, by OpenTelemetry's names.
    pub attributes: Attributes,
    /// Which classes of what is left out by default are shown in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revealed: Vec<&'static str>,
}

/// Whether a request and its answer were found together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Matched {
    /// Both are here.
    Yes,
    /// No answer was seen, or it cannot be told which one it is.
    NoResponse,
    /// An answer, and it cannot be told what was asked.
    NoRequest,
}

impl Matched {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Yes, Self::NoResponse, Self::NoRequest];

    /// As in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::NoResponse => "no_response",
            Self::NoRequest => "no_request",
        }
    }
}

/// How much of a request and its answer was seen. Of several, the last one here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Everything that mattered.
    #[default]
    Complete,
    /// The connection was joined after its beginning, and what came before may matter.
    Midstream,
    /// Packets were captured only in part, or a message was too long to keep. Sizes are exact where
    /// lengths were announced in what was seen.
    Truncated,
    /// Packets are missing.
    Gap,
}

impl Capture {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Complete, Self::Midstream, Self::Truncated, Self::Gap];

    /// As in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Midstream => "midstream",
            Self::Truncated => "truncated",
            Self::Gap => "gap",
        }
    }
}
