//! HPACK (RFC 7541), for somebody who only listens.
//!
//! Both ends keep a table of header fields, and refer to them by number: the
//! newest has the lowest. Who came late, or has missed a block, does not know
//! what was in the table before; but every field that was added since is found
//! by its number, exactly. References to others are told as unseen.
//!
//! What the table may hold is said in the blocks themselves; the settings only
//! permit it.
//!
//! Of fields that nobody asks for, cookies and passwords among them, the values
//! are not kept.

mod fixed;
mod huffman;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

/// Where both ends begin.
const TABLE_BYTES: usize = 4_096;
/// As much as usual clients and servers ever agree on. What does not fit into it
/// is forgotten, and then unseen.
const TABLE_BYTES_MAX: usize = 64 * 1024;
/// What each entry counts besides its name and value.
const ENTRY_BYTES: usize = 32;

/// The names that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Scheme,
    Path,
    Authority,
    Status,
    Host,
    UserAgent,
    ContentType,
    GrpcStatus,
    GrpcMessage,
    /// Any other; its value is not to be relied on.
    Other,
    /// It stands in an entry that was never seen.
    Unseen,
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":path" => Self::Path,
            b":authority" => Self::Authority,
            b":status" => Self::Status,
            b"host" => Self::Host,
            b"user-agent" => Self::UserAgent,
            b"content-type" => Self::ContentType,
            b"grpc-status" => Self::GrpcStatus,
            b"grpc-message" => Self::GrpcMessage,
            _ => Self::Other,
        }
    }

    fn matters(self) -> bool {
        !matches!(self, Self::Other | Self::Unseen)
    }
}

/// One line of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) name: Name,
    /// Empty where the name is none that matters.
    pub(super) value: &'a [u8],
    /// Its sender wants that nobody on the way remembers it.
    pub(super) sensitive: bool,
}

/// The block breaks off inside of a field, or says what must not be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// One direction's table.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    /// As the rules count them.
    bytes: usize,
    bytes_max: usize,
    /// Nothing is in the table that was not seen.
    whole: bool,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    name_bytes: usize,
    value: Box<[u8]>,
    value_bytes: usize,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.name_bytes + self.value_bytes
    }
}

/// What a number stands for.
enum Reference<'a> {
    Fixed(&'static str, &'static str),
    Seen(&'a Entry),
    Unseen,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES, whole: true }
    }
}

impl Decoder {
    /// Of a connection whose blocks were not all seen.
    pub(super) fn late() -> Self {
        Self { bytes_max: TABLE_BYTES_MAX, whole: false, ..Self::default() }
    }

    /// Heap memory held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let values: usize = self.entries.iter().map(|entry| entry.value.len()).sum();
        self.entries.capacity() * size_of::<Entry>() + values
    }

    /// Reads a block, which may break off; what stands before its end, or before
    /// an error, is told. `Ok`: how long it would be if it were written out.
    ///
    /// After an error the table has to be given up: what was to be added to it is
    /// not known.
    pub(super) fn block(
        &mut self,
        block: &[u8],
        each: &mut dyn FnMut(Field<'_>),
    ) -> Result<usize, Malformed> {
        let mut input = Input(block);
        let mut first = true;
        let mut list_bytes = 0usize;
        let (mut name, mut value) = (Vec::new(), Vec::new());
        while let Some(head) = input.0.first().copied() {
            if head & 0b1110_0000 == 0b0010_0000 {
                let bytes_max = input.number(5)?;
                if !first {
                    return Err(Malformed);
                }
                self.resize(bytes_max);
                continue;
            }
            first = false;
            if head & 0b1000_0000 != 0 {
                let number = input.number(7)?;
                list_bytes = list_bytes.saturating_add(self.tell(number, each)?);
                continue;
            }
            let keep = head & 0b0100_0000 != 0;
            let sensitive = head & 0b0011_0000 == 0b0001_0000;
            let number = input.number(if keep { 6 } else { 4 })?;
            let (which, name_bytes) = if number == 0 {
                input.text(&mut name)?;
                (Name::of(&name), name.len())
            } else {
                self.name(number)?
            };
            input.text(&mut value)?;
            let seen = if which.matters() { value.as_slice() } else { &[] };
            each(Field { name: which, value: seen, sensitive });
            let entry = Entry { name: which, name_bytes, value: seen.into(), value_bytes: value.len() };
            list_bytes = list_bytes.saturating_add(entry.bytes());
            if keep {
                self.add(entry);
            }
        }
        Ok(list_bytes)
    }

    /// A field that is named by its number: how long it is.
    fn tell(&self, number: usize, each: &mut dyn FnMut(Field<'_>)) -> Result<usize, Malformed> {
        let (name, value, bytes) = match self.find(number)? {
            Reference::Fixed(name, value) => {
                (Name::of(name.as_bytes()), value.as_bytes(), ENTRY_BYTES + name.len() + value.len())
            }
            Reference::Seen(entry) => (entry.name, &*entry.value, entry.bytes()),
            Reference::Unseen => (Name::Unseen, &[][..], ENTRY_BYTES),
        };
        each(Field { name, value, sensitive: false });
        Ok(bytes)
    }

    /// The name of the entry with this number, and how long it is.
    fn name(&self, number: usize) -> Result<(Name, usize), Malformed> {
        Ok(match self.find(number)? {
            Reference::Fixed(name, _) => (Name::of(name.as_bytes()), name.len()),
            Reference::Seen(entry) => (entry.name, entry.name_bytes),
            Reference::Unseen => (Name::Unseen, 0),
        })
    }

    fn find(&self, number: usize) -> Result<Reference<'_>, Malformed> {
        let index = number.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = fixed::ENTRIES.get(index) {
            return Ok(Reference::Fixed(name, value));
        }
        match self.entries.get(index - fixed::ENTRIES.len()) {
            Some(entry) => Ok(Reference::Seen(entry)),
            None if self.whole => Err(Malformed),
            None => Ok(Reference::Unseen),
        }
    }

    fn resize(&mut self, bytes_max: usize) {
        // More than is kept here: the oldest of it will be unseen.
        self.whole &= bytes_max <= TABLE_BYTES_MAX;
        self.bytes_max = bytes_max.min(TABLE_BYTES_MAX);
        self.evict(0);
    }

    fn add(&mut self, entry: Entry) {
        let bytes = entry.bytes();
        self.evict(bytes);
        if bytes <= self.bytes_max {
            self.bytes += bytes;
            self.entries.push_front(entry);
        }
    }

    /// Makes room; the oldest go first.
    fn evict(&mut self, more_bytes: usize) {
        while self.bytes + more_bytes > self.bytes_max {
            let Some(entry) = self.entries.pop_back() else { return };
            self.bytes -= entry.bytes();
        }
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number that begins in the last `bits` of the next byte.
    fn number(&mut self, bits: u32) -> Result<usize, Malformed> {
        let mask = (1u8 << bits) - 1;
        let mut number = u64::from(self.byte()? & mask);
        if number < u64::from(mask) {
            return usize::try_from(number).map_err(|_| Malformed);
        }
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).ok().and_then(|number| number.try_into().ok()).ok_or(Malformed);
            }
        }
        Err(Malformed)
    }

    fn text(&mut self, into: &mut Vec<u8>) -> Result<(), Malformed> {
        let huffman = self.0.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.number(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        into.clear();
        if huffman {
            huffman::decode(text, into).ok_or(Malformed)
        } else {
            into.extend_from_slice(text);
            Ok(())
        }
    }
}
