//! Compressed packets: what they hold is a stream of packets, cut anywhere.
//!
//! Each has its length, a number, the length of what it holds, and that,
//! compressed by zlib or zstd; or as it is, if the second length is 0.

use super::decoder::Decoder;
use super::packets::Packets;
use super::probe;
use crate::l7::lane::{Lane, Outcome, Place};
use crate::l7::{Context, Direction, End, Gap, Guess, Parser, Protocol, Resync, Skipped, Step, Times};

/// Length, number, and length of what it holds.
const HEADER_BYTES: usize = 7;
/// Of a command that is recognised after a loss.
const PROBE_BYTES_MAX: usize = 16 * 1024;
/// No method compresses more.
const RATIO_MAX: usize = 1_100;

/// What compressed content begins with: zstd's magic number, or what everybody
/// begins zlib's streams with.
fn begins_compressed(first: u8) -> bool {
    matches!(first, 0x28 | 0x78)
}

/// A compressed packet's first bytes.
#[derive(Debug, Clone, Copy)]
struct Header {
    length: usize,
    sequence: u8,
    /// Of what it holds.
    content: usize,
    compressed: bool,
}

fn header(bytes: &[u8]) -> Option<Header> {
    let [a, b, c, sequence, d, e, f, ..] = bytes else { return None };
    let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    let content = u32::from_le_bytes([*d, *e, *f, 0]) as usize;
    let compressed = content > 0;
    Some(Header {
        length,
        sequence: *sequence,
        content: if compressed { content } else { length },
        compressed,
    })
}

/// Whether a client's compressed command begins here, and is whole.
pub(super) fn commands(bytes: &[u8]) -> Guess {
    let Some(header) = header(bytes) else {
        return if bytes.get(3).is_none_or(|sequence| *sequence == 0) { Guess::More } else { Guess::No };
    };
    if header.sequence != 0 || header.length == 0 || header.length > PROBE_BYTES_MAX {
        return Guess::No;
    }
    let begins = bytes.get(HEADER_BYTES).is_none_or(|first| begins_compressed(*first));
    if header.compressed && !(begins && header.content <= header.length * RATIO_MAX) {
        return Guess::No;
    }
    let Some(payload) = bytes.get(HEADER_BYTES..HEADER_BYTES + header.length) else { return Guess::More };
    if !header.compressed {
        return probe::commands(payload);
    }
    let mut content = Vec::new();
    let mut decoder = Decoder::default();
    let mut take = |piece: &[u8]| {
        let room = PROBE_BYTES_MAX.saturating_sub(content.len()).min(piece.len());
        content.extend_from_slice(piece.get(..room).unwrap_or_default());
    };
    match decoder.feed(payload, &mut take) {
        Ok(()) if content.len() == header.content.min(PROBE_BYTES_MAX) => probe::commands(&content),
        _ => Guess::No,
    }
}

/// A direction of compressed packets.
struct Stream {
    /// For what they hold.
    lane: Lane,
    decoder: Decoder,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    Header,
    /// Inside of a packet.
    Content {
        compressed: bool,
        /// Bytes of the packet that are still to come.
        left: usize,
        /// Bytes of what it holds that are still to come.
        content: u64,
        /// It cannot be decompressed.
        broken: bool,
    },
}

/// Both directions of a connection that compresses.
pub(super) struct Frames {
    protocol: &'static Protocol,
    /// By [`Direction::index`]; `None`: not compressed yet.
    streams: [Option<Stream>; 2],
    too_long: u64,
}

impl Frames {
    pub(super) fn new(protocol: &'static Protocol) -> Self {
        Self { protocol, streams: [None, None], too_long: 0 }
    }

    pub(super) fn is_active(&self, direction: Direction) -> bool {
        self.streams[direction.index()].is_some()
    }

    /// From here on packets are compressed, or they are again after a loss.
    pub(super) fn begin(&mut self, packets: &mut Packets, direction: Direction) {
        packets.session.frame(direction, 0);
        let stream = Stream { lane: Lane::new(false), decoder: Decoder::default(), at: At::Header };
        self.streams[direction.index()] = Some(stream);
    }

    /// Lets the lane of what is inside work.
    fn with<R>(
        &mut self,
        packets: &mut Packets,
        cx: &mut Context<'_>,
        direction: Direction,
        time_ns: u64,
        work: impl FnOnce(&mut Stream, &mut Place<'_, '_>) -> R,
    ) -> Option<R> {
        let Self { protocol, streams, too_long } = self;
        let stream = streams[direction.index()].as_mut()?;
        let mut place = Place { parser: packets, protocol, cx, direction, time_ns, too_long };
        Some(work(stream, &mut place))
    }

    pub(super) fn data(
        &mut self,
        packets: &mut Packets,
        cx: &mut Context<'_>,
        direction: Direction,
        bytes: &[u8],
        times: Times,
    ) -> Step {
        let Some(stream) = &mut self.streams[direction.index()] else { return Step::Desync };
        let At::Content { compressed, left, content, broken } = stream.at else {
            let Some(header) = header(bytes) else { return Step::NeedMore(HEADER_BYTES) };
            let Header { length, content, compressed, .. } = header;
            if length == 0 {
                return Step::Desync;
            }
            packets.session.frame(direction, (HEADER_BYTES + length) as u64);
            let content = content as u64;
            // What is inside is not looked at: it need not be decompressed.
            let broken = compressed && stream.lane.skips() >= content;
            stream.at = At::Content { compressed, left: length, content, broken };
            return Step::Consumed(HEADER_BYTES);
        };
        let now = left.min(bytes.len());
        let piece = bytes.get(..now).unwrap_or_default();
        let mut left_content = content;
        let mut result = Outcome::Same;
        let fed = self.with(packets, cx, direction, times.last_ns, |stream, place| {
            let mut take = |piece: &[u8]| {
                let room = usize::try_from(left_content).unwrap_or(usize::MAX).min(piece.len());
                left_content -= room as u64;
                let outcome = stream.lane.data(place, piece.get(..room).unwrap_or_default());
                if matches!(outcome, Outcome::Bypass(_)) {
                    result = outcome;
                }
            };
            match (broken, compressed) {
                (true, _) => Ok(()),
                (false, true) => stream.decoder.feed(piece, &mut take),
                (false, false) => {
                    take(piece);
                    Ok(())
                }
            }
        });
        if let Outcome::Bypass(why) = result {
            return Step::Bypass(why);
        }
        let mut broken = broken || !matches!(fed, Some(Ok(())));
        let left = left - now;
        if let Some(stream) = &mut self.streams[direction.index()] {
            // As above: a long row may have begun in this packet.
            broken |= compressed && stream.lane.skips() >= left_content;
            if broken {
                stream.decoder = Decoder::default();
            }
            stream.at = At::Content { compressed, left, content: left_content, broken };
        }
        if left == 0 {
            self.end_packet(packets, cx, direction, times.last_ns, None);
        }
        Step::Consumed(now.max(1))
    }

    /// A compressed packet is over; what was not decompressed of it passes by.
    fn end_packet(
        &mut self,
        packets: &mut Packets,
        cx: &mut Context<'_>,
        direction: Direction,
        time_ns: u64,
        gap: Option<Gap>,
    ) {
        self.with(packets, cx, direction, time_ns, |stream, place| {
            let At::Content { content, .. } = stream.at else { return };
            stream.at = At::Header;
            stream.decoder = Decoder::default();
            match gap {
                _ if content == 0 => {}
                None if stream.lane.skips() >= content => stream.lane.pass(place, content),
                gap => stream.lane.gap(place, content, gap.unwrap_or(Gap::Cut)),
            }
        });
    }

    /// What is left of the packet, where it is missing.
    pub(super) fn bridges(&self, direction: Direction) -> Option<u64> {
        match self.streams[direction.index()].as_ref()?.at {
            At::Content { left, .. } => Some(left as u64),
            At::Header => None,
        }
    }

    pub(super) fn skipped(
        &mut self,
        packets: &mut Packets,
        cx: &mut Context<'_>,
        direction: Direction,
        skipped: Skipped,
    ) {
        if !skipped.cut_off {
            self.end_packet(packets, cx, direction, skipped.time_ns, skipped.gap);
        }
    }

    /// Where packets begin is not known any more.
    pub(super) fn lost(
        &mut self,
        packets: &mut Packets,
        cx: &mut Context<'_>,
        direction: Direction,
        times: Times,
        gap: Option<Gap>,
    ) {
        let Some(stream) = &mut self.streams[direction.index()] else { return };
        let lane = std::mem::replace(&mut stream.lane, Lane::new(true));
        stream.at = At::Header;
        stream.decoder = Decoder::default();
        let (kept, _) = lane.into_kept();
        packets.lost(cx, direction, &kept, times, gap);
    }

    /// Where the next packet that makes sense begins.
    pub(super) fn resync(&mut self, packets: &mut Packets, direction: Direction, bytes: &[u8]) -> Resync {
        let found = match direction {
            Direction::ToServer => probe::found(commands(bytes), bytes.len()),
            Direction::ToClient if !packets.session.is_fresh() => Resync::Keep(0),
            Direction::ToClient => answer(packets, bytes),
        };
        if let Resync::At(_) = found {
            self.begin(packets, direction);
        }
        found
    }

    pub(super) fn close(
        &mut self,
        packets: &mut Packets,
        cx: &mut Context<'_>,
        direction: Direction,
        end: End,
        time_ns: u64,
    ) {
        self.with(packets, cx, direction, time_ns, |stream, place| {
            stream.lane.end(end);
            stream.lane.close_if_ended(place);
        });
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let streams = self.streams.iter().flatten();
        streams.map(|stream| stream.lane.memory_bytes() + stream.decoder.memory_bytes()).sum()
    }
}

/// Whether the answer that is waited for begins here. Compressed packets of an
/// answer are numbered from 1 on.
fn answer(packets: &mut Packets, bytes: &[u8]) -> Resync {
    let Some(header) = header(bytes) else { return Resync::Keep(bytes.len()) };
    let content = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let (kind, sequence) = packets.session.expected();
    let begins = match header.compressed {
        true => content.first().copied().map(begins_compressed),
        false => probe::begins_answer(content, kind, None),
    };
    match begins {
        None => Resync::Keep(bytes.len()),
        Some(true) if header.sequence == sequence => Resync::At(0),
        Some(_) => {
            packets.session.is_stale();
            Resync::Keep(0)
        }
    }
}
