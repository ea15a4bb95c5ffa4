//! What a parser finds: one request with its answer.

use std::cell::RefCell;

use smol_str::SmolStr;

use super::Times;
use crate::record::{Attribute, AttributeValue, Attributes, Capture};
use crate::reveal::Reveal;
use crate::stream::Gap;

/// A message's place in time, and its size on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// When its first byte came.
    pub first_ns: u64,
    /// When its last byte came (so far).
    pub last_ns: u64,
    /// Its bytes as sent, whether captured or not (so far).
    pub bytes: u64,
}

impl Part {
    /// A message of which these bytes are the first.
    #[must_use]
    pub fn new(times: Times, bytes: u64) -> Self {
        Self { first_ns: times.first_ns, last_ns: times.last_ns, bytes }
    }

    /// When its first and its last byte came (so far).
    #[must_use]
    pub fn times(&self) -> Times {
        Times { first_ns: self.first_ns, last_ns: self.last_ns }
    }

    /// More of it came.
    pub fn grow(&mut self, time_ns: u64, bytes: u64) {
        self.last_ns = self.last_ns.max(time_ns);
        self.bytes += bytes;
    }
}

impl From<Gap> for Capture {
    /// How a message is marked in which that is missing.
    fn from(gap: Gap) -> Self {
        match gap {
            Gap::Cut => Self::Truncated,
            Gap::Lost | Gap::NotSeen => Self::Gap,
        }
    }
}

impl From<Option<Gap>> for Capture {
    /// The same; without a gap nothing is missing.
    fn from(gap: Option<Gap>) -> Self {
        gap.map_or(Self::Complete, Self::from)
    }
}

/// One request with its answer, as far as they were seen. All texts in it are
/// redacted already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// What is spoken, where that is more than what the connection speaks.
    pub protocol: Option<&'static str>,
    /// What was asked for: the method, the command. Empty if not known.
    pub operation: SmolStr,
    /// Of what: path, statement, key, name.
    pub target: Option<SmolStr>,
    /// As the protocol says it.
    pub status: Option<SmolStr>,
    /// Whether the server did what was asked.
    pub ok: Option<bool>,
    /// What the server said was wrong.
    pub error: Option<SmolStr>,
    /// The request; `None`: not seen, or not to be told which.
    pub request: Option<Part>,
    /// The answer, likewise.
    pub response: Option<Part>,
    /// How much of both was seen.
    pub capture: Capture,
    /// More, by OpenTelemetry's names.
    pub attributes: Attributes,
    /// What is in it that is left out by default.
    pub revealed: Reveal,
}

/// Memory for so many exchanges is kept for the next ones: as many as a busy moment has.
const SPARE_MAX: usize = 8_192;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    static SPARE: RefCell<Vec<Box<Exchange>>> = const { RefCell::new(Vec::new()) };
}

impl Exchange {
    /// An empty one, in memory that was given back, if there is some.
    #[must_use]
    pub fn empty() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Gives back its memory, for the next one of this thread. They come and go by hundreds at a
    /// time; allocators have a few such pieces at hand, and take long for the others.
    pub fn give_back(mut self: Box<Self>) {
        *self = Self::default();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(self);
            }
        });
    }

    /// Sets an attribute.
    pub fn set(&mut self, attribute: Attribute, value: impl Into<AttributeValue>) {
        self.attributes.insert(attribute, value.into());
    }

    /// Adds to an attribute that is a number.
    pub fn add(&mut self, attribute: Attribute, more: u64) {
        if let AttributeValue::Number(sum) =
            self.attributes.get_or_insert(attribute, AttributeValue::Number(0))
        {
            *sum += more;
        }
    }

    /// Notes that something is missing in it.
    pub fn note_gap(&mut self, gap: Gap) {
        self.note(gap.into());
    }

    /// Notes how much was seen; the worst that was noted stays.
    pub fn note(&mut self, capture: Capture) {
        self.capture = self.capture.max(capture);
    }

    /// Notes something that the protocol's rules do not allow, or that smells
    /// of an attack; each kind once.
    pub fn anomaly(&mut self, what: &str) {
        let none = AttributeValue::Texts(Box::default());
        if let AttributeValue::Texts(all) = self.attributes.get_or_insert(Attribute::Anomalies, none)
            && !all.iter().any(|one| one == what)
        {
            *all = all.iter().cloned().chain([what.to_owned()]).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_in_memory_that_was_given_back() {
        let mut used = Exchange::empty();
        used.operation = "GET".into();
        used.set(Attribute::UrlPath, "/");
        used.anomaly("several hosts");
        let place: *const Exchange = &raw const *used;
        used.give_back();
        let next = Exchange::empty();
        assert_eq!((&raw const *next, *next), (place, Exchange::default()));
        (0..=SPARE_MAX).map(|_| Box::default()).for_each(Exchange::give_back);
        assert_eq!(SPARE.with_borrow(Vec::len), SPARE_MAX);
    }
}
