//! Records as JSON, for programs.

mod request;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};
use weir_core::record::Record;
use weir_core::text::is_invisible;

use super::Sink;
use request::Requests;

/// So much is written at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// What the sinks here have in common.
struct Text {
    out: Box<dyn Write + Send>,
    /// What is held back.
    bytes: Vec<u8>,
    requests: Requests,
}

impl Text {
    fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, bytes: Vec::new(), requests: Requests::default() }
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Request(request) => self.requests.write(&mut self.bytes, request),
            record => serialize(&mut self.bytes, record),
        }
    }

    /// A record is whole: sends on what is much.
    fn end_record(&mut self) -> io::Result<()> {
        if self.bytes.len() < BLOCK_BYTES { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<()> {
        let sent = self.out.write_all(&self.bytes);
        self.bytes.clear();
        sent
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.out.flush()
    }
}

/// JSON Lines: one object a line.
pub(super) struct Lines {
    text: Text,
}

impl Lines {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { text: Text::new(out) }
    }
}

impl Sink for Lines {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.text.record(record)?;
        self.text.bytes.push(b'\n');
        self.text.end_record()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.text.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.text.flush()
    }
}

/// One array, an object a line.
pub(super) struct Array {
    text: Text,
    is_empty: bool,
}

impl Array {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { text: Text::new(out), is_empty: true }
    }
}

impl Sink for Array {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.text.bytes.extend_from_slice(if self.is_empty { b"[\n" } else { b",\n" });
        self.is_empty = false;
        self.text.record(record)?;
        self.text.end_record()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.text.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.text.bytes.extend_from_slice(if self.is_empty { b"[]\n" } else { b"\n]\n" });
        self.text.flush()
    }
}

/// A value as the sinks here write it.
pub(super) fn text(value: &impl Serialize) -> io::Result<String> {
    let mut bytes = Vec::new();
    serialize(&mut bytes, value)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn serialize(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(out, TerminalSafe::default());
    value.serialize(&mut serializer).map_err(io::Error::from)
}

/// Compact JSON that may be looked at on a terminal: besides what JSON itself
/// asks for, characters that a terminal would obey or hide are written as
/// `\u` escapes. The text that a reader decodes stays the same.
#[derive(Default)]
struct TerminalSafe {
    /// What is written is a key. All of them are names of the program's own: not looked at.
    in_key: bool,
}

impl Formatter for TerminalSafe {
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.in_key = true;
        CompactFormatter.begin_object_key(writer, first)
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.in_key = false;
        CompactFormatter.end_object_key(writer)
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if self.in_key || is_plain(fragment.as_bytes()) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut plain = fragment;
        while let Some(start) = plain.find(is_invisible) {
            let (before, rest) = plain.split_at(start);
            CompactFormatter.write_string_fragment(writer, before)?;
            let mut characters = rest.chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            plain = characters.as_str();
        }
        CompactFormatter.write_string_fragment(writer, plain)
    }
}

/// Printable ASCII throughout, as field names and nearly all values are: one look
/// at all bytes at once instead of one at each character.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, byte| plain & (byte.wrapping_sub(b' ') < 0x5f))
}
