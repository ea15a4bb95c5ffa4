//! Where a frame begins, in bytes of which that is not known: at the beginning
//! of a connection, after joining one late, and after a loss.
//!
//! Nothing in a frame is unmistakable. What is taken for one has to hold
//! together: fields of a request or an answer that end where the frame ends, or
//! several frames one behind the other.

use super::frame::{self, HEADER_BYTES, Header, PREFACE};
use super::headers::Headers;
use super::hpack::Decoder;
use crate::l7::{Direction, Guess, Resync};

/// So many frames behind each other are no accident.
const CHAIN_FRAMES: usize = 4;
/// Shorter ones could be numbers in somebody's data.
const DATA_BYTES_MIN: usize = 256;

/// What is known of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Open,
    /// Nothing may come of it any more.
    Closed,
    Unknown,
}

/// Whether a client's first words begin with these, as far as they go.
pub(super) fn may_be_preface(bytes: &[u8]) -> bool {
    let known = bytes.len().min(PREFACE.len());
    known > 0 && bytes.get(..known) == PREFACE.get(..known)
}

/// Whether what an end says begins with frames. `More` where nothing was said.
pub(super) fn guess(direction: Direction, bytes: &[u8]) -> Guess {
    if direction == Direction::ToServer && may_be_preface(bytes) {
        return if bytes.len() < PREFACE.len() { Guess::More } else { Guess::Sure };
    }
    chain(direction, bytes, &|_| Is::Unknown)
}

/// Looks for the beginning of a frame.
pub(super) fn resync(direction: Direction, bytes: &[u8], stream: &dyn Fn(u32) -> Is) -> Resync {
    for at in 0..bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let preface = direction == Direction::ToServer && may_be_preface(rest);
        match chain(direction, rest, stream) {
            Guess::Sure => return Resync::At(at),
            Guess::More => return Resync::Keep(rest.len()),
            _ if preface && rest.len() < PREFACE.len() => return Resync::Keep(rest.len()),
            _ if preface => return Resync::At(at),
            _ => {}
        }
    }
    Resync::Keep(0)
}

/// Whether bytes are frames, one behind the other: `More` if that holds for as
/// long as they go, and proves nothing yet.
fn chain(direction: Direction, bytes: &[u8], stream: &dyn Fn(u32) -> Is) -> Guess {
    let mut rest = bytes;
    let mut proof = false;
    for _ in 0..CHAIN_FRAMES {
        let Some(header) = Header::parse(rest) else {
            // Usual frames are shorter than 64 kB.
            return match rest.first() {
                Some(1..) => Guess::No,
                _ if proof => Guess::Sure,
                _ => Guess::More,
            };
        };
        let is = if header.stream == 0 { Is::Open } else { stream(header.stream) };
        if !header.is_usual() || is == Is::Closed || header.length > frame::USUAL_BYTES_MAX {
            return Guess::No;
        }
        if proof {
            return Guess::Sure;
        }
        let payload = rest.get(HEADER_BYTES..HEADER_BYTES + header.length);
        proof = match (header.kind, payload) {
            (frame::HEADERS, Some(payload)) if header.has(frame::END_HEADERS) => {
                match says(direction, header, payload, is) {
                    Guess::No => return Guess::No,
                    guess => guess == Guess::Sure,
                }
            }
            (frame::SETTINGS, Some(payload)) => match settings(payload) {
                Guess::No => return Guess::No,
                guess => guess == Guess::Sure,
            },
            // Not that of a stream that nobody knows of, and not without what comes after it.
            (frame::DATA, _) => is == Is::Open && header.length >= DATA_BYTES_MIN,
            _ => false,
        };
        match rest.get(HEADER_BYTES + header.length..) {
            Some([]) if proof && header.kind != frame::DATA => return Guess::Sure,
            Some(after @ [_, ..]) => rest = after,
            _ => return Guess::More,
        }
    }
    Guess::Sure
}

/// Whether header fields are what this end says.
fn says(direction: Direction, header: Header, payload: &[u8], is: Is) -> Guess {
    let Some((range, _)) = header.fragment(payload) else { return Guess::No };
    let mut headers = Headers::default();
    let block = payload.get(range).unwrap_or_default();
    if block.is_empty() || Decoder::late().block(block, &mut |field| headers.take(field)).is_err() {
        return Guess::No;
    }
    let head = match direction {
        Direction::ToServer => headers.is_request() && header.stream % 2 == 1,
        Direction::ToClient => headers.status.is_some_and(|status| (100..600).contains(&status)),
    };
    let other = headers.is_request() || headers.status.is_some();
    match head {
        true => Guess::Sure,
        false if other => Guess::No,
        // Trailers.
        false if is == Is::Open && header.has(frame::END_STREAM) => Guess::Sure,
        false => Guess::More,
    }
}

/// Whether these are settings that somebody would send.
fn settings(payload: &[u8]) -> Guess {
    /// Of those that are known, the highest; extensions have up to 16.
    const HIGHEST: u16 = 16;
    let (settings, _) = payload.as_chunks::<6>();
    let possible = settings.iter().all(|[high, low, value @ ..]| {
        let value = u32::from_be_bytes(*value);
        match u16::from_be_bytes([*high, *low]) {
            2 | 8 | 9 => value <= 1,
            4 => value <= 0x7fff_ffff,
            5 => (0x4000..=0x00ff_ffff).contains(&value),
            number => (1..=HIGHEST).contains(&number) || number & 0x0f0f == 0x0a0a,
        }
    });
    match settings {
        _ if !possible => Guess::No,
        [] => Guess::More, // an acknowledgement
        _ => Guess::Sure,
    }
}
