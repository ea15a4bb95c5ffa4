//! All conversations, within one memory limit.

mod entries;
mod live;
mod tally;

use super::conversation::Conversation;
use super::{Exchange, FrameAhead, Transport, Why};
use crate::capture::Wanted;
use crate::event::HookId;
use crate::flow::{ConnectionId, FlowKey, Side};
use crate::reveal::Reveal;
use crate::stream::{Connection, End, Gap, Piece, Segment};
use entries::{Entries, Kind};
use live::Live;

pub use tally::Tally;

/// A datagram's conversation is over when nothing came for this long.
const DATAGRAM_IDLE_NS: u64 = 60_000_000_000;
/// What a conversation costs besides what it keeps.
const CONVERSATION_BYTES: usize = 512;

/// How much the engine may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of everything that is kept. Beyond it, the conversation that was silent
    /// for longest is dropped.
    pub memory_bytes: usize,
    /// Of one connection's payload that is read. What goes beyond is left alone.
    pub connection_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, connection_bytes: u64::MAX }
    }
}

/// An exchange, and whose it is.
#[derive(Debug)]
pub struct Found {
    /// The connection.
    pub key: FlowKey,
    /// When its first packet came.
    pub first_ns: u64,
    /// What names it in records.
    pub flow: ConnectionId,
    /// Which end asked.
    pub client: Side,
    /// By [`Side::index`]: the hook that saw first what this end sends, where one did.
    pub hooks: [Option<HookId>; 2],
    /// As in records.
    pub protocol: &'static str,
    /// When nothing more was waited for.
    pub time_ns: u64,
    /// What was asked and answered.
    pub exchange: Box<Exchange>,
}

/// Every connection and every exchange of datagrams.
#[derive(Default)]
pub struct Engine {
    limits: Limits,
    reveal: Reveal,
    /// Streams and datagrams apart, because silence means different things in them.
    entries: Entries<Entry>,
    turn: u64,
    memory_bytes: usize,
    tally: Tally,
    /// What the kernel side is to be told.
    wanted: Vec<(FlowKey, Wanted)>,
}

struct Entry {
    key: FlowKey,
    first_ns: u64,
    flow: ConnectionId,
    last_ns: u64,
    /// In which something came last.
    turn: u64,
    memory_bytes: usize,
    stream: Connection,
    /// From its first bytes on.
    conversation: Option<Conversation>,
    hooks: [Option<HookId>; 2],
    captured_bytes: u64,
    /// Of one that the kernel side hands over.
    live: Option<Live>,
}

impl Entry {
    fn new(key: FlowKey, time_ns: u64) -> Self {
        Self {
            key,
            first_ns: time_ns,
            flow: key.connection_id(time_ns),
            last_ns: time_ns,
            turn: 0,
            memory_bytes: 0,
            stream: Connection::default(),
            conversation: None,
            hooks: [None; 2],
            captured_bytes: 0,
            live: None,
        }
    }

    fn whose(&self, time_ns: u64) -> Whose {
        let Self { key, first_ns, flow, hooks, .. } = *self;
        Whose { key, first_ns, flow, hooks, time_ns }
    }

    fn is_passing(&self) -> bool {
        self.conversation.as_ref().is_some_and(Conversation::is_passing)
    }

    /// The stream and who listens to it, with the given client if none was seen.
    fn split<'a>(
        &'a mut self,
        time_ns: u64,
        client: Option<Side>,
        reveal: Reveal,
        tally: &'a mut Tally,
        emit: &'a mut dyn FnMut(Found),
    ) -> (&'a mut Connection, Hearing<'a>) {
        let client = self.stream.client().or(client);
        let whose = self.whose(time_ns);
        let Self { stream, conversation, .. } = self;
        (stream, Hearing { whose, client, reveal, conversation, tally, emit })
    }
}

impl Engine {
    /// An engine that keeps to these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The same, in whose exchanges this may be shown.
    #[must_use]
    pub fn revealing(self, reveal: Reveal) -> Self {
        Self { reveal, ..self }
    }

    /// Sums so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Memory held, in bytes, roughly.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// A TCP segment of `key`, sent by `from`.
    pub fn segment(
        &mut self,
        key: FlowKey,
        from: Side,
        segment: &Segment<'_>,
        time_ns: u64,
        emit: &mut dyn FnMut(Found),
    ) {
        let mut place = self.entries.place(&key);
        if let Some(known) = place
            && self.entries.get(known).is_some_and(|entry| entry.stream.is_succeeded_by(from, segment))
        {
            self.end(known, emit);
            place = None;
        }
        if segment.rst && place.is_none() {
            return; // a refusal, or what is left of a connection that is over
        }
        let place = place.unwrap_or_else(|| self.insert(Kind::Stream, Entry::new(key, time_ns)));
        self.touch(place, time_ns);
        let Some(entry) = self.entries.get_mut(place) else { return };
        // Of what is not read any more only the end matters: nothing is kept.
        let segment =
            &Segment { payload: if entry.is_passing() { &[] } else { segment.payload }, ..*segment };
        let opened_by = if segment.syn && segment.ack.is_none() { Some(from) } else { None };
        let client = opened_by.or((segment.syn).then(|| from.other()));
        let (stream, mut hearing) = entry.split(time_ns, client, self.reveal, &mut self.tally, emit);
        stream.segment(from, segment, &mut |side, piece| hearing.piece(side, piece));
        if entry.stream.is_over() {
            self.remove(place, emit);
        } else {
            self.weigh(place);
        }
        self.keep_limit(emit);
    }

    /// A datagram of `key`, sent by `from`, of `sent_bytes` bytes, of which
    /// `payload` was captured.
    pub fn datagram(
        &mut self,
        key: FlowKey,
        from: Side,
        payload: &[u8],
        sent_bytes: u32,
        time_ns: u64,
        emit: &mut dyn FnMut(Found),
    ) {
        let place = self.entries.place(&key);
        let place = place.unwrap_or_else(|| self.insert(Kind::Datagrams, Entry::new(key, time_ns)));
        self.hear_datagram(place, from, payload, sent_bytes, time_ns, emit);
    }

    fn hear_datagram(
        &mut self,
        place: usize,
        from: Side,
        payload: &[u8],
        sent_bytes: u32,
        time_ns: u64,
        emit: &mut dyn FnMut(Found),
    ) {
        if payload.len() < usize::try_from(sent_bytes).unwrap_or(usize::MAX) {
            self.tally.gap(Gap::Cut);
        }
        self.touch(place, time_ns);
        let Some(entry) = self.entries.get_mut(place) else { return };
        let tally = &mut self.tally;
        let whose = entry.whose(time_ns);
        let conversation = entry.conversation.get_or_insert_with(|| {
            tally.conversations += 1;
            Conversation::new(Transport::Udp, entry.key.ports, None).revealing(self.reveal)
        });
        let mut found = |protocol, client, exchange| emit(whose.found(protocol, client, exchange));
        conversation.data(from, payload, time_ns, tally, &mut found);
        self.weigh(place);
        self.keep_limit(emit);
        self.end_silent(time_ns, emit);
    }

    /// Nothing more comes: ends every conversation.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Found)) {
        let mut places = self.entries.places();
        places.sort_unstable_by_key(|place| self.entries.get(*place).map(|entry| entry.turn));
        for place in places {
            self.end(place, emit);
        }
    }

    fn insert(&mut self, kind: Kind, entry: Entry) -> usize {
        self.entries.insert(entry.key, kind, entry)
    }

    /// Something came now.
    fn touch(&mut self, place: usize, time_ns: u64) {
        self.turn += 1;
        self.entries.touch(place);
        if let Some(entry) = self.entries.get_mut(place) {
            entry.turn = self.turn;
            entry.last_ns = entry.last_ns.max(time_ns);
        }
    }

    /// What it holds has changed.
    fn weigh(&mut self, place: usize) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        let conversation = entry.conversation.as_ref().map_or(0, Conversation::memory_bytes);
        let before = entry.memory_bytes;
        entry.memory_bytes = CONVERSATION_BYTES + entry.stream.memory_bytes() + conversation;
        self.memory_bytes = (self.memory_bytes + entry.memory_bytes).saturating_sub(before);
    }

    fn keep_limit(&mut self, emit: &mut dyn FnMut(Found)) {
        while self.memory_bytes > self.limits.memory_bytes {
            let oldest = [Kind::Stream, Kind::Datagrams].map(|kind| self.entries.oldest(kind));
            let turn = |place: &usize| self.entries.get(*place).map(|entry| entry.turn);
            let Some(place) = oldest.into_iter().flatten().min_by_key(turn) else { return };
            self.tally.evicted += 1;
            self.end(place, emit);
        }
    }

    fn end_silent(&mut self, now_ns: u64, emit: &mut dyn FnMut(Found)) {
        while let Some(place) = self.entries.oldest(Kind::Datagrams) {
            let silent = |entry: &Entry| entry.last_ns.saturating_add(DATAGRAM_IDLE_NS) < now_ns;
            if !self.entries.get(place).is_some_and(silent) {
                return;
            }
            self.end(place, emit);
        }
    }

    /// No more is seen of it.
    fn end(&mut self, place: usize, emit: &mut dyn FnMut(Found)) {
        if let Some(entry) = self.entries.get_mut(place) {
            let (stream, mut hearing) = entry.split(entry.last_ns, None, self.reveal, &mut self.tally, emit);
            stream.finish(End::Unseen, &mut |side, piece| hearing.piece(side, piece));
        }
        self.remove(place, emit);
    }

    fn remove(&mut self, place: usize, emit: &mut dyn FnMut(Found)) {
        let Some((_, mut entry)) = self.entries.remove(place) else { return };
        self.memory_bytes = self.memory_bytes.saturating_sub(entry.memory_bytes);
        entry.close(&mut self.tally, emit);
    }
}

impl Entry {
    /// The conversation is over.
    fn close(&mut self, tally: &mut Tally, emit: &mut dyn FnMut(Found)) {
        let whose = self.whose(self.last_ns);
        if let Some(mut conversation) = self.conversation.take() {
            let mut found = |protocol, client, exchange| emit(whose.found(protocol, client, exchange));
            conversation.finish(tally, &mut found);
        }
    }
}

/// What every exchange of a conversation says besides.
#[derive(Clone, Copy)]
struct Whose {
    key: FlowKey,
    first_ns: u64,
    flow: ConnectionId,
    hooks: [Option<HookId>; 2],
    time_ns: u64,
}

impl Whose {
    fn found(&self, protocol: &'static str, client: Side, exchange: Box<Exchange>) -> Found {
        let Self { key, first_ns, flow, hooks, time_ns } = *self;
        Found { key, first_ns, flow, client, hooks, protocol, time_ns, exchange }
    }
}

/// Hands a stream's pieces to its conversation, which begins with the first of them.
struct Hearing<'a> {
    whose: Whose,
    client: Option<Side>,
    reveal: Reveal,
    conversation: &'a mut Option<Conversation>,
    tally: &'a mut Tally,
    emit: &'a mut dyn FnMut(Found),
}

impl Hearing<'_> {
    /// The next frame of this end, where long contents need not be seen.
    fn frame_ahead(&self, from: Side) -> Option<FrameAhead> {
        self.conversation.as_ref()?.frame_ahead(from)
    }

    /// Nothing more of it is read.
    fn leave(&mut self, why: Why) {
        let Self { whose, conversation, tally, emit, .. } = self;
        if let Some(conversation) = conversation
            && !conversation.is_passing()
        {
            let mut found = |protocol, client, exchange| emit(whose.found(protocol, client, exchange));
            conversation.leave(why, tally, &mut found);
        }
    }

    fn piece(&mut self, from: Side, piece: Piece<'_>) {
        let Self { whose, client, reveal, conversation, tally, emit } = self;
        let time_ns = whose.time_ns;
        if conversation.is_none() {
            if matches!(piece, Piece::End(_)) {
                return;
            }
            tally.conversations += 1;
        }
        let conversation = conversation.get_or_insert_with(|| {
            Conversation::new(Transport::Tcp, whose.key.ports, *client).revealing(*reveal)
        });
        if conversation.is_passing() {
            return;
        }
        let mut found = |protocol, client, exchange| emit(whose.found(protocol, client, exchange));
        match piece {
            Piece::Data(bytes) => conversation.data(from, bytes, time_ns, tally, &mut found),
            Piece::Gap(length, gap) => {
                tally.gap(gap);
                conversation.gap(from, length, gap, time_ns, tally, &mut found);
            }
            Piece::LeftOut(length) => {
                tally.left_out_bytes += length;
                conversation.left_out(from, length, time_ns, tally, &mut found);
            }
            Piece::End(end) => conversation.end(from, end, time_ns, tally, &mut found),
        }
    }
}

#[cfg(test)]
mod tests;
