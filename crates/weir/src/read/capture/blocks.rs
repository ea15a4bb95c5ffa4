//! The blocks of a pcapng file, and what stands for them in a pcap file: interfaces and frames.

use std::sync::Arc;

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, OptionCode, PcapBlockOwned, PcapNGOption,
};
use weir_core::event::Hook;
use weir_core::frame::Link;
use weir_core::text::lossy;

const NANOSECONDS: u64 = 1_000_000_000;
/// The year 2262. What is later is nonsense, and a time to which nothing can be added.
const TIME_NS_MAX: u64 = i64::MAX as u64;
/// The option of a packet's block that says which way it went (`epb_flags`).
const PACKET_FLAGS: OptionCode = OptionCode(2);
/// Its two lowest bits.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Where frames were captured.
#[derive(Debug, Clone)]
pub(in crate::read) struct Interface {
    /// As the file calls it: pcapng may, pcap never does.
    pub(in crate::read) name: Option<Arc<str>>,
    /// Of its frames; none that weir reads.
    pub(in crate::read) link: Option<Link>,
    /// LINKTYPE_...
    pub(in crate::read) link_number: i32,
    units_per_second: u64,
    offset_s: i64,
}

/// What a block says of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framed<'a> {
    /// Of the section's interfaces.
    pub(super) interface: usize,
    pub(super) bytes: &'a [u8],
    pub(super) sent_bytes: u32,
    /// Since 1970, if it says so.
    pub(super) time_ns: Option<u64>,
    pub(super) direction: Option<Hook>,
}

/// What is behind a block.
pub(super) enum Next<'a> {
    Frame(Framed<'a>),
    Section,
    /// `None`: no time can be counted as it says.
    Interface(Option<Interface>),
    Other,
}

pub(super) fn next_of<'a>(block: &'a PcapBlockOwned<'a>, interfaces: &[Interface]) -> Next<'a> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let units_per_second = if header.is_nanosecond_precision() { NANOSECONDS } else { 1_000_000 };
            // The upper bits say something of frame checksums.
            let number = header.network.0 & 0x0fff_ffff;
            Next::Interface(Some(Interface::new(None, number, units_per_second, 0)))
        }
        PcapBlockOwned::Legacy(packet) => {
            let units_per_second = interfaces.first().map_or(1_000_000, |one| one.units_per_second);
            let fraction_ns = u64::from(packet.ts_usec) * (NANOSECONDS / units_per_second.max(1));
            Next::Frame(Framed {
                interface: 0,
                bytes: packet.data,
                sent_bytes: packet.origlen,
                time_ns: Some(u64::from(packet.ts_sec) * NANOSECONDS + fraction_ns),
                direction: None,
            })
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => Next::Section,
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            Next::Interface(Interface::described(description))
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            Next::Frame(Framed {
                interface,
                bytes: packet.packet_data(),
                sent_bytes: packet.origlen,
                time_ns: interfaces.get(interface).map(|one| one.time_ns(ticks)),
                direction: direction(packet),
            })
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => Next::Frame(Framed {
            interface: 0,
            bytes: packet.packet_data(),
            sent_bytes: packet.origlen,
            time_ns: None,
            direction: None,
        }),
        PcapBlockOwned::NG(_) => Next::Other,
    }
}

impl Interface {
    fn new(name: Option<Arc<str>>, link_number: i32, units_per_second: u64, offset_s: i64) -> Self {
        let link = u32::try_from(link_number).ok().and_then(Link::from_number);
        Self { name, link, link_number, units_per_second, offset_s }
    }

    /// `None`: no time can be counted as it says.
    fn described(block: &InterfaceDescriptionBlock<'_>) -> Option<Self> {
        // Windows has names that nobody knows, and descriptions that everybody does.
        let name = text(&block.options, OptionCode::IfName)
            .filter(|name| !name.starts_with(r"\Device\"))
            .or_else(|| text(&block.options, OptionCode::IfDescription))
            .or_else(|| text(&block.options, OptionCode::IfName));
        let units_per_second = units_per_second(block.if_tsresol)?;
        Some(Self::new(name, block.linktype.0, units_per_second, block.if_tsoffset))
    }

    fn time_ns(&self, ticks: u64) -> u64 {
        let units = u128::from(self.units_per_second.max(1));
        let since = u128::from(ticks) * u128::from(NANOSECONDS) / units;
        let offset = i128::from(self.offset_s) * i128::from(NANOSECONDS);
        let time = i128::try_from(since).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(time.max(0)).unwrap_or(u64::MAX).min(TIME_NS_MAX)
    }
}

/// What pcapng's `if_tsresol` says: a power of 10, or of 2 if the first bit is set.
/// (The crate refuses powers of 2.)
fn units_per_second(resolution: u8) -> Option<u64> {
    let power = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u64.checked_pow(power) } else { 2_u64.checked_pow(power) }
}

fn direction(packet: &EnhancedPacketBlock<'_>) -> Option<Hook> {
    let bytes = option(&packet.options, PACKET_FLAGS)?.try_into().ok()?;
    let flags = if packet.big_endian() { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    match flags & 3 {
        INBOUND => Some(Hook::Ingress),
        OUTBOUND => Some(Hook::Egress),
        _ => None,
    }
}

/// Some writers end it with a zero.
fn text(options: &[PcapNGOption<'_>], code: OptionCode) -> Option<Arc<str>> {
    let text = lossy(option(options, code)?);
    Some(text.trim_end_matches('\0')).filter(|text| !text.is_empty()).map(Arc::from)
}

fn option<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> Option<&'a [u8]> {
    options.iter().find(|option| option.code == code)?.as_bytes().ok()
}
