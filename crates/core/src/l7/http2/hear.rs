//! What header fields do to streams, and when those are told.

use super::frame;
use super::stream::Stream;
use super::way::Said;
use super::{Http2, TOLD_MAX};
use crate::l7::{Context, Direction};
use crate::record::Capture;

impl Http2 {
    /// A block of header fields has come.
    pub(super) fn hear(&mut self, cx: &mut Context<'_>, direction: Direction, said: &Said) {
        let Said { headers, part, .. } = said;
        let reveal = self.reveal;
        if let Some(promised) = said.promised {
            if direction == Direction::ToClient {
                self.ask(cx, promised, Stream::default());
                self.with(promised, |stream| {
                    stream.exchange.note(said.capture);
                    stream.hear_client(headers, *part, reveal);
                    stream.half(Direction::ToServer).over = true;
                });
            }
            return;
        }
        let number = said.stream;
        if !self.streams.contains(&number) {
            let begins = match direction {
                Direction::ToServer => {
                    number % 2 == 1 && number > self.asked && (headers.is_request() || headers.unseen)
                }
                Direction::ToClient if self.told.contains(&number) => false,
                // What was asked is not known.
                Direction::ToClient => headers.status.is_some() || headers.unseen && !said.last,
            };
            if !begins {
                return;
            }
            let mut stream = Stream::default();
            match direction {
                Direction::ToServer => self.asked = number,
                Direction::ToClient => stream.exchange.note(self.ways[Direction::ToServer.index()].doubt),
            }
            self.ask(cx, number, stream);
        }
        self.with(number, |stream| {
            stream.exchange.note(said.capture);
            match direction {
                Direction::ToServer => stream.hear_client(headers, *part, reveal),
                Direction::ToClient => stream.hear_server(headers, *part, reveal),
            }
        });
        if said.last {
            self.half_ends(cx, direction, number);
        }
    }

    pub(super) fn with(&mut self, number: u32, work: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.streams.get_mut(&number) {
            work(stream);
        }
    }

    pub(super) fn ask(&mut self, cx: &mut Context<'_>, number: u32, mut stream: Stream) {
        stream.number = number;
        for way in self.ways.iter().filter(|way| way.searching) {
            // Frames of it may be passed over.
            stream.exchange.note(way.doubt);
        }
        if let Some(mut dropped) = self.streams.insert(number, stream) {
            dropped.exchange.note(Capture::Truncated);
            self.tell(cx, dropped);
        }
    }

    pub(super) fn half_ends(&mut self, cx: &mut Context<'_>, direction: Direction, number: u32) {
        self.with(number, |stream| stream.half(direction).over = true);
        self.tell_if_done(cx, number);
    }

    pub(super) fn tell_if_done(&mut self, cx: &mut Context<'_>, number: u32) {
        if self.streams.get_mut(&number).is_some_and(|stream| stream.is_done())
            && let Some(stream) = self.streams.remove(&number)
        {
            self.tell(cx, stream);
        }
    }

    pub(super) fn tell(&mut self, cx: &mut Context<'_>, stream: Stream) {
        self.told.push_back(stream.number);
        if self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
        let refusal = match self.goaway {
            Some((last, 0)) if stream.number > last => Some("GOAWAY".to_owned()),
            Some((_, code @ 1..)) => Some(frame::error_name(code)),
            _ => None,
        };
        let exchange = stream.into_exchange(refusal);
        if exchange.request.is_some() || exchange.response.is_some() {
            cx.emit(exchange);
        }
    }
}
