//! Packets as they are on the wire, and what the server's closing ones say.

use smol_str::SmolStr;

use crate::text;

/// Length and number.
pub(super) const HEADER_BYTES: usize = 4;
/// A packet of this length is continued by the next one.
pub(super) const PACKET_BYTES_MAX: usize = 0xff_ffff;
/// An EOF packet is not longer; an OK packet in its place is.
const EOF_BYTES_MAX: usize = 5;

/// More results of the same command follow.
pub(super) const MORE_RESULTS: u16 = 0x0008;
/// The rows wait for `COM_STMT_FETCH`.
pub(super) const CURSOR_EXISTS: u16 = 0x0040;
/// A backslash in a string is one.
pub(super) const NO_BACKSLASH_ESCAPES: u16 = 0x0200;
const STATE_CHANGED: u16 = 0x4000;
const SCHEMA_CHANGED: u8 = 1;

/// Not an error: MariaDB tells how far it is.
const PROGRESS: u16 = 0xffff;

/// A packet's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Of what follows the header, in bytes.
    pub(super) length: usize,
    /// Counts the packets of a command and its answer.
    pub(super) sequence: u8,
}

impl Header {
    /// Whether the next packet continues this one.
    pub(super) fn is_continued(self) -> bool {
        self.length == PACKET_BYTES_MAX
    }

    /// Of the whole packet.
    pub(super) fn packet_bytes(self) -> usize {
        HEADER_BYTES + self.length
    }
}

pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    match bytes {
        [a, b, c, sequence, ..] => {
            let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
            Some(Header { length, sequence: *sequence })
        }
        _ => None,
    }
}

/// Reads fields one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u16::from_le_bytes(*bytes))
    }

    pub(super) fn long(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    /// A number of one to nine bytes, which says itself how many.
    pub(super) fn number(&mut self) -> Option<u64> {
        let count = match self.byte()? {
            small @ 0..=0xfa => return Some(u64::from(small)),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return None,
        };
        let mut number = [0; 8];
        number.get_mut(..count)?.copy_from_slice(self.bytes(count)?);
        Some(u64::from_le_bytes(number))
    }

    /// Bytes after their number.
    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.number()?).ok()?;
        self.bytes(count)
    }

    /// Bytes up to a NUL; without one, all.
    pub(super) fn text(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let text = self.rest.get(..end.unwrap_or(self.rest.len())).unwrap_or_default();
        self.rest = end.and_then(|end| self.rest.get(end + 1..)).unwrap_or_default();
        text
    }
}

pub(super) fn is_eof(length: usize, first: u8) -> bool {
    first == 0xfe && length <= EOF_BYTES_MAX
}

/// What ends an answer, or a part of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) affected: Option<u64>,
    /// Flags.
    pub(super) status: u16,
    pub(super) warnings: u64,
    /// The database has changed to this one.
    pub(super) schema: Option<SmolStr>,
}

/// Reads an OK packet, or an EOF packet in its place.
pub(super) fn done(length: usize, body: &[u8], tracks_state: bool) -> Done {
    let mut reader = Reader::new(body);
    let first = reader.byte().unwrap_or_default();
    if is_eof(length, first) {
        let warnings = u64::from(reader.short().unwrap_or_default());
        return Done { warnings, status: reader.short().unwrap_or_default(), ..Done::default() };
    }
    let affected = reader.number();
    let _last_inserted = reader.number();
    let status = reader.short().unwrap_or_default();
    let warnings = u64::from(reader.short().unwrap_or_default());
    let changed = tracks_state && status & STATE_CHANGED != 0;
    Done { affected, status, warnings, schema: if changed { schema(reader) } else { None } }
}

/// The new database, among what changed.
fn schema(reader: Reader<'_>) -> Option<SmolStr> {
    let mut reader = reader;
    let _info = reader.counted()?;
    let mut changes = Reader::new(reader.counted()?);
    let mut schema = None;
    while let (Some(kind), Some(change)) = (changes.byte(), changes.counted()) {
        if kind == SCHEMA_CHANGED {
            schema = Reader::new(change).counted().map(lossy);
        }
    }
    schema
}

pub(super) fn lossy(bytes: &[u8]) -> SmolStr {
    text::lossy(bytes).into()
}

/// What an error packet says.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u16,
    pub(super) state: Option<SmolStr>,
    pub(super) message: SmolStr,
}

/// Reads an error packet; `None` if it only tells of progress.
pub(super) fn failure(body: &[u8]) -> Option<Failure> {
    let mut reader = Reader::new(body.get(1..).unwrap_or_default());
    let code = reader.short().unwrap_or_default();
    if code == PROGRESS {
        return None;
    }
    let state = match reader.rest {
        [b'#', state @ ..] if state.len() >= 5 && state.iter().take(5).all(u8::is_ascii_alphanumeric) => {
            reader.bytes(6).map(|state| lossy(state.get(1..).unwrap_or_default()))
        }
        _ => None,
    };
    Some(Failure { code, state, message: lossy(reader.rest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_how_long_they_are() {
        for (bytes, number) in [
            (&[0xfa_u8][..], Some(0xfa)),
            (&[0xfb], None),
            (&[0xfc, 1, 2], Some(0x0201)),
            (&[0xfd, 1, 2, 3], Some(0x03_0201)),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 0x80], Some(0x8000_0000_0000_0001)),
            (&[0xfe, 1, 0, 0], None),
            (&[0xff], None),
            (&[], None),
        ] {
            assert_eq!(Reader::new(bytes).number(), number, "{bytes:?}");
        }
        assert_eq!(Reader::new(&[2, b'a', b'b', b'c']).counted(), Some(&b"ab"[..]));
        assert_eq!(Reader::new(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]).counted(), None);
    }

    #[test]
    fn the_end_of_an_answer_is_read_in_all_its_forms() {
        let ok = done(7, &[0, 3, 0, 2, 0, 1, 0], false);
        assert_eq!((ok.affected, ok.status, ok.warnings), (Some(3), 2, 1));
        let eof = done(5, &[0xfe, 2, 0, 8, 0], false);
        assert_eq!((eof.affected, eof.status, eof.warnings), (None, MORE_RESULTS, 2));
        let old = done(1, &[0xfe], false);
        assert_eq!((old.status, old.warnings), (0, 0));
        let tracked = [0, 0, 0, 2, 0x40, 0, 0, 0, 12, 0, 2, 1, b'x', 1, 5, 4, b's', b'h', b'o', b'p', 2];
        assert_eq!(done(tracked.len(), &tracked, true).schema.as_deref(), Some("shop"));
        assert_eq!(done(tracked.len(), &tracked, false).schema, None);
    }

    #[test]
    fn errors_have_a_state_or_not() {
        let error = failure(b"\xff\x7a\x04#42S02Table 'a' doesn't exist").unwrap();
        assert_eq!((error.code, error.state.as_deref()), (1146, Some("42S02")));
        assert_eq!(error.message, "Table 'a' doesn't exist");
        let old = failure(b"\xff\x10\x04Too many connections").unwrap();
        assert_eq!((old.code, old.state, old.message.as_str()), (1040, None, "Too many connections"));
        assert!(failure(b"\xff\xff\xff\x01\x02\x03\x04\x05").is_none());
        assert_eq!(failure(b"\xff").unwrap().code, 0);
    }
}
