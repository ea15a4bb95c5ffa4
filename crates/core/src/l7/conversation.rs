//! One connection: from finding out what it speaks to its last exchange.

use super::detect::{Facts, Listener, Verdict};
use super::lane::{Lane, Outcome, Place};
use super::{
    Context, Direction, End, Exchange, FrameAhead, Gap, Parser, Protocol, Start, Tally, Transport, Why,
};
use crate::flow::Side;
use crate::reveal::Reveal;

/// A conversation's exchange, with the protocol's name and who asked.
pub(super) type Emit<'a> = dyn FnMut(&'static str, Side, Box<Exchange>) + 'a;

/// Protocols inside of each other (a tunnel to a server that upgrades ...).
const SWITCHES_MAX: u32 = 8;

pub(super) struct Conversation {
    facts: Facts,
    stage: Stage,
    switches: u32,
    reveal: Reveal,
}

enum Stage {
    Listening(Listener),
    Talking(Box<Talk>),
    Passing,
}

struct Talk {
    protocol: &'static Protocol,
    client: Side,
    parser: Box<dyn Parser>,
    /// By [`Direction::index`].
    lanes: [Lane; 2],
}

impl Conversation {
    /// `ports` by [`Side::index`]; `client`: who opened it, if that was seen.
    pub(super) fn new(transport: Transport, ports: [u16; 2], client: Option<Side>) -> Self {
        let late = transport == Transport::Tcp && client.is_none();
        Self {
            facts: Facts { transport, ports, client, late },
            stage: Stage::Listening(Listener::default()),
            switches: 0,
            reveal: Reveal::NOTHING,
        }
    }

    /// The same, in which this may be shown.
    pub(super) fn revealing(self, reveal: Reveal) -> Self {
        Self { reveal, ..self }
    }

    /// Whether nothing that comes changes anything any more.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.stage, Stage::Passing)
    }

    /// Heap memory held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        match &self.stage {
            Stage::Listening(listener) => listener.memory_bytes(),
            Stage::Talking(talk) => {
                size_of::<Talk>()
                    + talk.parser.memory_bytes()
                    + talk.lanes.iter().map(Lane::memory_bytes).sum::<usize>()
            }
            Stage::Passing => 0,
        }
    }

    /// Bytes of a stream, in order; or a whole datagram.
    pub(super) fn data(
        &mut self,
        from: Side,
        bytes: &[u8],
        time_ns: u64,
        tally: &mut Tally,
        emit: &mut Emit<'_>,
    ) {
        match &mut self.stage {
            Stage::Listening(listener) => {
                let verdict = listener.hear(from, bytes, time_ns, &self.facts);
                self.settle(verdict, tally, emit);
            }
            Stage::Talking(talk) => {
                let change = talk.data(from, bytes, time_ns, self.facts.transport, tally, emit);
                self.change(change, time_ns, tally, emit);
            }
            Stage::Passing => {}
        }
    }

    /// Bytes that are missing.
    pub(super) fn gap(
        &mut self,
        from: Side,
        length: u64,
        gap: Gap,
        time_ns: u64,
        tally: &mut Tally,
        emit: &mut Emit<'_>,
    ) {
        if let Stage::Listening(listener) = &mut self.stage {
            let verdict = listener.conclude(&self.facts);
            match verdict {
                Verdict::Found { .. } => self.settle(verdict, tally, emit),
                // What comes after the hole may say more.
                Verdict::Wait | Verdict::Unknown => {
                    self.facts.late = true;
                    self.stage = Stage::Listening(Listener::default());
                }
            }
        }
        if let Stage::Talking(talk) = &mut self.stage {
            talk.gap(from, length, gap, time_ns, tally, emit);
            let change = talk.release(time_ns, tally, emit);
            self.change(change, time_ns, tally, emit);
        }
    }

    /// Bytes that were not captured because they are being skipped.
    pub(super) fn left_out(
        &mut self,
        from: Side,
        length: u64,
        time_ns: u64,
        tally: &mut Tally,
        emit: &mut Emit<'_>,
    ) {
        let Stage::Talking(talk) = &mut self.stage else {
            // Nobody could have asked for that.
            return self.gap(from, length, Gap::Cut, time_ns, tally, emit);
        };
        let direction = talk.direction(from);
        talk.with(direction, time_ns, tally, emit, |lane, place| lane.left_out(place, length));
        let change = talk.release(time_ns, tally, emit);
        self.change(change, time_ns, tally, emit);
    }

    /// How many of the next bytes of this end need not be seen.
    pub(super) fn skip_left(&self, from: Side) -> Option<u64> {
        match &self.stage {
            Stage::Talking(talk) => {
                let direction = talk.direction(from);
                talk.lanes[direction.index()].skip_left(&*talk.parser, direction)
            }
            Stage::Listening(_) | Stage::Passing => None,
        }
    }

    /// The next frame of this end, where long contents need not be seen.
    pub(super) fn frame_ahead(&self, from: Side) -> Option<FrameAhead> {
        let Stage::Talking(talk) = &self.stage else { return None };
        let direction = talk.direction(from);
        talk.lanes[direction.index()].frame_ahead(&*talk.parser, direction)
    }

    /// Nothing more of it is read, for a reason that is not its own.
    pub(super) fn leave(&mut self, why: Why, tally: &mut Tally, emit: &mut Emit<'_>) {
        if let Stage::Talking(talk) = &mut self.stage {
            talk.finish(emit);
        }
        self.pass(why, tally);
    }

    /// Nothing more comes from this end.
    pub(super) fn end(&mut self, from: Side, end: End, time_ns: u64, tally: &mut Tally, emit: &mut Emit<'_>) {
        if let Stage::Listening(listener) = &mut self.stage {
            // The other end may still say what this is: a client that has asked
            // everything may close its direction at once.
            let verdict = listener.conclude(&self.facts);
            if matches!(verdict, Verdict::Found { .. }) {
                self.settle(verdict, tally, emit);
            }
        }
        if let Stage::Talking(talk) = &mut self.stage {
            let direction = talk.direction(from);
            talk.lanes[direction.index()].end(end);
            let change = talk.release(time_ns, tally, emit);
            self.change(change, time_ns, tally, emit);
        }
    }

    /// Nothing more comes at all.
    pub(super) fn finish(&mut self, tally: &mut Tally, emit: &mut Emit<'_>) {
        match std::mem::replace(&mut self.stage, Stage::Passing) {
            Stage::Listening(_) => tally.bypassed(Why::NotUnderstood),
            Stage::Talking(mut talk) => talk.finish(emit),
            Stage::Passing => {}
        }
    }

    fn settle(&mut self, verdict: Verdict, tally: &mut Tally, emit: &mut Emit<'_>) {
        match verdict {
            Verdict::Wait => {}
            Verdict::Unknown => self.pass(Why::NotUnderstood, tally),
            Verdict::Found { protocol, client } => {
                let Stage::Listening(listener) = std::mem::replace(&mut self.stage, Stage::Passing) else {
                    return;
                };
                self.begin(protocol, client, self.facts.late, None);
                for (side, bytes, time_ns) in listener.into_pieces() {
                    self.data(side, &bytes, time_ns, tally, emit);
                }
            }
        }
    }

    fn begin(
        &mut self,
        protocol: &'static Protocol,
        client: Side,
        late: bool,
        parser: Option<Box<dyn Parser>>,
    ) {
        let start = Start { transport: self.facts.transport, late, reveal: self.reveal };
        self.facts.client = Some(client);
        self.stage = Stage::Talking(Box::new(Talk {
            protocol,
            client,
            parser: parser.unwrap_or_else(|| (protocol.parser)(start)),
            lanes: [Lane::new(late), Lane::new(late)],
        }));
    }

    fn pass(&mut self, why: Why, tally: &mut Tally) {
        tally.bypassed(why);
        self.stage = Stage::Passing;
    }

    fn change(&mut self, change: Change, time_ns: u64, tally: &mut Tally, emit: &mut Emit<'_>) {
        let next = match change {
            Change::None => return,
            Change::Switch(_) if self.switches >= SWITCHES_MAX => {
                return self.pass(Why::NotUnderstood, tally);
            }
            Change::Bypass(why) => return self.pass(why, tally),
            Change::Switch(next) => next,
        };
        let Stage::Talking(mut talk) = std::mem::replace(&mut self.stage, Stage::Passing) else { return };
        let successor = talk.parser.successor();
        talk.finish(emit);
        self.switches += 1;
        let Talk { client, lanes: [to_server, to_client], .. } = *talk;
        match next {
            Some(protocol) => self.begin(protocol, client, false, successor),
            None => {
                self.facts.late = false;
                self.stage = Stage::Listening(Listener::default());
            }
        }
        for (from, lane) in [(client, to_server), (client.other(), to_client)] {
            let (kept, end) = lane.into_kept();
            if !kept.is_empty() {
                self.data(from, &kept, time_ns, tally, emit);
            }
            if let Some(end) = end {
                self.end(from, end, time_ns, tally, emit);
            }
        }
    }
}

/// What becomes of a talk.
enum Change {
    None,
    Switch(Option<&'static Protocol>),
    Bypass(Why),
}

impl Talk {
    fn direction(&self, from: Side) -> Direction {
        if from == self.client { Direction::ToServer } else { Direction::ToClient }
    }

    /// Lets a lane work.
    fn with<R>(
        &mut self,
        direction: Direction,
        time_ns: u64,
        tally: &mut Tally,
        emit: &mut Emit<'_>,
        work: impl FnOnce(&mut Lane, &mut Place<'_, '_>) -> R,
    ) -> R {
        let (name, client) = (self.protocol.name, self.client);
        let mut emit = |exchange: Box<Exchange>| emit(exchange.protocol.unwrap_or(name), client, exchange);
        let mut place = Place {
            parser: &mut *self.parser,
            protocol: self.protocol,
            cx: &mut Context { emit: &mut emit },
            direction,
            time_ns,
            too_long: &mut tally.messages_too_long,
        };
        work(&mut self.lanes[direction.index()], &mut place)
    }

    fn data(
        &mut self,
        from: Side,
        bytes: &[u8],
        time_ns: u64,
        transport: Transport,
        tally: &mut Tally,
        emit: &mut Emit<'_>,
    ) -> Change {
        let direction = self.direction(from);
        if transport == Transport::Udp {
            // A datagram stands for itself: what the parser left of it is over.
            self.lanes[direction.index()] = Lane::new(false);
        }
        let outcome = self.with(direction, time_ns, tally, emit, |lane, place| lane.data(place, bytes));
        match outcome {
            Outcome::Same => Change::None,
            Outcome::Moved => self.release(time_ns, tally, emit),
            Outcome::Switch(next) => Change::Switch(next),
            Outcome::Bypass(why) => self.leave(why, emit),
        }
    }

    fn gap(
        &mut self,
        from: Side,
        length: u64,
        gap: Gap,
        time_ns: u64,
        tally: &mut Tally,
        emit: &mut Emit<'_>,
    ) {
        let direction = self.direction(from);
        self.with(direction, time_ns, tally, emit, |lane, place| lane.gap(place, length, gap));
    }

    /// Something moved: whoever waited for that goes on, until nobody moves.
    fn release(&mut self, time_ns: u64, tally: &mut Tally, emit: &mut Emit<'_>) -> Change {
        if self.lanes.iter().all(Lane::is_open) {
            return Change::None; // nearly always
        }
        for direction in [Direction::ToClient, Direction::ToServer] {
            self.with(direction, time_ns, tally, emit, |lane, place| lane.close_if_ended(place));
        }
        loop {
            let mut moved = false;
            for direction in [Direction::ToServer, Direction::ToClient] {
                if !self.lanes[direction.index()].waits() {
                    continue;
                }
                let outcome = self.with(direction, time_ns, tally, emit, |lane, place| {
                    lane.stop_waiting();
                    lane.data(place, &[])
                });
                match outcome {
                    Outcome::Same => {}
                    Outcome::Moved => moved = true,
                    Outcome::Switch(next) => return Change::Switch(next),
                    Outcome::Bypass(why) => return self.leave(why, emit),
                }
                self.with(direction, time_ns, tally, emit, |lane, place| lane.close_if_ended(place));
            }
            if !moved {
                break;
            }
        }
        if self.lanes.iter().all(Lane::waits) {
            // Each for the other: they are not what they seemed to be.
            return self.leave(Why::NotUnderstood, emit);
        }
        Change::None
    }

    fn leave(&mut self, why: Why, emit: &mut Emit<'_>) -> Change {
        self.finish(emit);
        Change::Bypass(why)
    }

    fn finish(&mut self, emit: &mut Emit<'_>) {
        let (name, client) = (self.protocol.name, self.client);
        let mut emit = |exchange: Box<Exchange>| emit(exchange.protocol.unwrap_or(name), client, exchange);
        self.parser.finish(&mut Context { emit: &mut emit });
    }
}
