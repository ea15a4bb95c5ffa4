//! Where a frame begins, in bytes of which that is not known: at the beginning
//! of a connection, after joining one late, and after a loss.
//!
//! Nothing in a frame is unmistakable. What is taken for one has to hold
//! together: fields of a request or an answer that end where the frame ends, or
//! several frames one behind the other.

use std::collections::VecDeque;

use super::frame::{self, HEADER_BYTES, Header, PREFACE};
use super::headers::Headers;
use super::hpack::Decoder;
use crate::l7::{Direction, Guess, Resync};

/// So many frames behind each other are no accident.
const CHAIN_FRAMES: usize = 3;
/// Shorter ones could be numbers in somebody's data.
const DATA_BYTES_MIN: usize = 256;

/// Places that are pursued at a time.
const OPEN_MAX: usize = 32;

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
    begins(direction, bytes, &|_| Is::Unknown)
}

/// Looks for the beginning of a frame, in bytes of which more and more come.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Places where one may begin, from the first byte that is kept.
    open: VecDeque<usize>,
    /// How many places were looked at.
    looked: usize,
}

impl Search {
    pub(super) fn go_on(&mut self, direction: Direction, bytes: &[u8], stream: &dyn Fn(u32) -> Is) -> Resync {
        let Self { open, looked } = std::mem::take(self);
        let mut still = VecDeque::new();
        for at in open.into_iter().chain(looked.min(bytes.len())..bytes.len()) {
            match begins(direction, bytes.get(at..).unwrap_or_default(), stream) {
                Guess::Sure => return Resync::At(at),
                Guess::More if still.len() < OPEN_MAX => still.push_back(at),
                Guess::More => {
                    still.pop_front();
                    still.push_back(at);
                }
                _ => {}
            }
        }
        let start = still.front().copied().unwrap_or(bytes.len());
        let kept = bytes.len() - start;
        *self = Self { open: still.into_iter().map(|at| at - start).collect(), looked: kept };
        Resync::Keep(kept)
    }
}

/// Whether a frame begins with these bytes, or the connection does.
fn begins(direction: Direction, bytes: &[u8], stream: &dyn Fn(u32) -> Is) -> Guess {
    if direction == Direction::ToServer && may_be_preface(bytes) {
        return if bytes.len() < PREFACE.len() { Guess::More } else { Guess::Sure };
    }
    chain(direction, bytes, stream)
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
        let is = stream(header.stream);
        if !header.is_usual() || is == Is::Closed || header.length > frame::USUAL_BYTES_MAX {
            return Guess::No;
        }
        if proof {
            return Guess::Sure;
        }
        let payload = rest.get(HEADER_BYTES..HEADER_BYTES + header.length);
        proof = match (header.kind, payload) {
            // Only what is very long is continued.
            (frame::HEADERS, _) if !header.has(frame::END_HEADERS) => return Guess::No,
            (frame::HEADERS, Some(payload)) => {
                if !is_said(direction, header, payload, is) {
                    return Guess::No;
                }
                true
            }
            (frame::SETTINGS, Some(payload)) => match settings(payload) {
                Guess::No => return Guess::No,
                guess => guess == Guess::Sure,
            },
            (frame::DATA, _) if is == Is::Unknown && header.length < DATA_BYTES_MIN => return Guess::No,
            // Not without what comes after it.
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

/// Whether these header fields are what this end says.
fn is_said(direction: Direction, header: Header, payload: &[u8], is: Is) -> bool {
    let Some((range, _)) = header.fragment(payload) else { return false };
    let mut headers = Headers::default();
    let block = payload.get(range).unwrap_or_default();
    if block.is_empty() || Decoder::late().block(block, &mut |field| headers.take(field)).is_err() {
        return false;
    }
    let is_head = match direction {
        Direction::ToServer => headers.is_request() && header.stream % 2 == 1,
        Direction::ToClient => headers.status.is_some_and(|status| (100..600).contains(&status)),
    };
    let is_other = headers.is_request() || headers.status.is_some();
    let is_trailers = !is_other && is == Is::Open && header.has(frame::END_STREAM);
    is_head || is_trailers
}

/// Whether these are settings that somebody would send. There are others than
/// those of the standard, gRPC's for instance.
fn settings(payload: &[u8]) -> Guess {
    const STANDARD: std::ops::RangeInclusive<u16> = 1..=6;
    let (settings, _) = payload.as_chunks::<6>();
    let pairs = settings
        .iter()
        .map(|[high, low, value @ ..]| (u16::from_be_bytes([*high, *low]), u32::from_be_bytes(*value)));
    let possible = pairs.clone().all(|(name, value)| match name {
        0 => false,
        2 => value <= 1,
        4 => value <= 0x7fff_ffff,
        5 => (0x4000..=0x00ff_ffff).contains(&value),
        _ => true,
    });
    let known = pairs.filter(|(name, _)| STANDARD.contains(name)).count();
    match possible {
        false => Guess::No,
        true if 2 * known > settings.len() => Guess::Sure,
        true => Guess::More, // none, in an acknowledgement
    }
}
