//! What leaves weir. `docs/records.md` lists every field; a field keeps its
//! name and meaning for good.

mod attribute;
mod request;
mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};

use crate::endpoint::Endpoint;
use crate::event::Hook;
use crate::flow::{ConnectionId, Protocol};

pub use attribute::{Attribute, AttributeValue, Attributes};
pub use request::{Capture, Matched, RequestRecord};
pub use stats::StatsRecord;

/// One line of output.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A connection, at its opening, while it lives, at its end.
    Flow(Box<FlowRecord>),
    /// One packet (`--packets`).
    Packet(Box<PacketRecord>),
    /// What was asked of a server, and what it answered.
    Request(Box<RequestRecord>),
    /// Requests summed up (`--stats`).
    Stats(Box<StatsRecord>),
    /// The last record of a command that ends.
    Summary(Box<SummaryRecord>),
}

/// Why a flow record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEvent {
    /// The first packet.
    Open,
    /// Counters moved (`--updates`), or weir ends and the flow does not.
    Update,
    /// FIN, RST, or nothing for too long.
    Close,
}

/// Where a flow stands, for users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Only one direction seen.
    New,
    /// Both directions seen.
    Established,
    /// TCP: one FIN seen.
    Closing,
    /// TCP: both ends closed.
    Closed,
    /// TCP: ended by RST.
    Reset,
    /// Ended because nothing came for too long, or its interface went away.
    Idle,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::New, Self::Established, Self::Closing, Self::Closed, Self::Reset, Self::Idle];

    /// As in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Idle => "idle",
        }
    }
}

/// What weir did with a flow's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing: they went their way.
    Forwarded,
    /// They were sent elsewhere, and answers came back as from where they were
    /// sent.
    Redirected,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 2] = [Self::Forwarded, Self::Redirected];

    /// As in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Redirected => "redirected",
        }
    }
}

/// The ends of a flow as its server sees them, where its client sees others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Translated {
    /// Whom the server takes for its client.
    pub client: Endpoint,
    /// Who answers.
    pub server: Endpoint,
}

/// What one device saw of a flow: the numbers that `ip -s link` adds up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InterfaceCounters {
    /// Device name; `if7` when it is gone.
    pub name: String,
    /// Received by the device: at a container's veth, what the container sent.
    pub ingress_packets: u64,
    /// Bytes of whole frames.
    pub ingress_bytes: u64,
    /// Sent by the device.
    pub egress_packets: u64,
    /// Bytes of whole frames.
    pub egress_bytes: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowRecord {
    /// When this record's event happened.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// The same in all records of one connection; 16 hexadecimal digits.
    pub id: ConnectionId,
    /// Why this record was written.
    pub event: FlowEvent,
    /// Who opened it.
    pub client: Endpoint,
    /// Who was asked, as the client sees it.
    pub server: Endpoint,
    /// Transport protocol.
    pub protocol: Protocol,
    /// ICMP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Where it stands.
    pub state: State,
    /// What weir did with it.
    pub verdict: Verdict,
    /// The name of the rule because of which it did that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Both ends as the server sees them, if that is not what the client sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translated: Option<Box<Translated>>,
    /// TCP, and its beginning was not seen: who is client is a guess.
    pub midstream: bool,
    /// First packet.
    #[serde(serialize_with = "nanoseconds")]
    pub start: Timestamp,
    /// First to last packet.
    pub duration_ms: f64,
    /// Client to server, counted where it was seen first.
    pub sent_packets: u64,
    /// Bytes of whole frames.
    pub sent_bytes: u64,
    /// Server to client.
    pub received_packets: u64,
    /// Bytes of whole frames.
    pub received_bytes: u64,
    /// Of `sent_packets`, those that left this host's other hook on their way.
    /// Absent where there is no second hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_delivered_packets: Option<u64>,
    /// Of `received_packets`, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_delivered_packets: Option<u64>,
    /// TCP handshake, SYN to its last ACK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
    /// TCP, both directions.
    pub retransmits: u32,
    /// TCP RST segments.
    pub resets: u32,
    /// TCP segments that closed the window, both directions.
    pub zero_windows: u32,
    /// ICMP errors that quoted this flow.
    pub icmp_errors: u32,
    /// TCP flags that were seen, as letters `FSRPAUEC`, client's and server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<[String; 2]>,
    /// Where it was seen.
    pub interfaces: Vec<InterfaceCounters>,
}

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PacketDirection {
    /// At a container's veth: the container sent it.
    FromContainer,
    /// At a container's veth: the container gets it.
    ToContainer,
    /// At another device: received.
    Ingress,
    /// At another device: sent.
    Egress,
}

impl PacketDirection {
    /// At a hook of a container's veth, or of another device.
    #[must_use]
    pub fn at(hook: Hook, container_side: bool) -> Self {
        match (container_side, hook) {
            (true, Hook::Ingress) => Self::FromContainer,
            (true, Hook::Egress) => Self::ToContainer,
            (false, Hook::Ingress) => Self::Ingress,
            (false, Hook::Egress) => Self::Egress,
        }
    }
}

/// One packet at one hook, or in a capture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PacketRecord {
    /// When it was seen.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// Who sent it.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// Transport protocol.
    pub protocol: Protocol,
    /// ICMP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Device name. Some captures do not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Arc<str>>,
    /// Which way. Most captures do not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<PacketDirection>,
    /// Whole frame.
    pub length_bytes: u32,
    /// Payload of the transport protocol.
    pub payload_bytes: u32,
    /// TCP flags as letters `FSRPAUEC`. A later fragment has none in a capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<String>,
    /// TCP sequence number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_seq: Option<u32>,
    /// TCP acknowledgement number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_ack: Option<u32>,
    /// TCP window, not scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_window: Option<u16>,
}

/// What a command saw, and what it lost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SummaryRecord {
    /// When the command ended.
    #[serde(serialize_with = "nanoseconds")]
    pub time: Timestamp,
    /// From attaching to detaching.
    pub duration_ms: f64,
    /// Connections seen, whatever the filter.
    pub flows: u64,
    /// Packets in them, each counted once.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
    /// Requests found, whatever the filter. Absent where none are looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Payload that was copied out of the kernel to be read. Absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captured_bytes: Option<u64>,
    /// Payload that was not copied, because nobody needs it: bodies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out_bytes: Option<u64>,
    /// Records printed.
    pub records: u64,
    /// Packets that are no flow by their nature, or were counted already, by reason.
    pub not_flows: BTreeMap<&'static str, u64>,
    /// Connections in which no requests were looked for (any more), by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_parsed: BTreeMap<&'static str, u64>,
    /// What is missing, by reason. Empty: nothing.
    pub lost: BTreeMap<&'static str, u64>,
    /// What each device saw: in flows, and in no flow.
    pub interfaces: Vec<InterfaceCounters>,
}

/// TCP flags as letters, in the order of their bits: `FSRPAUEC`.
#[must_use]
pub fn tcp_flag_letters(flags: u8) -> String {
    "FSRPAUEC"
        .chars()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0)
        .map(|(_, letter)| letter)
        .collect()
}

/// RFC 3339 in UTC, always nine digits. Written digit by digit: two times stand
/// in every record, and a general formatter took as long as all that is around them.
fn nanoseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    let date = Offset::UTC.to_datetime(*time);
    let Ok(year) = u32::try_from(date.year()) else {
        return serializer.collect_str(&format_args!("{time:.9}"));
    };
    let part = |number: i8| u32::from(number.unsigned_abs());
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0..4, year),
        (5..7, part(date.month())),
        (8..10, part(date.day())),
        (11..13, part(date.hour())),
        (14..16, part(date.minute())),
        (17..19, part(date.second())),
        (20..29, date.subsec_nanosecond().unsigned_abs()),
    ];
    for (digits, mut number) in fields {
        for digit in text[digits].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    serializer.serialize_str(std::str::from_utf8(&text).map_err(S::Error::custom)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_letters() {
        assert_eq!(tcp_flag_letters(0), "");
        assert_eq!(tcp_flag_letters(0x12), "SA");
        assert_eq!(tcp_flag_letters(0xff), "FSRPAUEC");
    }

    #[test]
    fn times_are_those_that_jiff_writes() {
        #[derive(Serialize)]
        struct Time(#[serde(serialize_with = "nanoseconds")] Timestamp);
        for text in [
            "2026-01-01T00:00:09.5Z",
            "1969-12-31T23:59:59.000000001Z",
            "2024-02-29T12:34:56.789012345Z",
            "-000044-03-15T12:00:00Z",
            "9999-12-30T22:00:00.999999999Z",
        ] {
            let time: Timestamp = text.parse().unwrap();
            let written = serde_json::to_value(Time(time)).unwrap();
            assert_eq!(written, format!("{time:.9}"));
        }
    }
}
