//! HTTP/1.x (RFC 9112), as real clients and servers speak it.
//!
//! Heads are read, bodies are counted. What a body's length is depends on the
//! request that it answers (HEAD, CONNECT), so answers are read with the
//! request at hand that they belong to, where that is known.
//!
//! - `guess`: whether bytes begin with a head;
//! - `strict`: the bytes of a head that is as it should be;
//! - `head`: from the bytes of any head to what it says, redacted;
//! - `message`: from what heads say to an exchange;
//! - `heads`: which message a head begins, and what its body will be;
//! - `chunks`: bodies in chunks;
//! - here: what a connection remembers, and the way through a message.

mod chunks;
mod guess;
mod head;
mod heads;
mod message;
mod strict;
#[cfg(test)]
mod tests;

use super::{
    Attribute, Context, Direction, End, Exchange, Fifo, Gap, Guess, Heads, Parser, Part, Protocol, Resync,
    Skipped, Start, Step, Times, Transport,
};
use crate::record::Capture;
use crate::reveal::Reveal;
use head::Framing;
pub(super) use head::{Head, StatusLine, TARGET_BYTES_MAX, cut, request_line};
pub(super) use message::{Answering, asked};

/// Longer than any server accepts by default.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// More requests ahead of their answers than any client sends.
const PENDING_MAX: usize = 1024;

pub(super) static PROTOCOL: Protocol = Protocol {
    name: "http",
    transports: &[Transport::Tcp],
    ports: &[80, 8080, 8000, 3128],
    message_bytes_max: HEAD_BYTES_MAX,
    probe,
    parser: |start| Box::new(Http::new(start)),
};

fn probe(heads: &Heads<'_>) -> Guess {
    let asked = if heads.to_server.is_empty() { None } else { Some(guess::request(heads.to_server)) };
    let answered = if heads.to_client.is_empty() { None } else { Some(guess::response(heads.to_client)) };
    match (asked, answered) {
        (Some(Guess::Sure), _) | (_, Some(Guess::Sure)) => Guess::Sure,
        (Some(Guess::No), _) | (_, Some(Guess::No)) => Guess::No,
        (asked, answered) => asked.max(answered).unwrap_or(Guess::More),
    }
}

/// One connection.
struct Http {
    /// Why requests or answers cannot be paired, if so.
    doubt: Capture,
    fifo: Fifo<Box<Exchange>>,
    /// The request that is being read.
    asking: Asking,
    /// The answer that is being read.
    answering: Option<Answering>,
    /// By [`Direction::index`].
    reading: [Reading; 2],
    /// How far into the bytes given nothing was found.
    scanned: [usize; 2],
    /// Of answers that only announce the real one.
    interim_bytes: u64,
    /// The client asked to speak something else from here on.
    wants_switch: bool,
    /// It said more, before it knew whether it may.
    client_waits: bool,
    reveal: Reveal,
    /// What reads HTTP/2, where the server has agreed to it.
    successor: Option<Box<dyn Parser>>,
}

#[derive(Default)]
enum Asking {
    #[default]
    Nothing,
    /// The last one of the queue.
    Queued,
    /// One that is not in the queue: refused by it, or answered already.
    Loose(Box<Exchange>),
}

/// What comes next in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Head,
    /// The client may wait with its body until the server agrees, and leave it
    /// out if it does not.
    Consent(Framing),
    Body(u64),
    BodyUntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

impl Http {
    fn new(start: Start) -> Self {
        Self {
            doubt: if start.late { Capture::Midstream } else { Capture::Complete },
            fifo: Fifo::new(PENDING_MAX, start.late),
            asking: Asking::Nothing,
            answering: None,
            reading: [Reading::Head; 2],
            scanned: [0; 2],
            interim_bytes: 0,
            wants_switch: false,
            client_waits: false,
            reveal: start.reveal,
            successor: None,
        }
    }

    /// The message of this direction that is being read: so many bytes more.
    fn grow(&mut self, direction: Direction, time_ns: u64, bytes: u64, of_body: bool) {
        match direction {
            Direction::ToServer => {
                let Some(exchange) = self.asked_mut() else { return };
                if let Some(part) = &mut exchange.request {
                    part.grow(time_ns, bytes);
                }
                if of_body {
                    exchange.add(Attribute::HttpRequestBodySize, bytes);
                }
            }
            Direction::ToClient => {
                let Some(answering) = &mut self.answering else { return };
                answering.part.grow(time_ns, bytes);
                answering.body_bytes += if of_body { bytes } else { 0 };
            }
        }
    }

    fn asked_mut(&mut self) -> Option<&mut Exchange> {
        match &mut self.asking {
            Asking::Nothing => None,
            Asking::Queued => self.fifo.back_mut().map(Box::as_mut),
            Asking::Loose(exchange) => Some(exchange),
        }
    }

    fn note(&mut self, direction: Direction, capture: Capture) {
        match direction {
            Direction::ToServer => {
                if let Some(exchange) = self.asked_mut() {
                    exchange.note(capture);
                }
            }
            Direction::ToClient => {
                if let Some(answering) = &mut self.answering {
                    answering.capture = answering.capture.max(capture);
                }
            }
        }
    }

    /// The message of this direction is whole.
    fn message_ends(&mut self, cx: &mut Context<'_>, direction: Direction) {
        self.reading[direction.index()] = Reading::Head;
        self.scanned[direction.index()] = 0;
        match direction {
            Direction::ToServer => {
                if let Asking::Loose(exchange) = std::mem::take(&mut self.asking) {
                    cx.emit(exchange);
                }
            }
            Direction::ToClient => self.answer_ends(cx),
        }
    }

    fn answer_ends(&mut self, cx: &mut Context<'_>) {
        let Some(answering) = self.answering.take() else { return };
        let request = self.fifo.answer(answering.part.last_ns);
        let is_being_asked =
            self.fifo.is_empty() && matches!(self.asking, Asking::Queued) && request.is_some();
        let mut exchange = request.unwrap_or_default();
        if exchange.request.is_none() {
            exchange.note(self.doubt);
        }
        answering.add_to(&mut exchange);
        if self.fifo.is_empty() {
            self.wants_switch = false;
        }
        if is_being_asked {
            // Answered before it was asked to its end.
            self.asking = Asking::Loose(exchange);
        } else {
            cx.emit(exchange);
        }
    }

    /// Everything that waits will not be paired.
    fn unpair(
        &mut self,
        cx: &mut Context<'_>,
        unpaired: impl ExactSizeIterator<Item = Box<Exchange>>,
        capture: Capture,
    ) {
        // One that is being asked yet is told when it is whole.
        let count = unpaired.len();
        for (index, mut exchange) in unpaired.enumerate() {
            exchange.note(capture);
            if index + 1 == count && matches!(self.asking, Asking::Queued) {
                self.asking = Asking::Loose(exchange);
            } else {
                cx.emit(exchange);
            }
        }
        self.wants_switch = false;
    }
}

impl Parser for Http {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        match self.reading[direction.index()] {
            Reading::Head => self.head(cx, direction, bytes, times),
            Reading::Consent(framing) => {
                let answered = self.asked_mut().is_some_and(|exchange| exchange.response.is_some());
                match guess::request(bytes) {
                    Guess::Sure if answered => self.message_ends(cx, direction),
                    Guess::More if answered => return Step::NeedMore(bytes.len() + 1),
                    _ => self.reading[direction.index()] = framing.reading(),
                }
                self.data(cx, direction, bytes, times)
            }
            Reading::Body(length) | Reading::Chunk(length) => Step::Skip(length),
            Reading::BodyUntilClose => Step::Skip(u64::MAX),
            Reading::ChunkSize => self.chunk_size(direction, bytes, times),
            Reading::ChunkEnd => match bytes {
                [b'\r'] => Step::NeedMore(2),
                [b'\r', b'\n', ..] | [b'\n', ..] => {
                    let length = if bytes.first() == Some(&b'\n') { 1 } else { 2 };
                    self.grow(direction, times.last_ns, length as u64, false);
                    self.reading[direction.index()] = Reading::ChunkSize;
                    Step::Consumed(length)
                }
                _ => Step::Desync,
            },
            Reading::Trailers => self.trailers(cx, direction, bytes, times),
        }
    }

    fn skips_next(&self, direction: Direction) -> Option<u64> {
        match self.reading[direction.index()] {
            Reading::Body(length) | Reading::Chunk(length) => Some(length),
            Reading::BodyUntilClose => Some(u64::MAX),
            _ => None,
        }
    }

    fn skipped(&mut self, cx: &mut Context<'_>, direction: Direction, skipped: Skipped) {
        self.grow(direction, skipped.time_ns, skipped.bytes, true);
        if let Some(gap) = skipped.gap {
            self.note(direction, gap.into());
        }
        if skipped.cut_off {
            return; // close() tells the rest
        }
        match self.reading[direction.index()] {
            Reading::Chunk(_) => self.reading[direction.index()] = Reading::ChunkEnd,
            Reading::BodyUntilClose => {}
            _ => self.message_ends(cx, direction),
        }
    }

    fn lost(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        kept: &[u8],
        times: Times,
        gap: Option<Gap>,
    ) {
        let reading = std::mem::replace(&mut self.reading[direction.index()], Reading::Head);
        // In what is missing, chunks began and ended: nobody knows how long the body is.
        let in_chunks = matches!(reading, Reading::ChunkSize | Reading::Chunk(_) | Reading::ChunkEnd);
        let capture = match gap {
            Some(_) if in_chunks => Capture::Gap,
            Some(gap) => gap.into(),
            None => Capture::Truncated,
        };
        self.scanned[direction.index()] = 0;
        if gap.is_some() || self.doubt == Capture::Complete {
            self.doubt = self.doubt.max(capture);
        }
        // Of a head, the start line may be there.
        let kept = if reading == Reading::Head { kept } else { &[] };
        match direction {
            Direction::ToServer => {
                if guess::request(kept) == Guess::Sure
                    && let Some((line, head)) = head::request(kept, self.reveal)
                {
                    self.ask(line, head, Part::new(times, kept.len() as u64));
                }
                let inside = !matches!(self.asking, Asking::Nothing);
                self.note(direction, capture);
                self.message_ends(cx, direction);
                self.asking = Asking::Nothing;
                self.fifo.lose_requests(inside);
            }
            Direction::ToClient => {
                if self.answering.is_none()
                    && let Some((line, head)) = head::response(kept)
                    && line.status >= 200
                {
                    let part = Part::new(times, kept.len() as u64);
                    self.answering =
                        Some(Answering { line, part, body_bytes: 0, capture, anomalies: head.anomalies });
                }
                self.note(direction, capture);
                self.answer_ends(cx);
                let unpaired = self.fifo.lose_answers().into_iter();
                self.unpair(cx, unpaired, capture);
            }
        }
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        let guess = match direction {
            Direction::ToServer => guess::request,
            Direction::ToClient => guess::response,
        };
        // A request begins a line, or at once with a method that is no piece of
        // another word; an answer may follow its predecessor's body at once.
        let begins = |at: usize| match direction {
            Direction::ToServer => match at.checked_sub(1) {
                Some(before) => bytes.get(before) == Some(&b'\n'),
                None => guess::begins_with_method(bytes),
            },
            Direction::ToClient => bytes.get(at) == Some(&b'H'),
        };
        for at in (0..bytes.len()).filter(|at| begins(*at)) {
            match guess(bytes.get(at..).unwrap_or_default()) {
                Guess::Sure => return Resync::At(at),
                Guess::More => return Resync::Keep(bytes.len() - at),
                Guess::Maybe | Guess::No => {}
            }
        }
        Resync::Keep(0)
    }

    fn close(&mut self, cx: &mut Context<'_>, direction: Direction, end: End) {
        let reading = self.reading[direction.index()];
        let whole = reading == Reading::BodyUntilClose && end == End::Fin;
        match direction {
            Direction::ToServer => {
                if !matches!(self.asking, Asking::Nothing) && !matches!(reading, Reading::Consent(_)) {
                    self.note(direction, Capture::Truncated);
                }
                self.message_ends(cx, direction);
                self.asking = Asking::Nothing;
            }
            Direction::ToClient => {
                if !whole {
                    self.note(direction, Capture::Truncated);
                }
                self.answer_ends(cx);
                let unpaired = self.fifo.drain().into_iter();
                self.unpair(cx, unpaired, Capture::Complete);
            }
        }
    }

    fn successor(&mut self) -> Option<Box<dyn Parser>> {
        self.successor.take()
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        self.answer_ends(cx);
        let unpaired = self.fifo.drain().into_iter();
        self.unpair(cx, unpaired, Capture::Complete);
        if let Asking::Loose(exchange) = std::mem::take(&mut self.asking) {
            cx.emit(exchange);
        }
    }

    fn memory_bytes(&self) -> usize {
        self.fifo.len() * (size_of::<Exchange>() + 1_024)
    }
}
