//! Records as JSON, for programs.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::{Serializer, Value};
use weir_core::record::Record;
use weir_core::text::is_invisible;

use super::{Out, Sink};

/// JSON Lines: one object a line.
pub(super) struct Lines {
    out: Out,
}

impl Lines {
    pub(super) fn new(out: Out) -> Self {
        Self { out }
    }
}

impl Sink for Lines {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        object(&mut self.out, record)?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One array, an object a line.
pub(super) struct Array {
    out: Out,
    is_empty: bool,
}

impl Array {
    pub(super) fn new(out: Out) -> Self {
        Self { out, is_empty: true }
    }
}

impl Sink for Array {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.out.write_all(if self.is_empty { b"[\n" } else { b",\n" })?;
        self.is_empty = false;
        object(&mut self.out, record)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.write_all(if self.is_empty { b"[]\n" } else { b"\n]\n" })?;
        self.out.flush()
    }
}

/// A value as the sinks here write it.
pub(super) fn text(value: &Value) -> io::Result<String> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, TerminalSafe::default()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn object(out: &mut Out, record: &Record) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(out, TerminalSafe::default());
    record.serialize(&mut serializer).map_err(io::Error::from)
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
