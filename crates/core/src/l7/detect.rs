//! Which protocol a connection speaks, and who in it is the client: by what
//! both ends say. The port only decides between guesses.

use super::{Guess, Heads, PROTOCOLS, Protocol, Transport};
use crate::flow::Side;

/// Bytes that are kept of a connection until it is clear what it speaks.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pieces in which they may come: each is played again with its own time.
const PIECES_MAX: usize = 256;
/// Segments of a connection that was joined late at which a message may begin.
const LATE_TRIES_MAX: u32 = 4096;
/// Datagrams of one conversation: each stands for itself, and one may be junk.
const DATAGRAM_TRIES_MAX: u32 = 8;

/// Listens until it is clear.
#[derive(Debug, Default)]
pub(super) struct Listener {
    heads: [Vec<u8>; 2],
    /// In the order in which they came: sender, length, time.
    pieces: Vec<(Side, usize, u64)>,
    tries: u32,
}

/// What has been found out.
pub(super) enum Verdict {
    Wait,
    Found { protocol: &'static Protocol, client: Side },
    Unknown,
}

/// What is known besides the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) transport: Transport,
    /// By [`Side::index`].
    pub(super) ports: [u16; 2],
    /// Who opened the connection, where that was seen.
    pub(super) client: Option<Side>,
    /// Its beginning was not seen.
    pub(super) late: bool,
}

impl Facts {
    fn tries_max(&self) -> u32 {
        match self.transport {
            Transport::Udp => DATAGRAM_TRIES_MAX,
            Transport::Tcp if self.late => LATE_TRIES_MAX,
            Transport::Tcp => 0,
        }
    }

    /// Who is the client, likelier one first; both only if that is open.
    fn clients(&self) -> Vec<Side> {
        match self.client {
            Some(client) => vec![client],
            // Servers have the lower port.
            None if self.ports[0] <= self.ports[1] => vec![Side::High, Side::Low],
            None => vec![Side::Low, Side::High],
        }
    }
}

impl Listener {
    pub(super) fn memory_bytes(&self) -> usize {
        self.heads.iter().map(Vec::capacity).sum::<usize>() + self.pieces.capacity() * 32
    }

    pub(super) fn hear(&mut self, side: Side, bytes: &[u8], time_ns: u64, facts: &Facts) -> Verdict {
        self.heads[side.index()].extend_from_slice(bytes);
        self.pieces.push((side, bytes.len(), time_ns));
        let full = self.pieces.len() >= PIECES_MAX
            || self.heads.iter().map(Vec::len).sum::<usize>() >= HEAD_BYTES_MAX;
        self.decide(facts, full)
    }

    /// Nothing more comes, or is kept: what is it likely to be?
    pub(super) fn conclude(&mut self, facts: &Facts) -> Verdict {
        self.decide(facts, true)
    }

    fn decide(&mut self, facts: &Facts, last: bool) -> Verdict {
        let mut likely: Option<(&'static Protocol, Side)> = None;
        let mut open = false;
        for client in facts.clients() {
            let heads = Heads {
                to_server: &self.heads[client.index()],
                to_client: &self.heads[client.other().index()],
                transport: facts.transport,
            };
            for protocol in PROTOCOLS.iter().filter(|one| one.transports.contains(&facts.transport)) {
                match (protocol.probe)(&heads) {
                    Guess::Sure => return Verdict::Found { protocol, client },
                    Guess::Maybe => {
                        open = true;
                        let at_home = protocol.ports.contains(&facts.ports[client.other().index()]);
                        if at_home && likely.is_none() {
                            likely = Some((protocol, client));
                        }
                    }
                    Guess::More => open = true,
                    Guess::No => {}
                }
            }
        }
        match likely {
            Some((protocol, client)) if last => Verdict::Found { protocol, client },
            _ if open && !last => Verdict::Wait,
            _ if self.tries < facts.tries_max() => {
                // A message may begin with the next segment or datagram.
                *self = Self { tries: self.tries + 1, ..Self::default() };
                Verdict::Wait
            }
            _ => Verdict::Unknown,
        }
    }

    /// What was heard, to be played to the parser.
    pub(super) fn into_pieces(self) -> Vec<(Side, Vec<u8>, u64)> {
        let [low, high] = self.heads;
        let mut rest = [low.as_slice(), high.as_slice()];
        let mut played = Vec::with_capacity(self.pieces.len());
        for (side, length, time_ns) in self.pieces {
            let (now, later) = rest[side.index()].split_at(length.min(rest[side.index()].len()));
            rest[side.index()] = later;
            played.push((side, now.to_vec(), time_ns));
        }
        played
    }
}
