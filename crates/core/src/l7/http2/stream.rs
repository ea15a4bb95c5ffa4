//! One stream: a request and its answer.

use super::frame;
use super::grpc::{self, Messages};
use super::headers::Headers;
use crate::l7::http::{Answering, StatusLine};
use crate::l7::{Attribute, Direction, Exchange, Part};
use crate::record::Capture;
use crate::reveal::{Class, Reveal};

/// On which what HTTP/1.1 asked is answered.
const UPGRADED: u32 = 1;

/// A direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) part: Option<Part>,
    /// Its head was read; what comes next is its body or its trailers.
    headed: bool,
    /// Nothing more comes.
    pub(super) over: bool,
    body_bytes: u64,
    messages: Messages,
}

impl Half {
    fn count(&mut self, part: Part) {
        match &mut self.part {
            Some(own) => own.grow(part.last_ns, part.bytes),
            none => *none = Some(part),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) number: u32,
    pub(super) exchange: Exchange,
    /// By [`Direction::index`].
    halves: [Half; 2],
    /// Of answers that only announce the real one.
    interim_bytes: u64,
    status: Option<u16>,
    is_call: bool,
    /// The type of its content was told.
    is_typed: bool,
    /// There are fields after the answer's content, and what they say is not known.
    unseen_trailers: bool,
    grpc_status: Option<u32>,
    /// What the server says was wrong, and whether that shows what is left out by default.
    error: Option<(String, bool)>,
    /// Who ended it before its time, and why.
    reset: Option<(Direction, Option<u32>)>,
}

impl Stream {
    /// Of the request that HTTP/1.1 asked, and that is answered here.
    pub(super) fn upgraded(mut exchange: Exchange, interim_bytes: u64) -> Self {
        exchange.set(Attribute::NetworkProtocolVersion, "2");
        let part = exchange.request.take();
        let request = Half { part, headed: part.is_some(), over: true, ..Half::default() };
        Self {
            number: UPGRADED,
            exchange,
            halves: [request, Half::default()],
            interim_bytes,
            ..Self::default()
        }
    }

    pub(super) fn half(&mut self, direction: Direction) -> &mut Half {
        &mut self.halves[direction.index()]
    }

    /// Whether nothing more is to be waited for.
    pub(super) fn is_done(&self) -> bool {
        let [request, response] = &self.halves;
        self.reset.is_some() || response.over && (request.over || request.part.is_none())
    }

    /// A request's head, or what follows its body.
    pub(super) fn hear_client(&mut self, headers: &Headers, part: Part, reveal: Reveal) {
        let request = &mut self.halves[Direction::ToServer.index()];
        request.count(part);
        if !request.headed {
            request.headed = true;
            let capture = self.exchange.capture;
            self.exchange = headers.asked(reveal);
            self.exchange.note(capture);
            self.is_call |= headers.is_call == Some(true);
            self.is_typed |= headers.is_call.is_some();
        }
        headers.anomalies().for_each(|what| self.exchange.anomaly(what));
    }

    /// An answer's head, one that announces it, or what follows its body.
    pub(super) fn hear_server(&mut self, headers: &Headers, part: Part, reveal: Reveal) {
        let response = &mut self.halves[Direction::ToClient.index()];
        headers.anomalies().for_each(|what| self.exchange.anomaly(what));
        if !response.headed {
            if headers.status.is_some_and(|status| (100..200).contains(&status)) {
                self.interim_bytes += part.bytes;
                return;
            }
            response.headed = true;
            self.status = headers.status;
            self.is_typed |= headers.is_call.is_some();
            if headers.is_call == Some(true) {
                self.become_call();
            }
        }
        let response = self.half(Direction::ToClient);
        let is_trailers = response.headed && response.part.is_some();
        response.count(part);
        self.unseen_trailers |= is_trailers && headers.unseen;
        if headers.grpc_status.is_some() {
            self.become_call();
            self.grpc_status = headers.grpc_status;
            let message = headers.grpc_message.as_ref().filter(|message| !message.is_empty());
            self.error = message.map(|message| grpc::error(message, reveal.has(Class::ErrorText)));
        }
    }

    /// The answer says that it was a call, which the request did not.
    fn become_call(&mut self) {
        if self.is_call {
            return;
        }
        self.is_call = true;
        grpc::name_call(&mut self.exchange);
        // Their beginnings have passed.
        self.halves.iter_mut().filter(|half| half.body_bytes > 0).for_each(|half| half.messages.lose());
    }

    /// A DATA frame's header, or what is no content in it.
    pub(super) fn count(&mut self, direction: Direction, part: Part) {
        self.half(direction).count(part);
    }

    /// How many bytes of content need not be seen. `None`: the next ones are to
    /// be handed to [`Stream::prefix`].
    pub(super) fn skips(&self, direction: Direction) -> Option<u64> {
        if !self.is_call {
            return Some(u64::MAX);
        }
        Some(self.halves[direction.index()].messages.skips()).filter(|skips| *skips > 0)
    }

    /// Content that may be what stands before a message; says how much of it is.
    pub(super) fn prefix(&mut self, direction: Direction, bytes: &[u8], time_ns: u64) -> usize {
        let half = self.half(direction);
        let count = half.messages.prefix(bytes);
        half.body_bytes += count as u64;
        half.count(Part { first_ns: time_ns, last_ns: time_ns, bytes: count as u64 });
        count
    }

    /// Content that passed, and padding.
    pub(super) fn pass(&mut self, direction: Direction, content: u64, padding: u64, time_ns: u64) {
        let is_call = self.is_call;
        let half = self.half(direction);
        half.body_bytes += content;
        if is_call {
            half.messages.pass(content);
        }
        half.count(Part { first_ns: time_ns, last_ns: time_ns, bytes: content + padding });
    }

    /// Frames of it may be missing.
    pub(super) fn lose(&mut self, direction: Direction, capture: Capture) {
        self.exchange.note(capture);
        let half = self.half(direction);
        half.messages.lose();
        // Its end may have been among them; an answer's would be missed in the record.
        half.over |= direction == Direction::ToServer;
    }

    /// An end does not want it any more.
    pub(super) fn reset(&mut self, by: Direction, code: Option<u32>, part: Part) {
        let response = self.half(Direction::ToClient);
        if by == Direction::ToClient && response.part.is_none() {
            response.part = Some(part);
        }
        self.reset = Some((by, code));
    }

    /// What was found. `refusal`: why the server left, before it answered.
    pub(super) fn into_exchange(self, refusal: Option<String>) -> Exchange {
        let Self { mut exchange, halves, interim_bytes, status, is_call, reset, .. } = self;
        let [request, response] = halves;
        exchange.request = request.part;
        if request.part.is_some() && !request.over && reset.is_none() {
            exchange.note(Capture::Truncated);
        }
        if request.body_bytes > 0 {
            exchange.set(Attribute::HttpRequestBodySize, request.body_bytes);
        }
        if let Some(mut part) = response.part {
            part.bytes += interim_bytes;
            let whole = response.over || reset.is_some();
            let capture = if whole { Capture::Complete } else { Capture::Truncated };
            if let Some(status) = status {
                let line = StatusLine { version: "2".into(), status, reason: "".into() };
                let body_bytes = response.body_bytes;
                Answering { line, part, body_bytes, capture, anomalies: Vec::new() }.add_to(&mut exchange);
            } else {
                exchange.response = Some(part);
                exchange.note(capture);
            }
        }
        if is_call {
            exchange.protocol = Some(grpc::NAME);
            exchange.set(Attribute::RpcSystemName, grpc::NAME);
            for (half, attribute) in
                [(&request, Attribute::RpcSentMessages), (&response, Attribute::RpcReceivedMessages)]
            {
                if let Some(count) = half.messages.count().filter(|_| half.part.is_some()) {
                    exchange.set(attribute, count);
                }
            }
            end_call(&mut exchange, self.grpc_status, self.error);
        } else if self.unseen_trailers && !self.is_typed && exchange.ok == Some(true) {
            // It may have been a call that failed.
            exchange.ok = None;
        }
        match (reset, refusal) {
            // It was answered whole, and no more of the request is needed.
            (Some(_), _) if response.over => {}
            (Some((by, code)), _) => {
                let who = if by == Direction::ToServer { "client" } else { "server" };
                let name = code.map_or_else(|| "RST_STREAM".to_owned(), frame::error_name);
                fail(&mut exchange, name, format!("reset by the {who}"));
            }
            (None, Some(name)) if response.part.is_none() => {
                fail(&mut exchange, name, "the server closed the connection".to_owned());
            }
            _ => {}
        }
        exchange
    }
}

/// How a call went stands in its trailers, and else nowhere.
fn end_call(exchange: &mut Exchange, status: Option<u32>, error: Option<(String, bool)>) {
    match status {
        Some(status) => {
            let name = grpc::status_name(status);
            exchange.ok = Some(status == 0);
            exchange.attributes.remove(Attribute::ErrorType);
            if status != 0 {
                exchange.set(Attribute::ErrorType, name.as_str());
                if let Some((error, revealed)) = error {
                    exchange.error = Some(error.into());
                    if revealed {
                        exchange.revealed.insert(Class::ErrorText);
                    }
                }
            }
            exchange.set(Attribute::RpcResponseStatusCode, name.as_str());
            exchange.status = Some(name.into());
        }
        // HTTP's success says nothing of the call's.
        None if exchange.ok == Some(true) => {
            exchange.ok = None;
            exchange.status = None;
        }
        None => {}
    }
}

fn fail(exchange: &mut Exchange, name: String, error: String) {
    exchange.ok = Some(false);
    exchange.set(Attribute::ErrorType, name.as_str());
    exchange.error = Some(error.into());
    exchange.status.get_or_insert(name.into());
}
