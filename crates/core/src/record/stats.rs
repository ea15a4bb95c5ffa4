//! Requests summed up.

use jiff::Timestamp;
use serde::Serialize;

use super::nanoseconds;

/// The sum of requests of one kind to one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatsRecord {
    /// When the sum was made.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// By what requests to a server are told apart.
    pub by: &'static str,
    /// Who was asked: service or name, and port. Absent in the sum of the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the application protocol. Absent in the sum of the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// The route, statement or key that these requests have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether this is the sum of the rest: of what found no room of its own.
    pub other: bool,
    /// Requests, answered or not.
    pub requests: u64,
    /// Of them, in a second. Absent if they took no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// Answers that say that it failed.
    pub errors: u64,
    /// Of the requests, those without an answer.
    pub no_response: u64,
    /// Answers whose request was not seen, or is not known.
    pub no_request: u64,
    /// Half of the answers began within this time after their request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<u64>,
    /// 95 % of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_us: Option<u64>,
    /// 99 % of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    /// All of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_us: Option<u64>,
    /// Of all requests together, as sent.
    pub request_bytes: u64,
    /// Of all answers together, as sent.
    pub response_bytes: u64,
}
