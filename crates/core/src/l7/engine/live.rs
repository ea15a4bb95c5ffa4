//! Payload as the kernel side hands it over, and what it is told in return.

use std::num::NonZeroU32;

use super::{Engine, Entry, Found, Kind, Transport};
use crate::capture::{Frames, PayloadSeen, Wanted};
use crate::flow::{FlowKey, Protocol, Side};
use crate::frame::TcpHeader;
use crate::l7::{FrameAhead, Why};
use crate::stream::{Piece, Segment};

/// A connection whose entry made room for others comes back in its middle. What
/// is further than this from its beginning does not begin there.
const BEGINNING_BYTES: u32 = 1 << 20;

/// Where frames begin is told again after so much was copied of them: the kernel side
/// seems not to know it.
const FRAMES_COPIED_BYTES_MAX: u64 = 256 << 10;

/// What is remembered of a connection until the flow table says that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    flow_first_ns: u64,
    /// Both directions have ended, or nothing of it is wanted: what comes is a repetition.
    over: bool,
    /// By [`Side::index`].
    framed: [Framed; 2],
}

impl Live {
    pub(super) fn new(flow_first_ns: u64) -> Self {
        Self { flow_first_ns, over: false, framed: [Framed::default(); 2] }
    }
}

/// Of frames whose contents the kernel side can leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Framed {
    /// What it was told of them.
    told: Option<Frames>,
    /// How much it has copied since.
    copied_bytes: u64,
}

impl Framed {
    /// A segment was heard; `next_seq` comes next, and `ahead` is the frame there. `chain`:
    /// it led to where one of them begins. Whether there is something new to be told.
    fn heard(
        &mut self,
        copied_bytes: u64,
        next_seq: Option<u32>,
        ahead: FrameAhead,
        chain: Option<NonZeroU32>,
    ) -> bool {
        self.copied_bytes += copied_bytes;
        let (Some(next_seq), Ok(left), Ok(bytes)) =
            (next_seq, u32::try_from(ahead.left_bytes), u32::try_from(ahead.bytes))
        else {
            return false;
        };
        let known = self.told.and_then(|told| told.chain);
        let is_new = chain.is_some() && chain != known;
        if !is_new && self.copied_bytes < FRAMES_COPIED_BYTES_MAX {
            return false;
        }
        self.told = Some(Frames { seq: next_seq.wrapping_add(left), bytes, chain: chain.or(known) });
        self.copied_bytes = 0;
        true
    }
}

impl Engine {
    /// Payload that the kernel side has copied.
    pub fn payload(&mut self, seen: &PayloadSeen<'_>, emit: &mut dyn FnMut(Found)) {
        let key = seen.seen.key;
        self.tally.captured_bytes += seen.payload.len() as u64;
        let mut place = self.entries.place(&key);
        if let Some(known) = place
            && let Some(live) = self.entries.get(known).and_then(|entry| entry.live)
            && live.flow_first_ns != seen.flow_first_ns
        {
            if live.flow_first_ns > seen.flow_first_ns {
                return; // of a connection that is over
            }
            self.end(known, emit);
            place = None;
        }
        let transport = if key.protocol == Protocol::TCP { Transport::Tcp } else { Transport::Udp };
        let place = place.unwrap_or_else(|| self.begin(seen, transport));
        if let Some(entry) = self.entries.get_mut(place) {
            entry.hooks[seen.from.index()] = Some(seen.seen.hook);
            entry.captured_bytes += seen.payload.len() as u64;
        }
        match transport {
            Transport::Udp => {
                let (payload, sent_bytes) = (seen.payload, seen.payload_bytes);
                self.hear_datagram(place, seen.from, payload, sent_bytes, seen.seen.time_ns, emit);
            }
            Transport::Tcp => self.hear_segment(place, seen, emit),
        }
    }

    /// The flow table says that a connection is over. Whether none that is younger
    /// has its key.
    pub fn flow_ended(&mut self, key: &FlowKey, flow_first_ns: u64, emit: &mut dyn FnMut(Found)) -> bool {
        let Some(place) = self.entries.place(key) else { return true };
        let live = self.entries.get(place).and_then(|entry| entry.live);
        if live.is_some_and(|live| live.flow_first_ns > flow_first_ns) {
            return false;
        }
        self.end(place, emit);
        true
    }

    /// All payload of a flow has been handed over that passed before its ends had come
    /// so far. What is missing until there was left out, or is lost.
    pub fn flow_came_to(
        &mut self,
        key: &FlowKey,
        flow_first_ns: u64,
        next_seq: [u32; 2],
        emit: &mut dyn FnMut(Found),
    ) {
        let Some(place) = self.entries.place(key) else { return };
        let Some(entry) = self.entries.get_mut(place) else { return };
        if entry.live.is_none_or(|live| live.over || live.flow_first_ns != flow_first_ns) {
            return;
        }
        let (stream, mut hearing) = entry.split(entry.last_ns, None, self.reveal, &mut self.tally, emit);
        for side in [Side::Low, Side::High] {
            let mut deliver = |side, piece: Piece<'_>| hearing.piece(side, piece);
            stream.come_to(side, next_seq[side.index()], &mut deliver);
            stream.lack(side, next_seq[side.index()], &mut deliver);
        }
    }

    /// What the kernel side is to be told since the last time it was asked for,
    /// the older first.
    pub fn take_wanted(&mut self) -> Vec<(FlowKey, Wanted)> {
        // Usually empty, and then nothing is allocated.
        std::mem::take(&mut self.wanted)
    }

    fn begin(&mut self, seen: &PayloadSeen<'_>, transport: Transport) -> usize {
        let mut entry = Entry::new(seen.seen.key, seen.flow_first_ns);
        entry.live = Some(Live::new(seen.flow_first_ns));
        let kind = match transport {
            Transport::Udp => Kind::Datagrams,
            Transport::Tcp => {
                let now = |side: Side| if side == seen.from { seen.seq } else { seen.peer_next_seq };
                let near = |side: Side, first: u32| now(side).wrapping_sub(first) <= BEGINNING_BYTES;
                let firsts = [Side::Low, Side::High].map(|side| (side, seen.first_seq[side.index()]));
                if firsts.iter().all(|(side, first)| first.is_none_or(|first| near(*side, first))) {
                    for (side, first) in firsts {
                        if let Some(first) = first {
                            entry.stream.begin(side, first);
                        }
                    }
                    if let Some(client) = seen.client {
                        entry.stream.opened_by(client);
                    }
                }
                Kind::Stream
            }
        };
        self.insert(kind, entry)
    }

    fn hear_segment(&mut self, place: usize, seen: &PayloadSeen<'_>, emit: &mut dyn FnMut(Found)) {
        self.touch(place, seen.seen.time_ns);
        let connection_bytes = self.limits.connection_bytes;
        let Some(entry) = self.entries.get_mut(place) else { return };
        if entry.live.is_some_and(|live| live.over) {
            return;
        }
        let flag = |flag: u8| seen.tcp_flags & flag != 0;
        let segment = Segment {
            seq: seen.seq,
            ack: flag(TcpHeader::ACK).then_some(seen.ack),
            syn: false,
            fin: flag(TcpHeader::FIN),
            rst: flag(TcpHeader::RST),
            payload: seen.payload,
            payload_bytes: seen.payload_bytes,
        };
        let captured_bytes = entry.captured_bytes;
        let (stream, mut hearing) = entry.split(seen.seen.time_ns, None, self.reveal, &mut self.tally, emit);
        if segment.rst {
            // What was being skipped had come so far when it was broken off.
            stream.come_to(seen.from.other(), seen.peer_next_seq, &mut |side, piece| {
                hearing.piece(side, piece)
            });
        }
        let mut chain = None;
        if seen.frame_chain.is_some() {
            stream.come_to(seen.from, seen.seq, &mut |side, piece| hearing.piece(side, piece));
            let begins = stream.next_seq(seen.from) == Some(seen.seq)
                && hearing.frame_ahead(seen.from).is_some_and(|ahead| ahead.left_bytes == 0);
            chain = seen.frame_chain.filter(|_| begins);
        }
        stream.segment(seen.from, &segment, &mut |side, piece| hearing.piece(side, piece));
        if captured_bytes > connection_bytes {
            hearing.leave(Why::ByteLimit);
        }
        stream.leave_out(seen.from, seen.seq.wrapping_add(seen.payload_bytes), seen.left_out_bytes);
        self.tell_wanted(place, seen, chain);
        let Some(entry) = self.entries.get_mut(place) else { return };
        if entry.stream.is_over() || entry.is_passing() {
            // Until the flow table says so the entry stays: segments that are sent again
            // do not begin a connection.
            entry.close(&mut self.tally, emit);
            entry.stream = crate::stream::Connection::default();
            entry.live = Some(Live { over: true, ..Live::new(seen.flow_first_ns) });
        }
        self.weigh(place);
        self.keep_limit(emit);
    }

    /// Notes what the kernel need not copy any more, if that has changed. `chain`: what it
    /// presumed to be a frame is one.
    fn tell_wanted(&mut self, place: usize, seen: &PayloadSeen<'_>, chain: Option<NonZeroU32>) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        let (Some(conversation), Some(live)) = (&entry.conversation, &mut entry.live) else { return };
        let off = conversation.is_passing();
        let mut news = off;
        for side in [Side::Low, Side::High] {
            news |= entry.stream.skip(side, conversation.skip_left(side));
        }
        if let Some(ahead) = conversation.frame_ahead(seen.from) {
            let copied_bytes = seen.payload.len() as u64;
            let next_seq = entry.stream.next_seq(seen.from);
            news |= live.framed[seen.from.index()].heard(copied_bytes, next_seq, ahead, chain);
        }
        if news {
            let skip_until_seq = [Side::Low, Side::High].map(|side| entry.stream.skipped_until(side));
            let frames = live.framed.map(|framed| framed.told);
            let flow_first_ns = seen.flow_first_ns;
            self.wanted.push((entry.key, Wanted { flow_first_ns, skip_until_seq, frames, off }));
        }
    }
}
