//! Which message a head begins, and what comes after it.

use super::head::{Framing, Head, RequestLine, StatusLine};
use super::{Answering, Asking, Http, Reading, asked, guess, head};
use crate::l7::{Context, Direction, Guess, Part, Protocol, Step, Times, Trust, http2, websocket};
use crate::record::Capture;

/// What comes after an answer's head.
enum After {
    /// Its body, or the next message.
    Http,
    /// Another protocol, if it is known which.
    Other(Option<&'static Protocol>),
}

/// How a request's body comes.
pub(super) struct Body {
    framing: Framing,
    /// After the server's consent.
    waits: bool,
}

impl Http {
    /// The head that comes next in this direction.
    pub(super) fn head(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        bytes: &[u8],
        times: Times,
    ) -> Step {
        if direction == Direction::ToServer {
            self.client_waits = self.wants_switch && !self.fifo.is_empty();
            if self.client_waits {
                return Step::WaitPeer;
            }
        }
        if direction == Direction::ToClient && self.client_waits && !self.wants_switch {
            // What comes now may answer what the client said while it waited.
            return Step::WaitPeer;
        }
        let blank = guess::blank_bytes(bytes);
        if blank > 0 {
            return Step::Consumed(blank);
        }
        match direction {
            Direction::ToServer => self.request_head(cx, bytes, times),
            Direction::ToClient => self.response_head(cx, bytes, times),
        }
    }

    fn request_head(&mut self, cx: &mut Context<'_>, bytes: &[u8], times: Times) -> Step {
        let is_new = self.scanned[Direction::ToServer.index()] == 0;
        // Nearly all heads come whole and are as they should be: those are looked at once.
        let strict = if is_new { head::strict_request(bytes, self.reveal) } else { None };
        let (line, head, length) = match strict {
            Some((line, head, length)) if line.is_usual && length < head::TARGET_BYTES_MAX => {
                (line, head, length)
            }
            _ => {
                if is_new && guess::request(bytes) == Guess::No {
                    return Step::Desync;
                }
                let Some(whole) = self.whole_head(Direction::ToServer, bytes) else {
                    return Step::NeedMore(bytes.len() + 1);
                };
                let Some((line, head)) = head::request(whole, self.reveal) else { return Step::Desync };
                (line, head, whole.len())
            }
        };
        let body = self.ask(line, head, Part::new(times, length as u64));
        match body.framing {
            // Until the connection closes, a request's body cannot last.
            Framing::None | Framing::UntilClose | Framing::Length(0) => {
                self.message_ends(cx, Direction::ToServer);
            }
            framing => {
                let reading = if body.waits { Reading::Consent(framing) } else { framing.reading() };
                self.reading[Direction::ToServer.index()] = reading;
            }
        }
        Step::Consumed(length)
    }

    fn response_head(&mut self, cx: &mut Context<'_>, bytes: &[u8], times: Times) -> Step {
        let is_new = self.scanned[Direction::ToClient.index()] == 0;
        let strict = if is_new { head::strict_response(bytes) } else { None };
        let (line, head, length) = match strict {
            Some(strict) => strict,
            None => {
                if is_new && guess::response(bytes) == Guess::No {
                    return Step::Desync;
                }
                let Some(whole) = self.whole_head(Direction::ToClient, bytes) else {
                    return Step::NeedMore(bytes.len() + 1);
                };
                let Some((line, head)) = head::response(whole) else { return Step::Desync };
                (line, head, whole.len())
            }
        };
        let after = bytes.get(length..).unwrap_or_default();
        match self.answer(cx, line, head, Part::new(times, length as u64), after) {
            After::Http => Step::Consumed(length),
            After::Other(protocol) => Step::Switch(length, protocol),
        }
    }

    /// The head that these bytes begin with, if its end is in them.
    fn whole_head<'a>(&mut self, direction: Direction, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let scanned = &mut self.scanned[direction.index()];
        let end = head::end_of_head(bytes, scanned)?;
        *scanned = 0;
        bytes.get(..end)
    }

    /// A request begins.
    pub(super) fn ask(&mut self, line: RequestLine, head: Head<'_>, part: Part) -> Body {
        let body = Body { framing: head.framing, waits: head.expects_continue };
        let wants_switch = line.method == "CONNECT" || head.upgrade.is_some();
        let mut exchange = asked(line, head);
        exchange.request = Some(part);
        self.asking = match self.fifo.ask(exchange, part.times()) {
            Ok(trust) => {
                self.wants_switch = wants_switch;
                if trust == Trust::Likely
                    && let Some(exchange) = self.fifo.back_mut()
                {
                    exchange.note(trust.mark(self.doubt));
                }
                Asking::Queued
            }
            Err(mut refused) => {
                refused.note(self.doubt);
                Asking::Loose(refused)
            }
        };
        body
    }

    /// An answer begins; `bytes` stand after its head.
    fn answer(
        &mut self,
        cx: &mut Context<'_>,
        line: StatusLine,
        head: Head<'_>,
        part: Part,
        bytes: &[u8],
    ) -> After {
        let status = line.status;
        if (100..200).contains(&status) && status != 101 {
            // Not the answer yet; its bytes count with those of the answer.
            self.interim_bytes += part.bytes;
            return After::Http;
        }
        if status == 101 && head.upgrades_to("h2c") {
            // The answer comes on the first stream.
            let mut request = self.fifo.answer(part.last_ns).unwrap_or_default();
            if request.request.is_none() {
                request.note(self.doubt);
            } else if self.fifo.is_empty() && matches!(self.asking, Asking::Queued) {
                self.asking = Asking::Nothing;
            }
            self.successor = Some(http2::upgraded(*request, self.interim_bytes + part.bytes, self.reveal));
            return After::Other(Some(&http2::PROTOCOL));
        }
        let method = self.fifo.front().map(|exchange| exchange.operation.as_str());
        let tunnel = status == 101 || method == Some("CONNECT") && (200..300).contains(&status);
        // Of whom it is not known what was asked, the next bytes tell whether it was HEAD.
        let bare = method == Some("HEAD") || method.is_none() && guess::response(bytes) == Guess::Sure;
        let is_websocket = status == 101 && head.upgrades_to("websocket");
        let body = match head.framing {
            _ if tunnel || bare || status == 204 || status == 304 => Framing::None,
            Framing::None => Framing::UntilClose,
            framing => framing,
        };
        let bytes = part.bytes + std::mem::take(&mut self.interim_bytes);
        self.answering = Some(Answering {
            line,
            part: Part { bytes, ..part },
            body_bytes: 0,
            capture: Capture::Complete,
            anomalies: head.anomalies,
        });
        match body {
            Framing::None | Framing::Length(0) => self.message_ends(cx, Direction::ToClient),
            body => self.reading[Direction::ToClient.index()] = body.reading(),
        }
        match tunnel {
            false => After::Http,
            true if is_websocket => After::Other(Some(&websocket::PROTOCOL)),
            true => After::Other(None),
        }
    }
}

impl Framing {
    pub(super) fn reading(self) -> Reading {
        match self {
            Self::None => Reading::Head,
            Self::Length(length) => Reading::Body(length),
            Self::Chunked => Reading::ChunkSize,
            Self::UntilClose => Reading::BodyUntilClose,
        }
    }
}
