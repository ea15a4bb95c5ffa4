//! The conversation with the kernel about qdiscs and their filters (rtnetlink(7)): requests, answers, and the
//! kernel's own words where it refuses.
//!
//! Messages are read attribute by attribute, because a dump holds filters of every kind, and one that weir does
//! not know must not hide the rest.

use std::fmt;
use std::io;

use netlink_packet_core::{
    Emitable, ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla,
    NlasIterator, parse_string,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The attribute of an error that holds a sentence for people.
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSG_HEADER_BYTES: usize = 16;
const MESSAGE_ALIGNMENT: usize = 4;

/// `struct tcmsg`.
const TC_HEADER_BYTES: usize = 20;

/// A dump is begun anew when something changed while it ran. With so many changes, the last one has to do.
const DUMP_TRIES: u32 = 4;

/// An attribute of a message: a number that says what it is, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    kind: u16,
    value: Vec<u8>,
}

impl Attribute {
    pub(super) fn number(kind: u16, value: u32) -> Self {
        Self { kind, value: value.to_ne_bytes().to_vec() }
    }

    pub(super) fn text(kind: u16, text: &str) -> Self {
        Self { kind, value: [text.as_bytes(), b"\0"].concat() }
    }

    pub(super) fn nested(kind: u16, attributes: &[Attribute]) -> Self {
        let mut value = vec![0; attributes.buffer_len()];
        attributes.emit(&mut value);
        Self { kind, value }
    }
}

impl Nla for Attribute {
    fn value_len(&self) -> usize {
        self.value.len()
    }

    fn kind(&self) -> u16 {
        self.kind
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.value);
    }
}

/// A qdisc or a filter, as `struct tcmsg` and the attributes after it say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TcMessage {
    /// `RTM_*`.
    pub(super) kind: u16,
    pub(super) ifindex: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    /// Of a filter: priority in the upper half, ethertype (network byte order) in the lower.
    pub(super) info: u32,
    pub(super) attributes: Attributes,
}

/// Attributes, looked up by their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(pub(super) Vec<Attribute>);

impl Attributes {
    /// Reads as far as the bytes make sense.
    fn parse(bytes: &[u8]) -> Self {
        let attributes = NlasIterator::new(bytes).map_while(Result::ok);
        Self(attributes.map(|nla| Attribute { kind: nla.kind(), value: nla.value().to_vec() }).collect())
    }

    fn get(&self, kind: u16) -> Option<&[u8]> {
        self.0.iter().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value.as_slice())
    }

    pub(super) fn text(&self, kind: u16) -> Option<String> {
        parse_string(self.get(kind)?).ok()
    }

    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(super) fn nested(&self, kind: u16) -> Attributes {
        self.get(kind).map(Self::parse).unwrap_or_default()
    }
}

impl NetlinkSerializable for TcMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        TC_HEADER_BYTES + self.attributes.0.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(TC_HEADER_BYTES);
        // The first word: address family (none), then padding.
        let words = [0, self.ifindex, self.handle, self.parent, self.info];
        for (place, word) in header.chunks_exact_mut(size_of::<u32>()).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        self.attributes.0.as_slice().emit(attributes);
    }
}

/// A message too short for its header.
#[derive(Debug, thiserror::Error)]
#[error("the kernel sent a message of {0} bytes about a qdisc or filter, which is too short")]
pub(super) struct TooShort(usize);

impl NetlinkDeserializable for TcMessage {
    type Error = TooShort;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, TooShort> {
        let (tc, attributes) =
            payload.split_first_chunk::<TC_HEADER_BYTES>().ok_or(TooShort(payload.len()))?;
        let mut words = tc.chunks_exact(size_of::<u32>()).map(|word| {
            let mut bytes = [0; size_of::<u32>()];
            bytes.copy_from_slice(word);
            u32::from_ne_bytes(bytes)
        });
        let mut next = || words.next().unwrap_or_default();
        let _family = next();
        Ok(Self {
            kind: header.message_type,
            ifindex: next(),
            handle: next(),
            parent: next(),
            info: next(),
            attributes: Attributes::parse(attributes),
        })
    }
}

/// What the kernel answered instead of doing it.
#[derive(Debug, thiserror::Error)]
pub(super) struct Refusal {
    #[source]
    pub(super) error: io::Error,
    /// The kernel's sentence about it; newer kernels give one for most errors.
    pub(super) sentence: Option<String>,
}

impl Refusal {
    pub(super) fn errno(&self) -> i32 {
        self.error.raw_os_error().unwrap_or_default()
    }

    fn new(message: &ErrorMessage, flags: u16) -> Self {
        let explained = flags & NLM_F_ACK_TLVS != 0;
        let attributes = message.header.get(NLMSG_HEADER_BYTES..).filter(|_| explained);
        let sentence = attributes.and_then(|bytes| Attributes::parse(bytes).text(NLMSGERR_ATTR_MSG));
        Self { error: message.to_io(), sentence }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { error, sentence: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        match &self.sentence {
            Some(sentence) => write!(f, ": {sentence}"),
            None => Ok(()),
        }
    }
}

/// An open conversation. It is with the network namespace in which it was opened, whichever thread goes on with it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Errors come with the kernel's sentence, and without a copy of what was asked.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a change and waits until the kernel has made or refused it. `flags` are `NLM_F_CREATE` and the like.
    pub(super) fn change(&mut self, message: TcMessage, flags: u16) -> Result<(), Refusal> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            for answer in self.receive()? {
                if let NetlinkPayload::Error(message) = &answer.payload {
                    return match message.code {
                        None => Ok(()),
                        Some(_) => Err(Refusal::new(message, answer.header.flags)),
                    };
                }
            }
        }
    }

    /// Asks for a list.
    pub(super) fn dump(&mut self, message: &TcMessage) -> Result<Vec<TcMessage>, Refusal> {
        let mut tries = 1;
        loop {
            let (found, interrupted) = self.dump_once(message.clone())?;
            if !interrupted || tries == DUMP_TRIES {
                return Ok(found);
            }
            tries += 1;
        }
    }

    fn dump_once(&mut self, message: TcMessage) -> Result<(Vec<TcMessage>, bool), Refusal> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            for answer in self.receive()? {
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    NetlinkPayload::Error(message) => {
                        return Err(Refusal::new(&message, answer.header.flags));
                    }
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.abs()).into());
                    }
                    NetlinkPayload::Done(_) => return Ok((found, interrupted)),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: TcMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// One datagram's worth of answers to the last request.
    fn receive(&self) -> io::Result<Vec<NetlinkMessage<TcMessage>>> {
        let (bytes, _) = self.socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while rest.len() >= NLMSG_HEADER_BYTES {
            let message = NetlinkMessage::<TcMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(MESSAGE_ALIGNMENT);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number == self.sequence {
                messages.push(message);
            }
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::RTM_NEWTFILTER;

    fn roundtrip(message: &TcMessage) -> TcMessage {
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut header = NetlinkHeader::default();
        header.message_type = message.kind;
        TcMessage::deserialize(&header, &bytes).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let message = TcMessage {
            kind: RTM_NEWTFILTER,
            ifindex: 7,
            handle: 3,
            parent: 0xffff_fff2,
            info: 0x0007_0300,
            attributes: Attributes(vec![
                Attribute::text(1, "bpf"),
                Attribute::nested(2, &[Attribute::number(6, 42), Attribute::text(7, "weir_ingress")]),
            ]),
        };
        let read = roundtrip(&message);
        assert_eq!(read, message);
        assert_eq!(read.attributes.text(1).as_deref(), Some("bpf"));
        assert_eq!(read.attributes.nested(2).number(6), Some(42));
        assert_eq!(read.attributes.nested(2).text(7).as_deref(), Some("weir_ingress"));
    }

    #[test]
    fn broken_bytes_are_no_attributes() {
        assert_eq!(Attributes::parse(&[3, 0, 1, 0]), Attributes::default());
        assert_eq!(Attributes::parse(&[0xff, 0xff, 1, 0, 0, 0, 0, 0]), Attributes::default());
        assert!(TcMessage::deserialize(&NetlinkHeader::default(), &[0; 19]).is_err());
        let attributes = Attributes(vec![Attribute { kind: 11, value: vec![1, 2, 3] }]);
        assert_eq!(attributes.number(11), None);
    }
}
