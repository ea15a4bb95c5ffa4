//! How to recognise TLS by its hellos.

use super::{CLIENT_HELLO, HANDSHAKE, HEADER_BYTES, PROBE_BYTES, RECORD_BYTES_MAX, SERVER_HELLO};
use crate::l7::{Guess, Heads};

pub(super) fn probe(heads: &Heads<'_>) -> Guess {
    match (heads.to_server, heads.to_client) {
        // An alert alone may be the end of what was encrypted.
        ([], answer) => server_hello(answer),
        // Whatever the server answers: such a hello is nothing else.
        (hello, _) => client_hello(hello),
    }
}

/// Whether these bytes begin with a record that begins with such a hello.
fn guess(bytes: &[u8], message: u8) -> Guess {
    let pattern = |at: usize, byte: u8| match at {
        0 => byte == HANDSHAKE,
        1 | 9 => byte == 3,
        2 => byte <= 4,
        5 => byte == message,
        // No hello has 64 KiB.
        6 => byte == 0,
        10 => byte <= 4,
        _ => true,
    };
    let length = match bytes {
        [_, _, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => RECORD_BYTES_MAX - HEADER_BYTES,
    };
    // The first record may hold less than that.
    let end = PROBE_BYTES.min(HEADER_BYTES + length);
    let is_draft = |at: usize, byte: u8| matches!((at, byte), (9, 0x7f)) || at == 10;
    let fits = bytes
        .iter()
        .take(end)
        .enumerate()
        .all(|(at, byte)| pattern(at, *byte) || (bytes.get(9) == Some(&0x7f) && is_draft(at, *byte)));
    if !fits || length == 0 || length > RECORD_BYTES_MAX - HEADER_BYTES {
        Guess::No
    } else if bytes.len() < end {
        Guess::More
    } else {
        Guess::Sure
    }
}

/// The hello of SSL 2, in which clients of old offer newer versions too.
fn guess_ssl2(bytes: &[u8]) -> Guess {
    let parts = |at: usize| match bytes.get(at..at + 2) {
        Some([high, low]) => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    match bytes {
        [head, _, message, major, minor, ..] => {
            let version = matches!((*major, *minor), (0, 2) | (3, 0..=3));
            if head & 0x80 == 0 || *message != CLIENT_HELLO || !version {
                return Guess::No;
            }
            if bytes.len() < PROBE_BYTES {
                return Guess::More;
            }
            let (length, ciphers, session, challenge) = (parts(0) & 0x7fff, parts(5), parts(7), parts(9));
            let whole = 9 + ciphers + session + challenge;
            if length == whole && ciphers > 0 && ciphers.is_multiple_of(3) && (16..=32).contains(&challenge) {
                Guess::Sure
            } else {
                Guess::No
            }
        }
        [head, _, rest @ ..] if head & 0x80 != 0 && rest.first().is_none_or(|one| *one == CLIENT_HELLO) => {
            Guess::More
        }
        [head] if head & 0x80 != 0 => Guess::More,
        _ => Guess::No,
    }
}

/// Whether the client's hello begins here.
pub(super) fn client_hello(bytes: &[u8]) -> Guess {
    guess(bytes, CLIENT_HELLO).max(guess_ssl2(bytes))
}

/// Whether the server's hello begins here.
pub(super) fn server_hello(bytes: &[u8]) -> Guess {
    guess(bytes, SERVER_HELLO)
}
