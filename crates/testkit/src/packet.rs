//! Frames, byte by byte, for packet tables.
//!
//! Headers that `etherparse` knows are written by it: an implementation that
//! shares nothing with the parser under test. The odd ones (a tag over a tag,
//! chains of extension headers, SCTP, headers that lie) are put together here.
//!
//! ```
//! use weir_testkit::packet::Frame;
//!
//! let syn = Frame::between("10.0.0.1", "10.0.0.2").tcp(40000, 80, "S").build();
//! assert_eq!(syn.len(), 14 + 20 + 20);
//! let tagged = Frame::between("fd00::1", "fd00::2").vlan(7).udp(5000, 53).payload(b"hello").build();
//! assert_eq!(tagged.len(), 14 + 4 + 40 + 8 + 5);
//! ```

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber,
    Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header, TcpHeader, UdpHeader,
};

mod numbers;

pub use numbers::{ethertype, protocol};

/// A frame in the making. What is not set is ordinary: Ethernet, no tag, no
/// option, whole, lengths and checksums right.
#[derive(Debug, Clone)]
pub struct Frame {
    macs: Option<([u8; 6], [u8; 6])>,
    tags: Vec<(u16, u16)>,
    source: IpAddr,
    destination: IpAddr,
    ipv4_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    fragment: Option<Fragment>,
    transport: Transport,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Fragment {
    id: u32,
    offset_bytes: u16,
    more: bool,
}

#[derive(Debug, Clone)]
enum Transport {
    Tcp(Box<TcpHeader>),
    Udp {
        source_port: u16,
        destination_port: u16,
    },
    Sctp {
        source_port: u16,
        destination_port: u16,
        checksum: bool,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    /// No header: the payload follows the IP header at once.
    Raw(u8),
}

impl Frame {
    /// From one address to another, both IPv4 or both IPv6; protocol 253 (for
    /// experiments) until told otherwise.
    #[track_caller]
    #[must_use]
    pub fn between(source: &str, destination: &str) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().unwrap_or_else(|e| panic!("{text}: {e}"));
        let (source, destination) = (address(source), address(destination));
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} and {destination} are of two versions");
        Self {
            macs: Some(([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])),
            tags: Vec::new(),
            source,
            destination,
            ipv4_options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            transport: Transport::Raw(253),
            payload: Vec::new(),
        }
    }

    /// Hardware addresses; otherwise 02:00:00:00:00:01 to 02:00:00:00:00:02.
    #[must_use]
    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        self.macs = Some((source, destination));
        self
    }

    /// Begins with the IP header, as on a device without a link layer, and as an
    /// ICMP error quotes it.
    #[must_use]
    pub fn without_ethernet(mut self) -> Self {
        self.macs = None;
        self
    }

    /// Adds an 802.1Q tag after those there are.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(ethertype::VLAN, id)
    }

    /// Adds an 802.1ad (service) tag after those there are.
    #[must_use]
    pub fn service_vlan(self, id: u16) -> Self {
        self.tag(ethertype::QINQ, id)
    }

    fn tag(mut self, ethertype: u16, id: u16) -> Self {
        self.tags.push((ethertype, id));
        self
    }

    /// Options of the IPv4 header; a multiple of 4 bytes, 40 at most.
    #[must_use]
    pub fn ipv4_options(mut self, options: &[u8]) -> Self {
        self.ipv4_options = options.to_vec();
        self
    }

    /// Adds an extension header of IPv6 after those there are, before a fragment
    /// header: `kind` of [`protocol`], and `data` without the first two bytes.
    /// It is filled up with zeros to a multiple of 8 bytes.
    #[must_use]
    pub fn extension(mut self, kind: u8, data: &[u8]) -> Self {
        self.extensions.push((kind, data.to_vec()));
        self
    }

    /// Makes it one piece of a larger packet. `offset_bytes` is a multiple of 8;
    /// with 0 it has the transport header, else only the payload. Lengths in the
    /// transport header and its checksum are those of this piece alone.
    #[must_use]
    pub fn fragment(mut self, id: u32, offset_bytes: u16, more: bool) -> Self {
        self.fragment = Some(Fragment { id, offset_bytes, more });
        self
    }

    /// TCP, flags as letters of `FSRPAUEC`; sequence number 1000, window 65535.
    #[must_use]
    pub fn tcp(mut self, source_port: u16, destination_port: u16, flags: &str) -> Self {
        let mut tcp = TcpHeader::new(source_port, destination_port, 1000, 65535);
        for flag in flags.chars() {
            match flag {
                'F' => tcp.fin = true,
                'S' => tcp.syn = true,
                'R' => tcp.rst = true,
                'P' => tcp.psh = true,
                'A' => tcp.ack = true,
                'U' => tcp.urg = true,
                'E' => tcp.ece = true,
                'C' => tcp.cwr = true,
                other => panic!("no TCP flag {other}"),
            }
        }
        self.transport = Transport::Tcp(Box::new(tcp));
        self
    }

    /// TCP sequence number.
    #[must_use]
    pub fn seq(mut self, number: u32) -> Self {
        self.tcp_header().sequence_number = number;
        self
    }

    /// TCP acknowledgement number.
    #[must_use]
    pub fn ack(mut self, number: u32) -> Self {
        self.tcp_header().acknowledgment_number = number;
        self
    }

    /// TCP window, not scaled.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.tcp_header().window_size = window;
        self
    }

    /// Options of the TCP header, 40 bytes at most; filled up with zeros to a
    /// multiple of 4.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_header().set_options_raw(options).expect("40 bytes of TCP options at most");
        self
    }

    fn tcp_header(&mut self) -> &mut TcpHeader {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp,
            _ => panic!("say .tcp(..) first"),
        }
    }

    /// UDP.
    #[must_use]
    pub fn udp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Udp { source_port, destination_port };
        self
    }

    /// SCTP: the common header and the payload as chunks. Its checksum is 0, as where a
    /// device is to complete it.
    #[must_use]
    pub fn sctp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Sctp { source_port, destination_port, checksum: false };
        self
    }

    /// The same with its checksum.
    #[must_use]
    pub fn sctp_complete(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Sctp { source_port, destination_port, checksum: true };
        self
    }

    /// ICMP or ICMPv6, by the version of IP. `rest`: bytes 5 to 8.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport = Transport::Icmp { kind, code, rest };
        self
    }

    /// A ping.
    #[must_use]
    pub fn echo_request(self, id: u16, sequence: u16) -> Self {
        let kind = if self.source.is_ipv4() { 8 } else { 128 };
        self.icmp(kind, 0, echo_rest(id, sequence))
    }

    /// The answer to a ping.
    #[must_use]
    pub fn echo_reply(self, id: u16, sequence: u16) -> Self {
        let kind = if self.source.is_ipv4() { 0 } else { 129 };
        self.icmp(kind, 0, echo_rest(id, sequence))
    }

    /// An ICMP error about `quoted`: its IP header and what follows it, the
    /// first `quoted_bytes` of them.
    #[must_use]
    pub fn icmp_error(self, kind: u8, code: u8, quoted: &Self, quoted_bytes: usize) -> Self {
        let mut quote = quoted.clone().without_ethernet();
        quote.tags.clear();
        let mut bytes = quote.build();
        bytes.truncate(quoted_bytes);
        self.icmp(kind, code, [0; 4]).payload(&bytes)
    }

    /// Any other protocol: the payload follows the IP header at once.
    #[must_use]
    pub fn raw(mut self, protocol: u8) -> Self {
        self.transport = Transport::Raw(protocol);
        self
    }

    /// What follows the last header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The bytes. A frame is not padded to Ethernet's 60 bytes.
    #[track_caller]
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.fragment.is_none_or(|fragment| fragment.offset_bytes == 0) {
            body.extend(self.transport_header());
        }
        body.extend(&self.payload);

        let mut frame = Vec::new();
        let ethertype = if self.source.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        if let Some((source, destination)) = self.macs {
            frame = link_header(source, destination, &self.tags, ethertype);
        }
        frame.extend(self.network_headers(body.len()));
        frame.extend(body);
        frame
    }

    fn transport_protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => protocol::TCP,
            Transport::Udp { .. } => protocol::UDP,
            Transport::Sctp { .. } => protocol::SCTP,
            Transport::Icmp { .. } if self.source.is_ipv4() => protocol::ICMP,
            Transport::Icmp { .. } => protocol::ICMPV6,
            Transport::Raw(number) => number,
        }
    }

    fn transport_header(&self) -> Vec<u8> {
        let payload = self.payload.as_slice();
        match &self.transport {
            Transport::Tcp(tcp) => {
                let mut tcp = tcp.clone();
                tcp.checksum = match (self.source, self.destination) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        tcp.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload)
                    }
                    (IpAddr::V6(a), IpAddr::V6(b)) => {
                        tcp.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload)
                    }
                    _ => unreachable!("both ends are of one version"),
                }
                .expect("the payload fits");
                tcp.to_bytes().to_vec()
            }
            Transport::Udp { source_port, destination_port } => {
                let length = u16::try_from(8 + payload.len()).expect("the payload fits");
                let mut udp = UdpHeader {
                    source_port: *source_port,
                    destination_port: *destination_port,
                    length,
                    checksum: 0,
                };
                udp.checksum = match (self.source, self.destination) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        udp.calc_checksum_ipv4_raw(a.octets(), b.octets(), payload)
                    }
                    (IpAddr::V6(a), IpAddr::V6(b)) => {
                        udp.calc_checksum_ipv6_raw(a.octets(), b.octets(), payload)
                    }
                    _ => unreachable!("both ends are of one version"),
                }
                .expect("the payload fits");
                udp.to_bytes().to_vec()
            }
            Transport::Sctp { source_port, destination_port, checksum } => {
                let mut header = Vec::new();
                header.extend(source_port.to_be_bytes());
                header.extend(destination_port.to_be_bytes());
                header.extend([0x11, 0x22, 0x33, 0x44]); // verification tag
                header.extend([0; 4]);
                if *checksum {
                    let checksum = sctp_checksum(&[header.as_slice(), payload].concat());
                    header[8..12].copy_from_slice(&checksum);
                }
                header
            }
            &Transport::Icmp { kind: type_u8, code: code_u8, rest: bytes5to8 } => {
                match (self.source, self.destination) {
                    (IpAddr::V6(a), IpAddr::V6(b)) => Icmpv6Header::with_checksum(
                        Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 },
                        a.octets(),
                        b.octets(),
                        payload,
                    )
                    .expect("the payload fits")
                    .to_bytes()
                    .to_vec(),
                    _ => Icmpv4Header::with_checksum(
                        Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 },
                        payload,
                    )
                    .to_bytes()
                    .to_vec(),
                }
            }
            Transport::Raw(_) => Vec::new(),
        }
    }

    fn network_headers(&self, body_bytes: usize) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                assert!(self.extensions.is_empty(), "IPv4 has no extension headers");
                let options =
                    Ipv4Options::try_from(self.ipv4_options.as_slice()).expect("a multiple of 4, 40 at most");
                let mut header = Ipv4Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    time_to_live: 64,
                    protocol: IpNumber(self.transport_protocol()),
                    total_len: u16::try_from(20 + self.ipv4_options.len() + body_bytes).expect("it fits"),
                    dont_fragment: self.fragment.is_none(),
                    options,
                    ..Default::default()
                };
                if let Some(fragment) = self.fragment {
                    header.identification = u16::try_from(fragment.id).expect("an id of 16 bits in IPv4");
                    header.fragment_offset = fragment.offset();
                    header.more_fragments = fragment.more;
                }
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                assert!(self.ipv4_options.is_empty(), "IPv6 has no options");
                let (first, extensions) = self.extension_chain();
                let header = Ipv6Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    hop_limit: 64,
                    next_header: IpNumber(first),
                    payload_length: u16::try_from(extensions.len() + body_bytes).expect("it fits"),
                    ..Default::default()
                };
                [header.to_bytes().as_slice(), extensions.as_slice()].concat()
            }
            _ => unreachable!("both ends are of one version"),
        }
    }

    /// The first next-header number, and the extension headers' bytes.
    fn extension_chain(&self) -> (u8, Vec<u8>) {
        let mut next = self.transport_protocol();
        let mut bytes = Vec::new();
        if let Some(fragment) = self.fragment {
            let header =
                Ipv6FragmentHeader::new(IpNumber(next), fragment.offset(), fragment.more, fragment.id);
            bytes.extend(header.to_bytes());
            next = protocol::FRAGMENT;
        }
        for (kind, data) in self.extensions.iter().rev() {
            let mut header = vec![next, 0];
            header.extend(data);
            header.resize(header.len().next_multiple_of(8), 0);
            // The authentication header counts in 4 bytes, less 2 (RFC 4302).
            let length =
                if *kind == protocol::AUTHENTICATION { header.len() / 4 - 2 } else { header.len() / 8 - 1 };
            header[1] = u8::try_from(length).expect("an extension header fits");
            bytes.splice(0..0, header);
            next = *kind;
        }
        (next, bytes)
    }
}

impl Fragment {
    fn offset(self) -> IpFragOffset {
        assert_eq!(self.offset_bytes % 8, 0, "a fragment begins at a multiple of 8 bytes");
        IpFragOffset::try_new(self.offset_bytes / 8).expect("16 bits, divided by 8, are 13")
    }
}

/// The checksum of an SCTP packet in which it is 0, as it stands there (RFC 9260, appendix A).
#[must_use]
pub fn sctp_checksum(packet: &[u8]) -> [u8; 4] {
    crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(packet).to_le_bytes()
}

/// A broadcast ARP request for `target` (IPv4).
#[must_use]
pub fn arp_request(source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 1];
    let mut frame = link_header(mac, [0xff; 6], &[], ethertype::ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(source);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

/// A frame of any ethertype, with `tags` (ethertype and id) before it.
#[must_use]
pub fn other(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = link_header([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], tags, ethertype);
    frame.extend(payload);
    frame
}

fn echo_rest(id: u16, sequence: u16) -> [u8; 4] {
    let (id, sequence) = (id.to_be_bytes(), sequence.to_be_bytes());
    [id[0], id[1], sequence[0], sequence[1]]
}

fn link_header(source: [u8; 6], destination: [u8; 6], tags: &[(u16, u16)], ethertype: u16) -> Vec<u8> {
    let first = tags.first().map_or(ethertype, |tag| tag.0);
    let mut bytes = Ethernet2Header { source, destination, ether_type: EtherType(first) }.to_bytes().to_vec();
    for (index, (_, id)) in tags.iter().enumerate() {
        bytes.extend(id.to_be_bytes());
        bytes.extend(tags.get(index + 1).map_or(ethertype, |tag| tag.0).to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests;
