//! Application protocols: from the bytes of both directions to requests with
//! their answers.
//!
//! The parts:
//! - [`Engine`]: every connection and every datagram, within one memory limit;
//! - `conversation`: one connection. Finds out which protocol it speaks, keeps
//!   what a parser cannot use yet, counts what it need not see;
//! - a [`Parser`] for each protocol, one file each, listed in [`PROTOCOLS`];
//! - [`Fifo`] and [`Keyed`]: which answer belongs to which request, and when
//!   that cannot be known ([`Trust`]);
//! - [`Exchange`]: what a parser finds.
//!
//! # How to add a protocol
//!
//! 1. Write `l7/NAME.rs` with a `pub(super) static PROTOCOL: Protocol` and a
//!    type that implements [`Parser`]. `l7/dns.rs` is the shortest whole
//!    example, `l7/http.rs` the fullest.
//! 2. Add one line to [`PROTOCOLS`], and names that are new to
//!    `record/attribute.rs` and `docs/records.md`.
//! 3. In its tests, hand a dialogue to `harness::check`: any segmentation and
//!    any legal interleaving must give the same exchanges, no truncation may
//!    panic, no gap may pair wrongly, memory and time stay bounded.
//!
//! Rules for parsers:
//! - **Bytes are hostile.** No length from the wire is believed before it is
//!   compared with a limit; no recursion; nothing is scanned twice because a
//!   byte more arrived (keep in the parser how far was scanned).
//! - **Secrets end here.** What must not leave (passwords, tokens, cookies,
//!   literals) is never put into an [`Exchange`]: there is no later station
//!   that could take it out. What [`Start::reveal`] allows is the exception, and
//!   [`Exchange::revealed`] tells of it.
//! - **Never guess a pair.** Ask [`Fifo`] or [`Keyed`]; report what cannot be
//!   paired as an exchange without its other half, and mark what is paired
//!   without being certain ([`Trust::mark`]).
//! - **Skip what nobody needs.** [`Step::Skip`] costs nothing, however long the
//!   body is, and keeps its length exact, also where bytes are missing.

use std::collections::BTreeSet;

mod conversation;
mod detect;
mod dns;
mod engine;
mod exchange;
#[cfg(test)]
mod harness;
mod http;
mod http2;
mod lane;
mod mysql;
mod pairs;
mod postgresql;
mod redact;
mod redis;
mod starttls;
mod statement;
mod tls;
mod websocket;

pub use engine::{Engine, Found, Limits, Tally};
pub use exchange::{Exchange, Part};
pub use pairs::{Fifo, Keyed, Trust};

pub use crate::record::Attribute;
use crate::reveal::Reveal;
pub use crate::stream::{End, Gap};

/// Every protocol, in the order in which they are asked about a connection.
/// Those that are sure of themselves stand first.
pub static PROTOCOLS: &[&Protocol] = &[
    &http::PROTOCOL,
    &http2::PROTOCOL,
    &tls::PROTOCOL,
    &redis::PROTOCOL,
    &postgresql::PROTOCOL,
    &mysql::PROTOCOL,
    &dns::PROTOCOL,
    &websocket::PROTOCOL,
    &starttls::PROTOCOL,
];

/// The names of all protocols, as they stand in records.
pub fn names() -> impl Iterator<Item = &'static str> {
    // HTTP/2 is HTTP, too, and calls are made with it.
    let own = PROTOCOLS.iter().map(|protocol| protocol.name);
    own.chain([http2::CALLS]).collect::<BTreeSet<_>>().into_iter()
}

/// A direction of a connection, by the roles of its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client: requests.
    ToServer,
    /// From the server: answers.
    ToClient,
}

impl Direction {
    /// The opposite one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }

    /// 0 or 1, to index arrays.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::ToServer => 0,
            Self::ToClient => 1,
        }
    }
}

/// What carries a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A stream of bytes.
    Tcp,
    /// Datagrams: [`Parser::data`] gets each whole, and only once.
    Udp,
}

/// How a conversation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What carries it.
    pub transport: Transport,
    /// Its beginning was not seen: what came before is unknown.
    pub late: bool,
    /// What may be shown although it is left out by default.
    pub reveal: Reveal,
}

/// The first bytes of both directions, either of which may be empty (yet).
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// From the client.
    pub to_server: &'a [u8],
    /// From the server.
    pub to_client: &'a [u8],
    /// What carries them.
    pub transport: Transport,
}

/// What a protocol thinks of [`Heads`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guess {
    /// It is something else.
    No,
    /// More bytes are needed.
    More,
    /// It may be this, and it may be something else: the port decides, if
    /// nothing surer turns up.
    Maybe,
    /// It is this: both directions agree, or one is unmistakable.
    Sure,
}

/// An application protocol.
#[derive(Debug)]
pub struct Protocol {
    /// As in records.
    pub name: &'static str,
    /// What it is carried by.
    pub transports: &'static [Transport],
    /// Where its servers usually listen: decides between [`Guess::Maybe`]s, and
    /// nothing else.
    pub ports: &'static [u16],
    /// How long a message (or the part of it that must be seen at once) may be.
    pub message_bytes_max: usize,
    /// Looks at the beginning of a connection, or, after a late join, at the
    /// beginning of any segment.
    pub probe: fn(&Heads<'_>) -> Guess,
    /// A parser for one connection.
    pub parser: fn(Start) -> Box<dyn Parser>,
}

/// When bytes came that a parser is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The first of them.
    pub first_ns: u64,
    /// The last of them.
    pub last_ns: u64,
}

/// What the parser wants next of the direction whose bytes it was given.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// That many bytes are understood (at least 1): go on with those after them.
    Consumed(usize),
    /// Come again when there are this many bytes, counted from the first one
    /// given now. What is not more than was given counts as "one more".
    NeedMore(usize),
    /// The next bytes, counted from the first one given, need not be seen:
    /// count them and come back through [`Parser::skipped`]. `u64::MAX`: all
    /// that still come.
    Skip(u64),
    /// Keep the bytes until the other direction has moved on.
    WaitPeer,
    /// That many bytes are understood, and after them another protocol begins,
    /// in both directions. `None`: find out which.
    Switch(usize, Option<&'static Protocol>),
    /// Nothing more of this connection can or need be understood.
    Bypass(Why),
    /// These bytes make no sense: look for the next place that does, with
    /// [`Parser::resync`].
    Desync,
}

/// Why a conversation is not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// No protocol that weir knows.
    NotUnderstood,
    /// Encrypted from here on.
    Encrypted,
    /// A stream that is not made of requests (replication, a terminal).
    NoRequests,
    /// More was said on it than the user wants to read of one connection.
    ByteLimit,
}

impl Why {
    /// As in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotUnderstood => "not_understood",
            Self::Encrypted => "encrypted",
            Self::NoRequests => "no_requests",
            Self::ByteLimit => "byte_limit",
        }
    }

    /// Every reason.
    pub const ALL: [Self; 4] = [Self::NotUnderstood, Self::Encrypted, Self::NoRequests, Self::ByteLimit];
}

/// What became of a [`Step::Skip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Bytes that passed, missing ones included: what was asked for, or less if
    /// the stream ended before.
    pub bytes: u64,
    /// When the last of them came.
    pub time_ns: u64,
    /// Why some of them are missing, if so.
    pub gap: Option<Gap>,
    /// Whether the stream ended before all of them had come.
    pub cut_off: bool,
}

/// A frame of a protocol whose long contents the kernel side can leave out by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameAhead {
    /// How many bytes are left until the next one begins.
    pub left_bytes: u64,
    /// How long the latest one is, with its header.
    pub bytes: u64,
}

/// Where a parser can begin again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resync {
    /// A message begins here; 0 is the first byte given.
    At(usize),
    /// Nowhere yet; only that many bytes at the end may be the beginning of one.
    Keep(usize),
}

/// What a parser may do besides parsing.
pub struct Context<'a> {
    emit: &'a mut dyn FnMut(Box<Exchange>),
}

impl Context<'_> {
    /// Hands over an exchange: done, or not to become any better.
    pub fn emit(&mut self, exchange: impl Into<Box<Exchange>>) {
        (self.emit)(exchange.into());
    }
}

/// One connection's protocol.
///
/// The engine gives it the bytes of each direction in order, without copying
/// where nothing had to be kept.
pub trait Parser: Send {
    /// Bytes of one direction, from the first one that is not understood yet;
    /// at least one.
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step;

    /// The [`Step::Skip`] that would come next in this direction, where that is
    /// known before its first byte. Asked when that byte is missing.
    fn skips_next(&self, direction: Direction) -> Option<u64> {
        let _ = direction;
        None
    }

    /// How many of the next bytes may be left out, although they would be looked at if
    /// they came: what stands in them is unknown then, and no loss.
    fn spares(&self, direction: Direction) -> Option<u64> {
        let _ = direction;
        None
    }

    /// The next frame of HTTP/2, where long contents need not come any more.
    fn frame_ahead(&self, direction: Direction) -> Option<FrameAhead> {
        let _ = direction;
        None
    }

    /// How many bytes may be missing here, although they ought to be seen, without
    /// it becoming unknown where a message begins after them. Such a loss is told
    /// as a skip with a gap.
    fn bridges(&self, direction: Direction) -> Option<u64> {
        self.skips_next(direction)
    }

    /// A [`Step::Skip`] is over.
    fn skipped(&mut self, cx: &mut Context<'_>, direction: Direction, skipped: Skipped);

    /// Bytes are missing outside of a skip; or, with `gap` as `None`, those that
    /// came make no sense, are too many to be kept, have nothing after them, or
    /// were passed over in search of a message's beginning.
    /// What was being read of this direction is lost with them; [`Parser::resync`]
    /// is asked next. `kept` is what had come of it: as given to
    /// [`Parser::data`] last, perhaps with more after it, and perhaps nothing.
    fn lost(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        kept: &[u8],
        times: Times,
        gap: Option<Gap>,
    );

    /// Looks for the beginning of a message. It must not be mistaken for the
    /// inside of one.
    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync;

    /// After how many bytes in which no message began nobody looks any further.
    fn search_bytes_max(&self) -> u64 {
        1 << 20
    }

    /// Nothing more comes in this direction. Bytes that were not understood
    /// until now never will be.
    fn close(&mut self, cx: &mut Context<'_>, direction: Direction, end: End);

    /// After a [`Step::Switch`] to a named protocol: its parser, if there is
    /// something to be handed over to it.
    fn successor(&mut self) -> Option<Box<dyn Parser>> {
        None
    }

    /// The conversation is over, after both directions were closed or the
    /// protocol was switched: emit what is still open.
    fn finish(&mut self, cx: &mut Context<'_>);

    /// Heap memory held, in bytes, roughly.
    fn memory_bytes(&self) -> usize;
}
