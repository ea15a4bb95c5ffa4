//! Reads DNS messages (RFC 1035): what was asked, and the addresses that were
//! answered, from bytes that anyone on the wire may have made up.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smol_str::SmolStr;

const HEADER_BYTES: usize = 12;
const LABEL_BYTES_MAX: u8 = 63;
/// Of a name on the wire, length bytes and root included.
const NAME_BYTES_MAX: usize = 255;

/// Most names are no longer, as text: memory for them is asked for once.
const NAME_BYTES_USUAL: usize = 64;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const MASK_OPCODE: u16 = 0x7800;
const MASK_RCODE: u16 = 0x000f;
const CLASS_INTERNET: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// What a name server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for, in lower case and without the root's dot.
    /// Bytes other than letters, digits, `-` and `_` are written as `\DDD`.
    pub name: String,
    /// Every address given for it, in the order of the message; at least one.
    pub addresses: Vec<AnsweredAddress>,
}

/// One address record of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnsweredAddress {
    /// The address; IPv4 as IPv4.
    pub ip: IpAddr,
    /// How long the server lets it be kept, in seconds.
    pub ttl_s: u32,
}

/// What a message is about: its header and its first question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Pairs questions with answers.
    pub id: u16,
    /// An answer; else a question.
    pub response: bool,
    /// What is asked for: 0 a query, 4 NOTIFY, 5 UPDATE.
    pub opcode: u8,
    /// How it went; 0 is well. Means nothing in a question.
    pub rcode: u8,
    /// The sender had more to say than there was room for.
    pub truncated: bool,
    /// How many questions, answers, authority and additional records it claims to hold.
    pub counts: [u16; 4],
    /// The first question, if there is one and it is whole.
    pub question: Option<Question>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// As [`Answer::name`]; empty for the root.
    pub name: SmolStr,
    /// Type of the records asked for, as a number.
    pub kind: u16,
    /// Class of the records asked for, as a number.
    pub class: u16,
}

impl Message {
    /// Reads the header and the first question; `None` if not even the header is
    /// there. Of a message that was cut, what is whole.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: message };
        let header: [u16; HEADER_BYTES / 2] = reader.numbers()?;
        let [id, flags, counts @ ..] = header;
        let question = if counts[0] > 0 { reader.question() } else { None };
        Some(Self {
            id,
            response: flags & FLAG_RESPONSE != 0,
            // Four bits each.
            opcode: ((flags & MASK_OPCODE) >> 11) as u8,
            rcode: (flags & MASK_RCODE) as u8,
            truncated: flags & FLAG_TRUNCATED != 0,
            counts,
            question,
        })
    }
}

/// The addresses in a DNS message, if it is a successful answer to one
/// question and holds any. Aliases are not followed: the name that was asked
/// for is the one that users recognise. Of a message that was cut, the records
/// that are whole.
#[must_use]
pub fn parse(message: &[u8]) -> Option<Answer> {
    let mut reader = Reader { rest: message };
    let header: [u16; HEADER_BYTES / 2] = reader.numbers()?;
    let [_id, flags, questions, answers, ..] = header;
    if flags & (FLAG_RESPONSE | MASK_OPCODE | MASK_RCODE) != FLAG_RESPONSE || questions != 1 {
        return None;
    }
    let Question { name, class, .. } = reader.question()?;
    // The root has no name that would say anything.
    if class != CLASS_INTERNET || name.is_empty() {
        return None;
    }
    let addresses: Vec<_> = (0..answers).map_while(|_| reader.record()).filter_map(Record::address).collect();
    (!addresses.is_empty()).then(|| Answer { name: name.into(), addresses })
}

/// A resource record, without its name.
struct Record<'a> {
    kind: u16,
    class: u16,
    ttl_s: u32,
    data: &'a [u8],
}

impl Record<'_> {
    fn address(self) -> Option<AnsweredAddress> {
        if self.class != CLASS_INTERNET {
            return None;
        }
        let ip = match self.kind {
            TYPE_A => IpAddr::from(<[u8; 4]>::try_from(self.data).map(Ipv4Addr::from).ok()?),
            TYPE_AAAA => IpAddr::from(<[u8; 16]>::try_from(self.data).map(Ipv6Addr::from).ok()?),
            _ => return None,
        };
        Some(AnsweredAddress { ip: ip.to_canonical(), ttl_s: self.ttl_s })
    }
}

/// What is left of the message. Every method takes from its front, or says
/// `None` and then there is nothing more to be had.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).and_then(|bytes| bytes.first().copied())
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = u16::from_be_bytes(self.bytes(2)?.try_into().ok()?);
        }
        Some(numbers)
    }

    fn question(&mut self) -> Option<Question> {
        let name = self.question_name()?;
        let [kind, class] = self.numbers()?;
        Some(Question { name, kind, class })
    }

    /// The name right after the header. It cannot be compressed: a pointer may
    /// only point to an earlier name, and there is none.
    fn question_name(&mut self) -> Option<SmolStr> {
        let mut name = String::with_capacity(NAME_BYTES_USUAL);
        let mut wire_bytes = 1;
        loop {
            let length = self.byte()?;
            if length == 0 {
                return Some(name.into());
            }
            wire_bytes += 1 + usize::from(length);
            if length > LABEL_BYTES_MAX || wire_bytes > NAME_BYTES_MAX {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            for byte in self.bytes(usize::from(length))? {
                push_escaped(&mut name, *byte);
            }
        }
    }

    /// Steps over a name without reading it, so pointers need no following and
    /// cannot lead in circles.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.byte()? {
                0 => return Some(()),
                0xc0.. => return self.byte().map(|_| ()),
                length @ ..=LABEL_BYTES_MAX => self.bytes(usize::from(length))?,
                _ => return None,
            };
        }
    }

    fn record(&mut self) -> Option<Record<'a>> {
        self.skip_name()?;
        let [kind, class, ttl_high, ttl_low, length] = self.numbers()?;
        let ttl_s = u32::from(ttl_high) << 16 | u32::from(ttl_low);
        Some(Record {
            kind,
            class,
            // RFC 2181, section 8: with the top bit set it counts as zero.
            ttl_s: if ttl_s > i32::MAX as u32 { 0 } else { ttl_s },
            data: self.bytes(usize::from(length))?,
        })
    }
}

/// A dot inside a label is escaped too, or `a.b` could pretend to be two labels.
fn push_escaped(name: &mut String, byte: u8) {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
            name.push(char::from(byte.to_ascii_lowercase()));
        }
        _ => {
            // Writing to a String cannot fail.
            let _ = write!(name, "\\{byte:03}");
        }
    }
}

#[cfg(test)]
mod tests;
