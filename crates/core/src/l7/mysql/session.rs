//! What a connection remembers, and which answer belongs to which command.

mod ask;
mod hear;
mod tell;

use std::sync::Arc;

use smol_str::SmolStr;

use super::answer::{Agreed, Answer, Progress};
use super::command::{self, Command, Effect, Kind, Reading, Said};
use super::handshake::{self, Capabilities, Login, Response};
use super::statement::Statements;
use super::wire::{self, Header};
use crate::l7::statement::{Speaker, Statement};
use crate::l7::{Context, Direction, Exchange, Fifo, Gap, Part};
use crate::record::Capture;
use crate::reveal::Reveal;

/// Commands without an answer. Only few clients ask ahead at all.
const PENDING_MAX: usize = 1_024;
/// SQL in them.
const TEXT_BYTES_MAX: usize = 512 * 1024;
/// Statements that were closed while a command was not answered.
const CLOSED_MAX: usize = 64;
/// As much as is looked at of what sets up the connection.
const SETUP_BYTES_MAX: usize = 16 * 1024;
/// The answer to a command of one packet.
const FIRST_ANSWER: u8 = 1;

/// A packet, or as much of it as is looked at.
pub(super) struct Message<'a> {
    pub(super) header: Header,
    pub(super) body: &'a [u8],
    pub(super) part: Part,
    /// Bytes after `body` are missing.
    pub(super) gap: Option<Gap>,
}

/// A command that waits for its answer.
struct Asked {
    kind: Kind,
    operation: Option<SmolStr>,
    statement: Arc<Statement>,
    prepared: Option<u32>,
    /// What is bound to it, if that may be shown.
    values: Vec<u8>,
    effect: Effect,
    request: Part,
    capture: Capture,
    /// The number of the answer's first packet.
    first_answer: u8,
    /// Statements that the client closed after it.
    closed: Vec<u32>,
    /// The client has sent all of the file that the server may ask for.
    file_sent: bool,
}

/// A command of which more packets follow.
struct Open {
    said: Said,
    request: Part,
    capture: Capture,
}

/// What the server's next packet is.
enum Answering {
    /// The first of all.
    Greeting,
    /// The first of an answer.
    Idle,
    Answer(Box<Heard>),
    /// Nobody knows.
    Adrift,
}

/// An answer that has begun.
struct Heard {
    answer: Answer,
    response: Part,
    capture: Capture,
    /// It belongs to the command that waits for longest.
    paired: bool,
    /// The number of its next packet.
    next: u8,
    /// The last packet is continued by the next one.
    continued: bool,
}

pub(super) struct Session {
    who: Speaker,
    reveal: Reveal,
    is_mariadb: bool,
    /// What the server can do, and what both can.
    server: Option<Capabilities>,
    agreed: Option<Capabilities>,
    /// What a backslash in a string means, if that is known.
    escapes: Option<bool>,
    /// The client's next packet is its first one.
    login: bool,
    logged_in: bool,

    pending: Fifo<Asked>,
    text_bytes: usize,
    open: Option<Open>,
    /// The number of the client's last packet, if that belonged to an older one
    /// and more may follow.
    followed: Option<u8>,
    /// The server waits for a file.
    file_open: bool,
    /// What the next execution needs, sent before it.
    long_data: Option<Part>,
    last_prepared: Arc<Statement>,
    prepared: Statements,
    /// Something of the client's was lost: before the next command, and ever.
    client_gap: Option<Gap>,
    lost_commands: bool,

    answering: Answering,
    /// The client asked, and the server said nothing since.
    fresh: bool,
    /// What the server will answer to, where that cannot be paired.
    unpaired: Option<(Kind, u8)>,
    /// Why it is not certain what belongs together, if it is not.
    doubt: Option<Capture>,
    streams: bool,
    /// Bytes of compressed packets that no packet in them has counted yet, by
    /// [`Direction::index`]; `None`: nothing is compressed.
    frame_bytes: [Option<u64>; 2],
}

impl Session {
    pub(super) fn new(late: bool, reveal: Reveal) -> Self {
        Self {
            who: Speaker { late, ..Speaker::default() },
            reveal,
            is_mariadb: false,
            server: None,
            agreed: None,
            escapes: None,
            login: !late,
            logged_in: late,
            pending: Fifo::new(PENDING_MAX, late).forgiving(),
            text_bytes: 0,
            open: None,
            followed: None,
            file_open: false,
            long_data: None,
            last_prepared: Arc::default(),
            prepared: Statements::default(),
            client_gap: None,
            lost_commands: false,
            answering: if late { Answering::Adrift } else { Answering::Greeting },
            fresh: false,
            unpaired: None,
            doubt: late.then_some(Capture::Midstream),
            streams: false,
            frame_bytes: [None; 2],
        }
    }

    /// Whether the connection has become a stream.
    pub(super) fn streams(&self) -> bool {
        self.streams
    }

    /// Whether it is not known what the server says.
    pub(super) fn is_adrift(&self) -> bool {
        matches!(self.answering, Answering::Adrift)
    }

    pub(super) fn awaits_login(&self) -> bool {
        self.login
    }

    /// Whether what was agreed upon is known, and if so, whether that is to
    /// compress.
    pub(super) fn compresses(&self) -> Option<bool> {
        self.agreed.map(Capabilities::compress)
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// A compressed packet of so many bytes comes.
    pub(super) fn frame(&mut self, direction: Direction, bytes: u64) {
        *self.frame_bytes[direction.index()].get_or_insert(0) += bytes;
    }

    /// The size on the wire of a packet of so many bytes.
    pub(super) fn wire_bytes(&mut self, direction: Direction, bytes: u64) -> u64 {
        match &mut self.frame_bytes[direction.index()] {
            Some(frames) => std::mem::take(frames),
            None => bytes,
        }
    }

    /// How much is looked at of a packet that begins with this byte.
    pub(super) fn bytes_seen(&self, direction: Direction, header: Header, first: u8) -> usize {
        match (direction, &self.answering) {
            (Direction::ToServer, _) if self.login => SETUP_BYTES_MAX,
            (Direction::ToServer, _) if self.open.is_some() || self.follows(header) => 0,
            (Direction::ToServer, _) => command::bytes_seen(first, self.reveal),
            (Direction::ToClient, Answering::Greeting) => SETUP_BYTES_MAX,
            (Direction::ToClient, Answering::Adrift) => 0,
            (Direction::ToClient, Answering::Answer(heard)) if heard.continued => 0,
            (Direction::ToClient, Answering::Answer(heard)) => heard.answer.bytes_seen(first),
            (Direction::ToClient, Answering::Idle) => Answer::new(self.expected().0).bytes_seen(first),
        }
    }

    /// The kind of the server's next answer, and the number of its first packet.
    pub(super) fn expected(&self) -> (Kind, u8) {
        let front = self.pending.front().map(|asked| (asked.kind, asked.first_answer));
        front.or(self.unpaired).unwrap_or((Kind::Unknown, FIRST_ANSWER))
    }

    /// Whether what the server says next is the beginning of an answer.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What the server said since the client asked is not an answer.
    pub(super) fn is_stale(&mut self) {
        self.fresh = false;
    }

    /// From here on it is not certain what belongs together.
    fn doubted(&mut self, gap: Option<Gap>) {
        if gap.is_some() || self.doubt.is_none_or(|why| why == Capture::Complete) {
            self.doubt = self.doubt.max(Some(gap.map_or(Capture::Truncated, Capture::from)));
        }
    }

    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(open) = self.open.take() {
            self.cut_off(cx, open, Capture::Truncated);
        }
        let begun = match std::mem::replace(&mut self.answering, Answering::Adrift) {
            Answering::Answer(mut heard) if heard.paired => {
                heard.capture = heard.capture.max(Capture::Truncated);
                Some(heard)
            }
            _ => None,
        };
        for (index, asked) in self.pending.drain().into_iter().enumerate() {
            match &begun {
                Some(heard) if index == 0 => self.broken_off(cx, &asked, heard),
                _ => self.no_answer(cx, &asked),
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.prepared.memory_bytes()
            + self.text_bytes
            + self.pending.len() * (size_of::<Asked>() + size_of::<Statement>() + CLOSED_MAX)
            + self.last_prepared.memory_bytes()
    }
}
