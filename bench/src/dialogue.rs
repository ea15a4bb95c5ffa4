//! What is said, again and again.

mod database;
mod handshake;
mod keys;
mod multiplexed;
mod names;
mod web;

/// Whether the client speaks, and what.
pub type Turn = (bool, Vec<u8>);

/// What a client and a server say to each other.
#[derive(Debug, Clone, Default)]
pub struct Dialogue {
    /// For the tables.
    pub name: &'static str,
    /// As weir's records name it.
    pub protocol: &'static str,
    /// Where the server listens: where others expect the protocol too.
    pub port: u16,
    /// UDP; else TCP.
    pub udp: bool,
    /// Said once, at the connection's beginning.
    pub opening: Vec<Turn>,
    /// Said in each round.
    pub turns: Vec<Turn>,
    /// Requests in a round; of a protocol without requests, messages.
    pub requests: u32,
    /// Nothing is told of a round: the connection's one record tells all messages.
    pub is_counted_only: bool,
    /// Each round has a connection of its own.
    pub reconnects: bool,
    /// The field of which tshark prints a value for each request.
    pub tshark_field: &'static str,
    /// Writes a number of its own into what is said in a round.
    pub numbered: Option<fn(&mut [u8], u32)>,
    /// The heads in a round, for httparse.
    pub heads: Vec<Vec<u8>>,
    /// Whether httparse's time is what the target is about.
    pub is_compared: bool,
    /// Nanoseconds that a request may take.
    pub target_ns: Option<f64>,
}

impl Dialogue {
    /// Bytes of a round, as both ends say them.
    #[must_use]
    pub fn round_bytes(&self) -> u64 {
        self.turns.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Requests that a round must make known.
    #[must_use]
    pub fn told(&self) -> u64 {
        if self.is_counted_only { 0 } else { self.requests.into() }
    }
}

/// All that is measured: small and large messages of each protocol.
#[must_use]
pub fn dialogues() -> Vec<Dialogue> {
    [
        web::dialogues(),
        multiplexed::dialogues(),
        keys::dialogues(),
        database::postgresql::dialogues(),
        database::mysql::dialogues(),
        names::dialogues(),
        handshake::dialogues(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parsers, Talk};
    use weir_core::l7::Attribute;
    use weir_core::record::AttributeValue;

    #[test]
    fn every_request_is_found() {
        for dialogue in dialogues() {
            for segment_bytes in [1_448, 65_160] {
                let mut talk = Talk::new(&dialogue, segment_bytes, Parsers::new());
                let before = talk.listener.found;
                (0..200).for_each(|_| talk.round());
                let found = talk.listener.found - before;
                assert_eq!(found, 200 * dialogue.told(), "{}", dialogue.name);
                if dialogue.is_counted_only {
                    let last = talk.listener.finish().unwrap();
                    let sent = last.exchange.attributes.get(Attribute::WebsocketSentMessages);
                    assert_eq!(sent, Some(&AttributeValue::Number(200)), "{}", dialogue.name);
                }
            }
        }
    }
}
