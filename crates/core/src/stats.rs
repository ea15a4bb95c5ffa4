//! Requests summed up: how many, how many failed, how long they took; for
//! each server, and there for each route, statement or key.
//!
//! Memory is bounded: so many series and no more, and in each a histogram of a
//! fixed number of buckets. What finds no series left is summed up as one.

mod histogram;
mod template;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jiff::Timestamp;

use crate::endpoint::{Endpoint, Identity};
use crate::record::{Attribute, Matched, RequestRecord, StatsRecord};
use crate::sql::{self, Dialect};

pub use histogram::Histogram;
pub use template::{statement, template};

/// A group is not longer than this, in characters: its beginning says which.
const GROUP_CHARACTERS_MAX: usize = 500;

/// By what the requests to a server are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum By {
    /// By nothing more: one series for each server.
    #[default]
    Service,
    /// By method and path, with `{id}` in place of numbers and the like.
    Route,
    /// By the text of a statement without its literals, or a command and its
    /// keys, with `{id}` in them.
    Statement,
    /// By the key or name that was asked for, with `{id}` in it.
    Key,
}

impl By {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Service, Self::Route, Self::Statement, Self::Key];

    /// As in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Route => "route",
            Self::Statement => "statement",
            Self::Key => "key",
        }
    }

    /// What tells this request from others of its server. `None`: it has no
    /// such thing, as a Redis command has no route.
    fn group(self, request: &RequestRecord) -> Option<String> {
        let text = |attribute| request.attributes.text(attribute);
        let path = || {
            let target = request.target.as_deref().filter(|target| target.starts_with('/'));
            text(Attribute::UrlPath).or_else(|| target?.split('?').next())
        };
        let query = || text(Attribute::DbQueryText);
        let is_sql = || query().is_some_and(|query| request.target.as_deref() == Some(query));
        let group = match self {
            Self::Service => None,
            Self::Route => {
                let path = path()?;
                if request.operation == path {
                    return Some(path.to_owned()); // gRPC's methods are few
                }
                Some(format!("{} {}", request.operation, template(path)))
            }
            Self::Statement if is_sql() => query().map(|query| match request.revealed.is_empty() {
                true => statement(query),
                false => {
                    statement(&sql::redact(query.as_bytes(), dialect(text(Attribute::DbSystemName))).text)
                }
            }),
            Self::Statement if request.revealed.is_empty() => query().map(template),
            // Values would make each one different.
            Self::Statement => query().map(|_| match &request.target {
                Some(target) => format!("{} {}", request.operation, template(target)),
                None => request.operation.to_string(),
            }),
            Self::Key if is_sql() || path().is_some() => None,
            Self::Key => request.target.as_deref().map(template),
        }?;
        match group.char_indices().nth(GROUP_CHARACTERS_MAX) {
            Some((end, _)) => group.get(..end).map(|beginning| format!("{beginning}…")),
            None => Some(group),
        }
    }
}

/// Of which requests a series is the sum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    service: String,
    protocol: &'static str,
    group: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Series {
    requests: u64,
    errors: u64,
    no_response: u64,
    no_request: u64,
    request_bytes: u64,
    response_bytes: u64,
    latencies_us: Histogram,
}

/// Requests summed up so far.
#[derive(Debug)]
pub struct Stats {
    by: By,
    series_max: usize,
    series: HashMap<Name, Series>,
    /// Of what came when there was no room left.
    other: Series,
}

impl Stats {
    /// Nothing yet. At most `series_max` series are kept apart.
    #[must_use]
    pub fn new(by: By, series_max: usize) -> Self {
        Self { by, series_max, series: HashMap::new(), other: Series::default() }
    }

    /// Adds a request.
    pub fn add(&mut self, request: &RequestRecord) {
        let name = Name {
            service: service(&request.server),
            protocol: request.protocol,
            group: self.by.group(request),
        };
        let has_room = self.series.len() < self.series_max;
        let series = match self.series.get_mut(&name) {
            Some(series) => series,
            None if has_room => self.series.entry(name).or_default(),
            None => &mut self.other,
        };
        series.add(request);
    }

    /// How many [`Stats::records`] there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len() + usize::from(!self.other.is_empty())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sums, those of most requests first, `other` last. `duration_ms` is
    /// the time in which the requests came, for their rate.
    #[must_use]
    pub fn records(&self, time: Timestamp, duration_ms: f64) -> Vec<StatsRecord> {
        let mut sorted: Vec<_> = self.series.iter().collect();
        sorted.sort_by(|(a, of_a), (b, of_b)| {
            let key = |name: &'_ Name| (name.service.clone(), name.protocol, name.group.clone());
            of_b.requests.cmp(&of_a.requests).then_with(|| key(a).cmp(&key(b)))
        });
        let mut records: Vec<_> = sorted
            .into_iter()
            .map(|(name, series)| StatsRecord {
                service: Some(name.service.clone()),
                protocol: Some(name.protocol),
                group: name.group.clone(),
                ..series.record(self.by, time, duration_ms)
            })
            .collect();
        if !self.other.is_empty() {
            records.push(StatsRecord { other: true, ..self.other.record(self.by, time, duration_ms) });
        }
        records
    }
}

impl Series {
    fn is_empty(&self) -> bool {
        self.requests == 0 && self.no_request == 0
    }

    fn add(&mut self, request: &RequestRecord) {
        match request.matched {
            Matched::Yes => self.requests += 1,
            Matched::NoResponse => {
                self.requests += 1;
                self.no_response += 1;
            }
            Matched::NoRequest => self.no_request += 1,
        }
        self.errors += u64::from(request.ok == Some(false));
        self.request_bytes = self.request_bytes.saturating_add(request.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(request.response_bytes);
        if let Some(latency_us) = request.latency_us {
            self.latencies_us.add(latency_us);
        }
    }

    fn record(&self, by: By, time: Timestamp, duration_ms: f64) -> StatsRecord {
        let latencies = &self.latencies_us;
        StatsRecord {
            time,
            by: by.name(),
            service: None,
            protocol: None,
            group: None,
            other: false,
            requests: self.requests,
            rate_per_s: (duration_ms > 0.0).then(|| self.requests as f64 * 1_000.0 / duration_ms),
            errors: self.errors,
            no_response: self.no_response,
            no_request: self.no_request,
            p50_us: latencies.percentile(50),
            p95_us: latencies.percentile(95),
            p99_us: latencies.percentile(99),
            max_us: latencies.max(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        }
    }
}

fn dialect(system: Option<&str>) -> Dialect {
    match system {
        Some("postgresql") => Dialect::POSTGRESQL,
        _ => Dialect::MYSQL,
    }
}

/// `shop/db:3306`: all replicas of a service together.
fn service(end: &Endpoint) -> String {
    let compose = match &end.identity {
        Identity::Container(container) => container.full_service(),
        Identity::Host | Identity::World(_) | Identity::Virtual | Identity::Group => None,
    };
    match (compose, end.port) {
        (Some(service), Some(port)) => format!("{service}:{port}"),
        (Some(service), None) => service,
        (None, _) => end.to_string(),
    }
}
