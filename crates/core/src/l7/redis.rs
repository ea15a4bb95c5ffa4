//! Redis and what speaks its protocol (Valkey, KeyDB, Dragonfly, Sentinel):
//! RESP versions 2 and 3, and commands as lines of text.
//!
//! Answers come in the order of the commands, but not one for each: some
//! commands have several, some none, and between answers stands what nobody
//! asked for. What is what is told by types and labels; where these leave it
//! open, nothing is paired.
//!
//! - `arguments`, `request`, `line`: from the client's bytes to commands;
//! - `command`, `keys`: their names, keys and effects. The only place that decides
//!   what of them is shown;
//! - `reply`: from the server's bytes to replies;
//! - `outcome`: what replies and errors say, redacted;
//! - `probe`: how to recognise all this;
//! - `pairing`: what belongs together;
//! - here: what a connection remembers, and the way in.

mod arguments;
mod command;
mod keys;
mod line;
mod outcome;
mod pairing;
mod probe;
mod reply;
mod request;

use self::command::{Command, Effect, ReplyMode};
use self::reply::{Replies, Reply};
use self::request::Requests;
use super::{
    Context, Direction, End, Fifo, Gap, Parser, Protocol, Resync, Skipped, Start, Step, Times, Transport, Why,
};
use crate::record::Capture;
use crate::reveal::Reveal;

/// The server takes no longer lines of text, and sends none.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// More than any server takes in one value (512 MiB, if not told otherwise).
const BULK_BYTES_MAX: i64 = 1 << 36;
/// Commands without an answer: deep pipelines have ten thousand.
const PENDING_MAX: usize = 16 * 1024;

pub(super) static PROTOCOL: Protocol = Protocol {
    name: "redis",
    transports: &[Transport::Tcp],
    ports: &[6379, 26379],
    message_bytes_max: LINE_BYTES_MAX + 2,
    probe: probe::probe,
    parser: |start| Box::new(Redis::new(start)),
};

/// In records; what speaks its protocol says it too.
const SYSTEM: &str = "redis";

fn is_text(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || matches!(byte, b'\t' | b'\r' | b'\n')
}

/// A command that waits for its answer.
struct Asked {
    command: Command,
    /// Before it stand commands that ask not to be answered.
    after_silence: bool,
    /// It may be one of those that are not answered.
    unsettled: bool,
    /// Confirmations of which the first has come, and how many are still to come.
    confirmed: Option<Box<(Reply, u64)>>,
}

/// How many channels the client is subscribed to.
#[derive(Debug, Clone, Copy, Default)]
struct Subscribed {
    named: u64,
    patterns: u64,
    shards: u64,
}

struct Redis {
    requests: Requests,
    replies: Replies,
    pending: Fifo<Asked>,
    pending_bytes: usize,
    /// Why requests and answers cannot be paired, if they cannot.
    doubt: Option<Capture>,
    /// Something of the client's bytes is missing: lines of text are not taken
    /// for commands any more.
    requests_lost: bool,
    /// The client sent something since the server's last bytes.
    asked: bool,

    /// What `CLIENT REPLY` says for the next command.
    mode: ReplyMode,
    in_multi: bool,
    /// A `CLIENT REPLY` may have been missed: nothing is paired until a command
    /// that was sent alone is seen to be answered.
    unsettled: bool,
    /// Commands since the last answer.
    asked_since: u64,
    silence: bool,
    /// Commands that wait for `EXEC`.
    queued: u64,
    /// The server speaks version 3.
    new: bool,
    /// `None`: not known.
    subscribed: Option<Subscribed>,
    database: Option<u64>,
    reveal: Reveal,
}

impl Redis {
    fn new(start: Start) -> Self {
        let known = !start.late;
        Self {
            requests: Requests::default(),
            replies: Replies::default(),
            pending: Fifo::new(PENDING_MAX, start.late),
            pending_bytes: 0,
            doubt: start.late.then_some(Capture::Midstream),
            requests_lost: start.late,
            asked: false,

            mode: ReplyMode::On,
            in_multi: false,
            unsettled: start.late,
            asked_since: 0,
            silence: false,
            queued: 0,
            new: false,
            subscribed: known.then(Subscribed::default),
            database: known.then_some(0),
            reveal: start.reveal,
        }
    }

    /// A replica and its server do not ask and answer.
    fn replicates(&mut self, bytes: &[u8]) -> Option<Step> {
        let front = self.pending.front_mut()?;
        if front.command.effect != Effect::Replicate || self.replies.open().is_some() {
            return None;
        }
        match bytes.first() {
            // While the server prepares its data.
            Some(b'\n') => Some(Step::Consumed(1)),
            _ => None,
        }
    }

    fn request_data(&mut self, cx: &mut Context<'_>, bytes: &[u8], times: Times) -> Step {
        self.asked = true;
        match self.requests.read(bytes, times, !self.requests_lost) {
            request::Read::Step(step) => step,
            request::Read::Whole(used) => match self.request(cx) {
                Ok(()) => Step::Consumed(used),
                Err(why) => Step::Bypass(why),
            },
        }
    }

    fn reply_data(&mut self, cx: &mut Context<'_>, bytes: &[u8], times: Times) -> Step {
        self.asked = false;
        if let Some(step) = self.replicates(bytes) {
            return step;
        }
        let snapshot = bytes.first() == Some(&b'$') && self.replies.open().is_none();
        if snapshot && self.pending.front_mut().is_some_and(|asked| asked.command.effect == Effect::Replicate)
        {
            // The data itself, which is not answered for.
            if let Some(asked) = self.pending.answer(times.last_ns) {
                self.unpaired(cx, asked, None);
            }
            return Step::Bypass(Why::NoRequests);
        }
        match self.replies.read(bytes, times) {
            reply::Read::Step(step) => step,
            reply::Read::Whole(used) => match self.reply(cx) {
                Ok(()) => Step::Consumed(used),
                Err(why) => Step::Bypass(why),
            },
        }
    }
}

impl Parser for Redis {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let step = match direction {
                Direction::ToServer => self.request_data(cx, rest, times),
                Direction::ToClient => self.reply_data(cx, rest, times),
            };
            match step {
                Step::Consumed(more @ 1..) => used += more,
                // Nothing is asked again after it.
                Step::Bypass(why) => return Step::Bypass(why),
                // Whatever it was: it is the same when it is asked about the rest alone.
                _ if used > 0 => return Step::Consumed(used),
                step => return step,
            }
            // Of bytes that came at several times, each message has its own.
            if used >= bytes.len() || times.first_ns != times.last_ns {
                return Step::Consumed(used);
            }
        }
    }

    fn skipped(&mut self, cx: &mut Context<'_>, direction: Direction, skipped: Skipped) {
        // Neither an acknowledgement nor the beginning of a stream is so long
        // that it is skipped: there is nothing to leave for.
        let _ = match direction {
            Direction::ToServer if self.requests.skipped(skipped) => self.request(cx),
            Direction::ToClient if self.replies.skipped(skipped) => self.reply(cx),
            _ => Ok(()),
        };
    }

    fn lost(&mut self, cx: &mut Context<'_>, direction: Direction, _: &[u8], _: Times, gap: Option<Gap>) {
        let capture = gap.map_or(self.doubt.unwrap_or(Capture::Truncated), Capture::from);
        match direction {
            Direction::ToServer => {
                self.broken_request(cx, capture);
                self.requests_lost = true;
                self.mode = ReplyMode::On;
                self.in_multi = false;
                self.pending.lose_requests(false);
                self.unsettled = true;
                // More than one, perhaps.
                self.asked_since = self.asked_since.saturating_add(2);
                self.doubt = self.doubt.max(Some(capture));
            }
            Direction::ToClient => {
                if gap.is_some() {
                    self.broken_answer(cx, capture);
                }
                self.replies.take();
                self.give_up_pending(cx, capture);
                self.asked = false;
            }
        }
        self.queued = 0;
        self.subscribed = None;
        self.database = None;
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        match direction {
            Direction::ToServer => {
                self.asked = true;
                probe::resync_requests(bytes)
            }
            Direction::ToClient => {
                let found = probe::resync_replies(bytes, self.asked);
                if matches!(found, Resync::Keep(0)) {
                    self.asked = false;
                }
                found
            }
        }
    }

    fn close(&mut self, cx: &mut Context<'_>, direction: Direction, _: End) {
        match direction {
            Direction::ToServer => self.broken_request(cx, Capture::Truncated),
            Direction::ToClient => self.broken_answer(cx, Capture::Truncated),
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        for asked in self.pending.drain() {
            self.unpaired(cx, asked, self.doubt);
        }
    }

    fn memory_bytes(&self) -> usize {
        self.pending.len() * size_of::<Asked>() + self.pending_bytes + self.requests.memory_bytes()
    }
}

#[cfg(test)]
mod tests;
