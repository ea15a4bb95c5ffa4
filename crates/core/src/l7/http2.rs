//! HTTP/2 (RFC 9113), and gRPC in it.
//!
//! A connection has many streams, each with one request and its answer, and the
//! stream's number says which belong together, whatever else was missed. What
//! is told by numbers too, and needs everything from the beginning, are header
//! fields; see `hpack`.
//!
//! Frames are read piece by piece, so that a hole inside of one costs what was
//! in it and no more: where the next one begins stays known.
//!
//! - `frame`: headers of frames;
//! - `sync`: how to recognise them, also in the middle of a connection;
//! - `hpack`, `headers`: fields, and what they say;
//! - `stream`, `grpc`: a request with its answer;
//! - `hear`: what header fields do to streams, and when those are told;
//! - `way`: one direction: where in a frame it is;
//! - here: what a connection remembers.

mod frame;
mod grpc;
mod headers;
mod hear;
mod hpack;
mod stream;
mod sync;
#[cfg(test)]
mod tests;
mod way;

use std::collections::VecDeque;

use self::frame::{HEADER_BYTES, Header, PREFACE};
pub(super) use self::grpc::NAME as CALLS;
use self::stream::Stream;
use self::way::{Reading, Way};
use super::{
    Context, Direction, End, Exchange, FrameAhead, Gap, Guess, Heads, Keyed, Parser, Part, Protocol, Resync,
    Skipped, Start, Step, Times, Transport,
};
use crate::record::Capture;
use crate::reveal::Reveal;

/// Servers allow 100 or 250 at a time.
const STREAMS_MAX: usize = 1_024;
/// Streams of which frames may still come after they were told.
const TOLD_MAX: usize = 256;

pub(super) static PROTOCOL: Protocol = Protocol {
    name: "http",
    transports: &[Transport::Tcp],
    ports: &[], // its probe knows, or does not
    message_bytes_max: way::BLOCK_BYTES_MAX,
    probe,
    parser: |start| Box::new(Http2::new(start)),
};

fn probe(heads: &Heads<'_>) -> Guess {
    let asked = sync::guess(Direction::ToServer, heads.to_server);
    let answered = sync::guess(Direction::ToClient, heads.to_client);
    match (asked, answered) {
        (Guess::Sure, _) | (_, Guess::Sure) => Guess::Sure,
        (Guess::No, _) | (_, Guess::No) => Guess::No,
        _ => Guess::More,
    }
}

/// The parser of a connection that began as HTTP/1.1: its first request is
/// answered on the first stream, after so many bytes that announce it.
pub(super) fn upgraded(request: Exchange, interim_bytes: u64, reveal: Reveal) -> Box<dyn Parser> {
    let mut http2 = Http2::new(Start { transport: Transport::Tcp, late: false, reveal });
    http2.streams.insert(1, Stream::upgraded(request, interim_bytes));
    http2.asked = 1;
    Box::new(http2)
}

/// One connection.
struct Http2 {
    /// By [`Direction::index`].
    ways: [Way; 2],
    streams: Keyed<u32, Stream>,
    /// Those told last: what still comes of them is passed over.
    told: VecDeque<u32>,
    /// The highest stream that the client has opened.
    asked: u32,
    /// The last stream that the server answers before it leaves, and why it does.
    goaway: Option<(u32, u32)>,
    reveal: Reveal,
}

impl Http2 {
    fn new(start: Start) -> Self {
        Self {
            ways: [Way::new(start.late), Way::new(start.late)],
            streams: Keyed::new(STREAMS_MAX),
            told: VecDeque::new(),
            asked: 0,
            goaway: None,
            reveal: start.reveal,
        }
    }

    fn way(&mut self, direction: Direction) -> &mut Way {
        &mut self.ways[direction.index()]
    }

    /// A frame's header, or the connection's first words.
    fn header(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        if direction == Direction::ToServer && sync::may_be_preface(bytes) {
            if bytes.len() < PREFACE.len() {
                return Step::NeedMore(PREFACE.len());
            }
            self.begin();
            return Step::Consumed(PREFACE.len());
        }
        let Some(header) = Header::parse(bytes) else { return Step::NeedMore(HEADER_BYTES) };
        let way = self.way(direction);
        if !header.is_possible() || way.guessed && !header.is_usual() {
            return Step::Desync;
        }
        let part = Part::new(times, HEADER_BYTES as u64);
        if let Some(said) = way.begin(header, part) {
            self.hear(cx, direction, &said);
        }
        if header.kind == frame::DATA {
            match self.streams.get_mut(&header.stream) {
                Some(stream) => stream.count(direction, part),
                // Its head was not seen, or it was told already.
                None => self.way(direction).reading = Reading::Payload(0, header.length),
            }
        }
        self.end_if_whole(cx, direction);
        Step::Consumed(HEADER_BYTES)
    }

    /// Nothing was missed of the client; nor of the server, if it is silent yet.
    fn begin(&mut self) {
        if !self.way(Direction::ToClient).begun {
            *self.way(Direction::ToClient) = Way::new(false);
        }
        *self.way(Direction::ToServer) = Way::new(false);
    }

    fn end_if_whole(&mut self, cx: &mut Context<'_>, direction: Direction) {
        let way = self.way(direction);
        if way.reading.left() > 0 {
            return;
        }
        way.reading = Reading::Header;
        let (frame, part, numbers) = (way.frame, way.part, [way.number(0), way.number(4)]);
        if let Some(said) = way.end() {
            self.hear(cx, direction, &said);
        }
        match frame.kind {
            frame::DATA if frame.has(frame::END_STREAM) => self.half_ends(cx, direction, frame.stream),
            frame::RST_STREAM => {
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.reset(direction, numbers[0], part);
                    self.tell_if_done(cx, frame.stream);
                }
            }
            frame::GOAWAY if direction == Direction::ToClient => {
                if let [Some(last), Some(code)] = numbers {
                    self.goaway = Some((last & 0x7fff_ffff, code));
                }
            }
            _ => {}
        }
    }

    /// Padding's length, or content that may be what stands before a message.
    fn content(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], time_ns: u64) -> Step {
        let way = &mut self.ways[direction.index()];
        let stream = self.streams.get_mut(&way.frame.stream);
        let used = match (way.reading, stream, bytes) {
            (Reading::PadLength(left), stream, [padding, ..]) => {
                let left = left.saturating_sub(1);
                let padding = usize::from(*padding).min(left);
                way.reading = Reading::Content(left - padding, padding);
                if let Some(stream) = stream {
                    stream.pass(direction, 0, 1, time_ns);
                }
                1
            }
            (Reading::Content(content, padding), Some(stream), _) => {
                let seen = bytes.get(..content).unwrap_or(bytes);
                let used = stream.prefix(direction, seen, time_ns);
                way.reading = Reading::Content(content - used, padding);
                used
            }
            (reading, ..) => return Step::Skip(reading.left() as u64),
        };
        self.end_if_whole(cx, direction);
        Step::Consumed(used)
    }
}

impl Parser for Http2 {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], times: Times) -> Step {
        if let Some(skips) = self.skips_next(direction) {
            return Step::Skip(skips);
        }
        match self.way(direction).reading {
            Reading::Header => self.header(cx, direction, bytes, times),
            Reading::Payload(wanted, rest) => {
                let seen = bytes.get(..wanted).unwrap_or(bytes);
                let way = self.way(direction);
                way.take(seen, times.last_ns);
                way.reading = Reading::Payload(wanted - seen.len(), rest);
                self.end_if_whole(cx, direction);
                Step::Consumed(seen.len())
            }
            Reading::PadLength(_) | Reading::Content(..) => self.content(cx, direction, bytes, times.last_ns),
        }
    }

    fn skips_next(&self, direction: Direction) -> Option<u64> {
        let way = &self.ways[direction.index()];
        let skips = match way.reading {
            Reading::Header | Reading::Payload(1.., _) | Reading::PadLength(_) => return None,
            Reading::Content(content @ 1.., _) => {
                let skips =
                    self.streams.get(&way.frame.stream).map_or(Some(u64::MAX), |one| one.skips(direction))?;
                if skips < content as u64 { skips } else { way.reading.left() as u64 }
            }
            reading => reading.left() as u64,
        };
        Some(skips)
    }

    /// Messages of a call may begin in it; it is for their number only that they are looked at.
    fn spares(&self, direction: Direction) -> Option<u64> {
        let reading = self.ways[direction.index()].reading;
        matches!(reading, Reading::Content(..)).then(|| reading.left() as u64)
    }

    fn frame_ahead(&self, direction: Direction) -> Option<FrameAhead> {
        self.ways[direction.index()].frame_ahead()
    }

    /// A frame's length is known by its header.
    fn bridges(&self, direction: Direction) -> Option<u64> {
        Some(self.ways[direction.index()].reading.left() as u64)
    }

    fn skipped(&mut self, cx: &mut Context<'_>, direction: Direction, skipped: Skipped) {
        let Skipped { bytes, time_ns, gap, .. } = skipped;
        let passed = usize::try_from(bytes).unwrap_or(usize::MAX);
        let way = &mut self.ways[direction.index()];
        let (content, padding) = match way.reading {
            Reading::Header => return,
            Reading::Payload(wanted, rest) => {
                way.miss(bytes, time_ns, gap.into());
                let seen = passed.min(wanted);
                way.reading = Reading::Payload(wanted - seen, rest.saturating_sub(passed - seen));
                return self.end_if_whole(cx, direction);
            }
            Reading::PadLength(left) => {
                way.reading = Reading::Content(left.saturating_sub(passed), 0);
                (bytes, 0)
            }
            Reading::Content(content, padding) => {
                let seen = passed.min(content);
                way.reading = Reading::Content(content - seen, padding.saturating_sub(passed - seen));
                (seen as u64, (passed - seen) as u64)
            }
        };
        let number = way.frame.stream;
        self.with(number, |stream| {
            stream.pass(direction, content, padding, time_ns);
            if let Some(gap) = gap {
                stream.exchange.note_gap(gap);
            }
        });
        self.end_if_whole(cx, direction);
    }

    fn lost(&mut self, cx: &mut Context<'_>, direction: Direction, _: &[u8], _: Times, gap: Option<Gap>) {
        let way = self.way(direction);
        if gap.is_none() && way.searching {
            way.begun = true;
            return; // nothing more is lost than was
        }
        let capture = match (gap, way.doubt) {
            // Also where packets were only cut: in what is missing, frames of any stream began and
            // ended, so no size is known any more.
            (Some(_), _) => Capture::Gap,
            (None, Capture::Complete) => Capture::Truncated,
            (None, doubt) => doubt,
        };
        let said = way.break_off();
        way.lose(capture);
        if let Some(said) = said {
            self.hear(cx, direction, &said);
        }
        for mut stream in self.streams.drain() {
            stream.lose(direction, capture);
            if stream.is_done() {
                self.tell(cx, stream);
            } else {
                self.streams.insert(stream.number, stream);
            }
        }
    }

    fn resync(&mut self, direction: Direction, bytes: &[u8]) -> Resync {
        let Self { ways, streams, asked, .. } = self;
        let search = &mut ways[direction.index()].search;
        search.go_on(direction, bytes, &|number| match direction {
            // Those of the connection itself have none.
            _ if number == 0 || streams.contains(&number) => sync::Is::Open,
            Direction::ToServer if number <= *asked => sync::Is::Closed,
            _ => sync::Is::Unknown,
        })
    }

    /// The longest frame, which nothing in it tells apart from what it holds.
    fn search_bytes_max(&self) -> u64 {
        1 << 24
    }

    fn close(&mut self, _: &mut Context<'_>, _: Direction, _: End) {}

    fn finish(&mut self, cx: &mut Context<'_>) {
        for stream in self.streams.drain() {
            self.tell(cx, stream);
        }
    }

    fn memory_bytes(&self) -> usize {
        let ways: usize = self.ways.iter().map(Way::memory_bytes).sum();
        ways + self.told.capacity() * 4 + self.streams.len() * (size_of::<Stream>() + 1_024)
    }
}
