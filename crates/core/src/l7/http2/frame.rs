//! Frames: their headers, and what can be said of bytes by them (RFC 9113).

use std::ops::Range;

/// A header.
pub(super) const HEADER_BYTES: usize = 9;
/// What a client says first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// ALTSVC, ORIGIN and PRIORITY_UPDATE: extensions that are in use.
const EXTENSIONS: [u8; 3] = [0x0a, 0x0c, 0x10];

pub(super) const ACK: u8 = 0x01;
pub(super) const END_STREAM: u8 = 0x01;
pub(super) const END_HEADERS: u8 = 0x04;
pub(super) const PADDED: u8 = 0x08;
const WITH_PRIORITY: u8 = 0x20;

/// Without an agreement nobody sends longer ones.
pub(super) const USUAL_BYTES_MAX: usize = 16 * 1024;

/// A frame's header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Of what follows the header.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    reserved: bool,
}

impl Header {
    /// `None`: fewer bytes than a header has.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [high, middle, low, kind, flags, a, b, c, d, ..] = bytes else { return None };
        let stream = u32::from_be_bytes([*a, *b, *c, *d]);
        Some(Self {
            length: u32::from_be_bytes([0, *high, *middle, *low]) as usize,
            kind: *kind,
            flags: *flags,
            stream: stream & 0x7fff_ffff,
            reserved: stream > 0x7fff_ffff,
        })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the rules allow it. Of kinds that are not known, everything is.
    pub(super) fn is_possible(self) -> bool {
        let length = match self.kind {
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            SETTINGS => self.length.is_multiple_of(6) && !(self.has(ACK) && self.length > 0),
            _ => true,
        };
        let stream = match self.kind {
            DATA | HEADERS | PRIORITY | RST_STREAM | PUSH_PROMISE | CONTINUATION => self.stream != 0,
            SETTINGS | PING | GOAWAY => self.stream == 0,
            _ => true,
        };
        length && stream
    }

    /// Whether it looks like what real ends send: where it is not known that a
    /// frame begins here.
    pub(super) fn is_usual(self) -> bool {
        let flags = match self.kind {
            DATA => END_STREAM | PADDED,
            HEADERS => END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY,
            PUSH_PROMISE => END_HEADERS | PADDED,
            CONTINUATION => END_HEADERS,
            SETTINGS | PING => ACK,
            _ => 0,
        };
        self.is_possible()
            && !self.reserved
            && self.flags & !flags == 0
            && (self.kind <= CONTINUATION || EXTENSIONS.contains(&self.kind))
            && (self.kind == DATA || self.length <= USUAL_BYTES_MAX)
    }

    /// Where in the payload the block of header fields stands, and for
    /// PUSH_PROMISE the promised stream. `payload` may be only its beginning.
    pub(super) fn fragment(self, payload: &[u8]) -> Option<(Range<usize>, Option<u32>)> {
        let mut start = 0;
        let mut end = self.length;
        if self.has(PADDED) && self.kind != CONTINUATION {
            start += 1;
            end = end.checked_sub(usize::from(*payload.first()?))?;
        }
        if self.has(WITH_PRIORITY) && self.kind == HEADERS {
            start += 5;
        }
        let mut promised = None;
        if self.kind == PUSH_PROMISE {
            let bytes: [u8; 4] = payload.get(start..start + 4)?.try_into().ok()?;
            promised = Some(u32::from_be_bytes(bytes) & 0x7fff_ffff);
            start += 4;
        }
        (start <= end).then_some((start..end, promised))
    }
}

/// The name of an error's code.
pub(super) fn error_name(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}
