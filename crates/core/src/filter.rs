//! Which records the user wants: `--container`, `--port`, `--not` and the rest,
//! as one [`Filter`].

mod criterion;
mod error;
mod pattern;
mod selector;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

use crate::endpoint::{Container, Endpoint, Identity};
use crate::flow::Protocol;
use crate::record::{Record, RequestRecord, State, Translated, Verdict};

pub use criterion::{Criterion, IpVersion};
pub use error::FilterError;
pub use pattern::NamePattern;
pub use selector::Selector;
pub(crate) use selector::parse_addresses;
pub use status::StatusPattern;
/// All criteria of a command. Without any, every record matches.
///
/// A flag that is given several times asks for any of its values; different
/// flags must all be satisfied; of the negated criteria none may match.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One group per flag.
    wanted: Vec<Vec<Criterion>>,
    refused: Vec<Criterion>,
}

impl Filter {
    /// Adds a criterion; `negated` if `--not` stood before it.
    pub fn add(&mut self, criterion: Criterion, negated: bool) {
        if negated {
            self.refused.push(criterion);
            return;
        }
        let group =
            self.wanted.iter_mut().find(|group| group.iter().any(|one| one.is_of_same_flag(&criterion)));
        match group {
            Some(group) => group.push(criterion),
            None => self.wanted.push(vec![criterion]),
        }
    }

    /// Whether the user wants this record. Sums are always wanted.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let Some(facts) = Facts::of(record) else {
            return true;
        };
        self.wanted.iter().all(|group| group.iter().any(|criterion| criterion.matches(&facts)))
            && !self.refused.iter().any(|criterion| criterion.matches(&facts))
    }

    /// The containers and services that were asked for by an exact name (no
    /// glob, not negated): those that can be told to be unknown.
    pub fn container_names(&self) -> impl Iterator<Item = &str> {
        self.wanted.iter().flatten().filter_map(|criterion| match criterion {
            Criterion::Container(pattern) | Criterion::Service(pattern) if !pattern.is_glob() => {
                Some(pattern.as_str())
            }
            _ => None,
        })
    }

    /// Those of [`Filter::container_names`] that none of these containers bears.
    #[must_use]
    pub fn unknown_names<'a>(&'a self, known: &[Arc<Container>]) -> Vec<&'a str> {
        let unknown = |criterion: &'a Criterion| {
            let (pattern, borne) = match criterion {
                Criterion::Container(pattern) => (pattern, known.iter().any(|one| pattern.is_container(one))),
                Criterion::Service(pattern) => (pattern, known.iter().any(|one| pattern.is_service(one))),
                _ => return None,
            };
            (!borne && !pattern.is_glob()).then_some(pattern.as_str())
        };
        self.wanted.iter().flatten().filter_map(unknown).collect()
    }

    /// An application protocol that was asked for (or refused), which only
    /// requests have.
    #[must_use]
    pub fn application(&self) -> Option<&'static str> {
        self.wanted.iter().flatten().chain(&self.refused).find_map(|criterion| match criterion {
            Criterion::Application(name) => Some(*name),
            _ => None,
        })
    }

    /// Whether a transport protocol was asked for (or refused), by which requests are
    /// not told.
    #[must_use]
    pub fn has_transport(&self) -> bool {
        let mut all = self.wanted.iter().flatten().chain(&self.refused);
        all.any(|criterion| matches!(criterion, Criterion::Protocol(_)))
    }

    /// The devices that were asked for (not negated).
    pub fn interface_globs(&self) -> impl Iterator<Item = &NamePattern> {
        self.wanted.iter().flatten().filter_map(|criterion| match criterion {
            Criterion::Interface(pattern) => Some(pattern),
            _ => None,
        })
    }

    /// Takes them out: what is left matches wherever it was seen.
    pub fn take_interface_globs(&mut self) -> Vec<NamePattern> {
        let globs = self.interface_globs().cloned().collect();
        self.wanted.retain(|group| !group.iter().any(|one| matches!(one, Criterion::Interface(_))));
        globs
    }
}

/// What flows, packets and requests have in common.
struct Facts<'a> {
    record: &'a Record,
    from: &'a Endpoint,
    to: &'a Endpoint,
    protocol: Option<Protocol>,
    application: Option<&'static str>,
    state: Option<State>,
    time: Timestamp,
}

impl<'a> Facts<'a> {
    fn of(record: &'a Record) -> Option<Self> {
        match record {
            Record::Flow(flow) => Some(Self {
                record,
                from: &flow.client,
                to: &flow.server,
                protocol: Some(flow.protocol),
                application: None,
                state: Some(flow.state),
                time: flow.time,
            }),
            Record::Packet(packet) => Some(Self {
                record,
                from: &packet.source,
                to: &packet.destination,
                protocol: Some(packet.protocol),
                application: None,
                state: None,
                time: packet.time,
            }),
            Record::Request(request) => Some(Self {
                record,
                from: &request.client,
                to: &request.server,
                protocol: None,
                application: Some(request.protocol),
                state: None,
                time: request.time,
            }),
            Record::Stats(_) | Record::Summary(_) => None,
        }
    }

    fn request(&self) -> Option<&'a RequestRecord> {
        match self.record {
            Record::Request(request) => Some(request),
            _ => None,
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        match self.record {
            Record::Flow(flow) => Some(flow.verdict),
            Record::Request(request) if request.rule.is_some() => Some(Verdict::Redirected),
            Record::Request(_) => Some(Verdict::Forwarded),
            Record::Packet(_) | Record::Stats(_) | Record::Summary(_) => None,
        }
    }

    /// The ends of a redirected connection, as its server sees them, are its ends too.
    fn translated(&self) -> Option<&'a Translated> {
        match self.record {
            Record::Flow(flow) => flow.translated.as_deref(),
            Record::Request(request) => request.translated.as_deref(),
            _ => None,
        }
    }

    fn clients(&self) -> impl Iterator<Item = &'a Endpoint> {
        std::iter::once(self.from).chain(self.translated().map(|translated| &translated.client))
    }

    fn servers(&self) -> impl Iterator<Item = &'a Endpoint> {
        std::iter::once(self.to).chain(self.translated().map(|translated| &translated.server))
    }

    fn ends(&self) -> impl Iterator<Item = &'a Endpoint> {
        self.clients().chain(self.servers())
    }

    fn either_container(&self, test: impl Fn(&Container) -> bool) -> bool {
        self.ends().any(|end| match &end.identity {
            Identity::Container(container) => test(container),
            _ => false,
        })
    }

    fn interfaces(&self) -> impl Iterator<Item = &'a str> {
        let (flow, packet) = match self.record {
            Record::Flow(flow) => (Some(flow), None),
            Record::Packet(packet) => (None, Some(packet)),
            Record::Request(_) | Record::Stats(_) | Record::Summary(_) => (None, None),
        };
        let of_flow =
            flow.into_iter().flat_map(|flow| flow.interfaces.iter().map(|device| device.name.as_str()));
        of_flow.chain(packet.and_then(|packet| packet.interface.as_deref()))
    }
}
