//! All conversations, within one memory limit.

use std::collections::{BTreeMap, HashMap};

use super::conversation::Conversation;
use super::{Exchange, Transport, Why};
use crate::flow::{FlowKey, Side};
use crate::reveal::Reveal;
use crate::stream::{Connection, End, Gap, Piece, Segment};

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
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20 }
    }
}

/// An exchange, and whose it is.
#[derive(Debug)]
pub struct Found {
    /// The connection.
    pub key: FlowKey,
    /// When its first packet came.
    pub first_ns: u64,
    /// Which end asked.
    pub client: Side,
    /// As in records.
    pub protocol: &'static str,
    /// When nothing more was waited for.
    pub time_ns: u64,
    /// What was asked and answered.
    pub exchange: Exchange,
}

/// What could not be read, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Conversations.
    pub conversations: u64,
    /// Those that were not (or no longer) parsed, by reason.
    pub bypassed: BTreeMap<Why, u64>,
    /// Holes in streams, acknowledged by their receiver.
    pub gaps_lost: u64,
    /// Holes because packets were captured only in part.
    pub gaps_cut: u64,
    /// Holes that nobody acknowledged.
    pub gaps_not_seen: u64,
    /// Conversations that were dropped because their memory was needed.
    pub evicted: u64,
    /// Messages that were longer than what is kept of their protocol.
    pub messages_too_long: u64,
}

impl Tally {
    pub(super) fn bypassed(&mut self, why: Why) {
        *self.bypassed.entry(why).or_default() += 1;
    }

    fn gap(&mut self, gap: Gap) {
        *match gap {
            Gap::Cut => &mut self.gaps_cut,
            Gap::Lost => &mut self.gaps_lost,
            Gap::NotSeen => &mut self.gaps_not_seen,
        } += 1;
    }

    /// What is missing because of a loss, with its name in records.
    #[must_use]
    pub fn losses(&self) -> [(&'static str, u64); 5] {
        [
            ("stream_gaps_lost", self.gaps_lost),
            ("stream_gaps_cut", self.gaps_cut),
            ("stream_gaps_not_seen", self.gaps_not_seen),
            ("conversations_evicted", self.evicted),
            ("messages_too_long", self.messages_too_long),
        ]
    }
}

/// Every connection and every exchange of datagrams.
#[derive(Default)]
pub struct Engine {
    limits: Limits,
    reveal: Reveal,
    entries: HashMap<FlowKey, Entry>,
    /// By the turn in which something came last: longest silent first. Streams
    /// and datagrams apart, because silence means different things in them.
    streams: BTreeMap<u64, FlowKey>,
    datagrams: BTreeMap<u64, FlowKey>,
    turn: u64,
    memory_bytes: usize,
    tally: Tally,
}

struct Entry {
    first_ns: u64,
    last_ns: u64,
    turn: u64,
    memory_bytes: usize,
    stream: Connection,
    /// From its first bytes on.
    conversation: Option<Conversation>,
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
        let succeeds = |entry: &Entry| entry.stream.is_succeeded_by(from, segment);
        if self.entries.get(&key).is_some_and(succeeds) {
            self.end(&key, emit);
        }
        if segment.rst && !self.entries.contains_key(&key) {
            return; // a refusal, or what is left of a connection that is over
        }
        let mut entry = self.entry(key, time_ns);
        // Of what is not read any more only the end matters: nothing is kept.
        let passes = entry.conversation.as_ref().is_some_and(Conversation::is_passing);
        let segment = &Segment { payload: if passes { &[] } else { segment.payload }, ..*segment };
        let Entry { first_ns, stream, conversation, .. } = &mut entry;
        let first_ns = *first_ns;
        let opened_by = if segment.syn && segment.ack.is_none() { Some(from) } else { None };
        let client = stream.client().or(opened_by).or((segment.syn).then(|| from.other()));
        let reveal = self.reveal;
        let mut listener =
            Hearing { key, first_ns, time_ns, client, reveal, conversation, tally: &mut self.tally, emit };
        stream.segment(from, segment, &mut |side, piece| listener.piece(side, piece));
        if entry.stream.is_over() {
            self.close(key, entry, emit);
        } else {
            self.put_back(key, entry);
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
        let mut entry = self.entry(key, time_ns);
        if payload.len() < usize::try_from(sent_bytes).unwrap_or(usize::MAX) {
            self.tally.gap(Gap::Cut);
        }
        let conversation = entry.conversation.get_or_insert_with(|| {
            self.tally.conversations += 1;
            Conversation::new(Transport::Udp, key.ports, None).revealing(self.reveal)
        });
        let first_ns = entry.first_ns;
        let mut found = |protocol, client, exchange| {
            emit(Found { key, first_ns, client, protocol, time_ns, exchange });
        };
        conversation.data(from, payload, time_ns, &mut self.tally, &mut found);
        self.put_back(key, entry);
        self.keep_limit(emit);
        self.end_silent(time_ns, emit);
    }

    /// Nothing more comes: ends every conversation.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Found)) {
        let mut turns: Vec<_> = self.entries.iter().map(|(key, entry)| (entry.turn, *key)).collect();
        turns.sort_unstable_by_key(|(turn, _)| *turn);
        for (_, key) in turns {
            self.end(&key, emit);
        }
    }

    /// Takes the entry out (to be put back, or to be closed).
    fn entry(&mut self, key: FlowKey, time_ns: u64) -> Entry {
        self.turn += 1;
        let turn = self.turn;
        match self.take(&key) {
            Some(entry) => Entry { last_ns: time_ns.max(entry.last_ns), turn, ..entry },
            None => Entry {
                first_ns: time_ns,
                last_ns: time_ns,
                turn,
                memory_bytes: 0,
                stream: Connection::default(),
                conversation: None,
            },
        }
    }

    fn take(&mut self, key: &FlowKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.order(key).remove(&entry.turn);
        self.memory_bytes = self.memory_bytes.saturating_sub(entry.memory_bytes);
        Some(entry)
    }

    fn put_back(&mut self, key: FlowKey, mut entry: Entry) {
        let conversation = entry.conversation.as_ref().map_or(0, Conversation::memory_bytes);
        entry.memory_bytes = CONVERSATION_BYTES + entry.stream.memory_bytes() + conversation;
        self.memory_bytes += entry.memory_bytes;
        self.order(&key).insert(entry.turn, key);
        self.entries.insert(key, entry);
    }

    fn order(&mut self, key: &FlowKey) -> &mut BTreeMap<u64, FlowKey> {
        if key.protocol == crate::flow::Protocol::TCP { &mut self.streams } else { &mut self.datagrams }
    }

    fn keep_limit(&mut self, emit: &mut dyn FnMut(Found)) {
        while self.memory_bytes > self.limits.memory_bytes {
            let oldest = [self.streams.first_key_value(), self.datagrams.first_key_value()];
            let Some((_, key)) = oldest.into_iter().flatten().min_by_key(|(turn, _)| **turn) else { return };
            let key = *key;
            self.tally.evicted += 1;
            self.end(&key, emit);
        }
    }

    fn end_silent(&mut self, now_ns: u64, emit: &mut dyn FnMut(Found)) {
        while let Some((_, key)) = self.datagrams.first_key_value() {
            let key = *key;
            let silent = |entry: &Entry| entry.last_ns.saturating_add(DATAGRAM_IDLE_NS) < now_ns;
            if !self.entries.get(&key).is_some_and(silent) {
                return;
            }
            self.end(&key, emit);
        }
    }

    fn end(&mut self, key: &FlowKey, emit: &mut dyn FnMut(Found)) {
        let Some(mut entry) = self.take(key) else { return };
        let Entry { first_ns, last_ns, stream, conversation, .. } = &mut entry;
        let (first_ns, time_ns) = (*first_ns, *last_ns);
        let client = stream.client();
        let reveal = self.reveal;
        let mut hearing = Hearing {
            key: *key,
            first_ns,
            time_ns,
            client,
            reveal,
            conversation,
            tally: &mut self.tally,
            emit,
        };
        stream.finish(End::Unseen, &mut |side, piece| hearing.piece(side, piece));
        self.close(*key, entry, emit);
    }

    fn close(&mut self, key: FlowKey, entry: Entry, emit: &mut dyn FnMut(Found)) {
        let Entry { first_ns, last_ns, conversation, .. } = entry;
        if let Some(mut conversation) = conversation {
            let mut found = |protocol, client, exchange| {
                emit(Found { key, first_ns, client, protocol, time_ns: last_ns, exchange });
            };
            conversation.finish(&mut self.tally, &mut found);
        }
    }
}

/// Hands a stream's pieces to its conversation, which begins with the first of them.
struct Hearing<'a> {
    key: FlowKey,
    first_ns: u64,
    time_ns: u64,
    client: Option<Side>,
    reveal: Reveal,
    conversation: &'a mut Option<Conversation>,
    tally: &'a mut Tally,
    emit: &'a mut dyn FnMut(Found),
}

impl Hearing<'_> {
    fn piece(&mut self, from: Side, piece: Piece<'_>) {
        let Self { key, first_ns, time_ns, client, reveal, conversation, tally, emit } = self;
        let (key, first_ns, time_ns) = (*key, *first_ns, *time_ns);
        if conversation.is_none() {
            if matches!(piece, Piece::End(_)) {
                return;
            }
            tally.conversations += 1;
        }
        let conversation = conversation
            .get_or_insert_with(|| Conversation::new(Transport::Tcp, key.ports, *client).revealing(*reveal));
        if conversation.is_passing() {
            return;
        }
        let mut found = |protocol, client, exchange| {
            emit(Found { key, first_ns, client, protocol, time_ns, exchange });
        };
        match piece {
            Piece::Data(bytes) => conversation.data(from, bytes, time_ns, tally, &mut found),
            Piece::Gap(length, gap) => {
                tally.gap(gap);
                conversation.gap(from, length, gap, time_ns, tally, &mut found);
            }
            Piece::End(end) => conversation.end(from, end, time_ns, tally, &mut found),
        }
    }
}

#[cfg(test)]
mod tests;
