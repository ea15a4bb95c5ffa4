//! Capture files: pcap and pcapng, gzipped or not.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;
use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{Block, PcapBlockOwned, PcapError};
use weir_core::frame::Link;

/// As the command line calls it.
const STANDARD_INPUT: &str = "-";
const NANOSECONDS: u64 = 1_000_000_000;
/// At first; grows with what does not fit.
const BUFFER_BYTES: usize = 256 * 1024;
/// A block of a pcapng file; larger ones are nonsense.
const BUFFER_BYTES_MAX: usize = 64 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Length of a pcap file's header, and of the part of a pcapng file's first
/// block that says how long it is.
const PCAP_HEADER_BYTES: usize = 24;
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const SECTION_BYTES_MAX: usize = 64 * 1024;

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It cannot be opened, or reading fails.
    #[error("cannot read {}: {source}", called(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} is empty", called(path))]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// Something else.
    #[error("{} is no capture that weir knows", called(path))]
    NotACapture {
        /// Which.
        path: PathBuf,
    },
    /// It ends within a packet, as when its writer was killed.
    #[error("{} ends in the middle of a packet", called(path))]
    CutOff {
        /// Which.
        path: PathBuf,
    },
    /// It contradicts itself.
    #[error("{} is damaged after {packets} packets", called(path))]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How many could be read.
        packets: u64,
    },
    /// Frames of a kind that weir does not read.
    #[error(
        "{} holds frames of link type {number}; weir reads Ethernet, raw IP, Linux cooked and loopback",
        called(path)
    )]
    Link {
        /// Which.
        path: PathBuf,
        /// LINKTYPE_...
        number: i32,
    },
}

/// As messages call it.
pub(super) fn called(path: &Path) -> std::path::Display<'_> {
    let path = if path == Path::new(STANDARD_INPUT) { Path::new("standard input") } else { path };
    path.display()
}

/// One captured frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// What was captured of it.
    pub(super) bytes: &'a [u8],
    /// How long it was.
    pub(super) sent_bytes: u32,
    /// Since 1970.
    pub(super) time_ns: u64,
}

/// A capture, read from its beginning to its end.
pub(super) struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Of the current section, by number.
    interfaces: Vec<Interface>,
    packets: u64,
    buffer_bytes: usize,
    live: bool,
    /// What was gzipped has no end, perhaps between two packets.
    is_cut_off: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Option<Link>,
    number: i32,
    units_per_second: u64,
    offset_s: i64,
}

/// What is behind a block.
enum Next<'a> {
    Frame(usize, Frame<'a>),
    Section,
    /// `None`: no time can be counted as it says.
    Interface(Option<Interface>),
    Other,
}

impl Capture {
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Read { path: path.to_owned(), source };
        let live = path == Path::new(STANDARD_INPUT);
        let input: Box<dyn Read + Send> =
            if live { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(failed)?) };
        let (first, input) = peek(input, GZIP_MAGIC.len()).map_err(failed)?;
        if first.is_empty() {
            return Err(CaptureError::Empty { path: path.to_owned() });
        }
        let is_cut_off = Arc::new(AtomicBool::new(false));
        let input: Box<dyn Read + Send> = if first == GZIP_MAGIC {
            Box::new(Unzipped { input: MultiGzDecoder::new(input), is_cut_off: Arc::clone(&is_cut_off) })
        } else {
            Box::new(input)
        };
        // The crate looks at what the first read gives: that must be a whole header.
        let (first, input) = peek(input, PCAP_HEADER_BYTES).map_err(failed)?;
        let header = section_bytes(&first).unwrap_or(PCAP_HEADER_BYTES);
        let (_, input) = peek(input, header).map_err(failed)?;
        let reader = pcap_parser::create_reader(BUFFER_BYTES, input).map_err(|error| match error {
            PcapError::ReadError => failed(io::ErrorKind::InvalidData.into()),
            _ => CaptureError::NotACapture { path: path.to_owned() },
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader,
            interfaces: Vec::new(),
            packets: 0,
            buffer_bytes: BUFFER_BYTES,
            live,
            is_cut_off,
        })
    }

    /// Whether somebody may still be writing it.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Hands over the next frame; `false` at the end.
    pub(super) fn next(&mut self, visit: &mut impl FnMut(Link, Frame<'_>)) -> Result<bool, CaptureError> {
        loop {
            let Self { reader, interfaces, path, packets, is_cut_off, .. } = self;
            let (length, visited) = match reader.next() {
                Ok((length, block)) => {
                    let mut visited = false;
                    match next_of(&block, interfaces) {
                        Next::Frame(number, frame) => {
                            let Some(interface) = interfaces.get(number) else {
                                return Err(CaptureError::Damaged { path: path.clone(), packets: *packets });
                            };
                            let Some(link) = interface.link else {
                                return Err(CaptureError::Link {
                                    path: path.clone(),
                                    number: interface.number,
                                });
                            };
                            *packets += 1;
                            visited = true;
                            visit(link, frame);
                        }
                        Next::Section => interfaces.clear(),
                        Next::Interface(Some(interface)) => interfaces.push(interface),
                        Next::Interface(None) => {
                            return Err(CaptureError::Damaged { path: path.clone(), packets: *packets });
                        }
                        Next::Other => {}
                    }
                    (length, visited)
                }
                Err(PcapError::Eof) if is_cut_off.load(Ordering::Relaxed) => {
                    return Err(CaptureError::CutOff { path: path.clone() });
                }
                Err(PcapError::Eof) => return Ok(false),
                Err(PcapError::Incomplete(_)) => {
                    if reader.reader_exhausted() {
                        return Err(CaptureError::CutOff { path: path.clone() });
                    }
                    self.refill()?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(CaptureError::CutOff { path: path.clone() }),
                Err(PcapError::BufferTooSmall) => {
                    self.grow()?;
                    continue;
                }
                Err(_) => return Err(CaptureError::Damaged { path: path.clone(), packets: *packets }),
            };
            self.reader.consume(length);
            if visited {
                return Ok(true);
            }
        }
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        match self.reader.refill() {
            Ok(()) => Ok(()),
            Err(PcapError::BufferTooSmall) => self.grow(),
            Err(_) => Err(CaptureError::Read {
                path: self.path.clone(),
                source: io::Error::new(
                    io::ErrorKind::InvalidData,
                    "reading fails, or the gzip data is damaged",
                ),
            }),
        }
    }

    fn grow(&mut self) -> Result<(), CaptureError> {
        self.buffer_bytes *= 2;
        if self.buffer_bytes > BUFFER_BYTES_MAX || !self.reader.grow(self.buffer_bytes) {
            return Err(CaptureError::Damaged { path: self.path.clone(), packets: self.packets });
        }
        self.refill()
    }
}

fn next_of<'a>(block: &'a PcapBlockOwned<'a>, interfaces: &mut Vec<Interface>) -> Next<'a> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            interfaces.clear();
            let units_per_second = if header.is_nanosecond_precision() { NANOSECONDS } else { 1_000_000 };
            // The upper bits say something of frame checksums.
            let number = header.network.0 & 0x0fff_ffff;
            Next::Interface(Some(interface(number, units_per_second, 0)))
        }
        PcapBlockOwned::Legacy(packet) => {
            let units_per_second = interfaces.first().map_or(1_000_000, |one| one.units_per_second);
            let fraction_ns = u64::from(packet.ts_usec) * (NANOSECONDS / units_per_second.max(1));
            let frame = Frame {
                bytes: packet.data,
                sent_bytes: packet.origlen,
                time_ns: u64::from(packet.ts_sec) * NANOSECONDS + fraction_ns,
            };
            Next::Frame(0, frame)
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => Next::Section,
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            let of = |units| interface(description.linktype.0, units, description.if_tsoffset);
            Next::Interface(units_per_second(description.if_tsresol).map(of))
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let number = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let time_ns = interfaces.get(number).map_or(0, |one| one.time_ns(ticks));
            Next::Frame(number, Frame { bytes: packet.packet_data(), sent_bytes: packet.origlen, time_ns })
        }
        // Simple packets have no time.
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            Next::Frame(0, Frame { bytes: packet.packet_data(), sent_bytes: packet.origlen, time_ns: 0 })
        }
        PcapBlockOwned::NG(_) => Next::Other,
    }
}

/// What pcapng's `if_tsresol` says: a power of 10, or of 2 if the first bit is set.
/// (The crate refuses powers of 2.)
fn units_per_second(resolution: u8) -> Option<u64> {
    let power = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u64.checked_pow(power) } else { 2_u64.checked_pow(power) }
}

fn interface(number: i32, units_per_second: u64, offset_s: i64) -> Interface {
    let link = u32::try_from(number).ok().and_then(Link::from_number);
    Interface { link, number, units_per_second, offset_s }
}

impl Interface {
    fn time_ns(&self, ticks: u64) -> u64 {
        let units = u128::from(self.units_per_second.max(1));
        let since = u128::from(ticks) * u128::from(NANOSECONDS) / units;
        let offset = i128::from(self.offset_s) * i128::from(NANOSECONDS);
        let time = i128::try_from(since).unwrap_or(i128::MAX).saturating_add(offset);
        u64::try_from(time.max(0)).unwrap_or(u64::MAX)
    }
}

/// How long a pcapng file's first block is, if these are its first bytes.
fn section_bytes(first: &[u8]) -> Option<usize> {
    let length = <[u8; 4]>::try_from(first.get(4..8)?).ok()?;
    let order = first.get(8..12)?;
    let length = match (first.starts_with(&PCAPNG_MAGIC), order) {
        (true, [0x1a, 0x2b, 0x3c, 0x4d]) => u32::from_be_bytes(length),
        (true, [0x4d, 0x3c, 0x2b, 0x1a]) => u32::from_le_bytes(length),
        _ => return None,
    };
    Some(usize::try_from(length).unwrap_or(usize::MAX).clamp(PCAP_HEADER_BYTES, SECTION_BYTES_MAX))
}

/// The first bytes (fewer if there are no more), and the whole again.
fn peek(mut input: impl Read + Send + 'static, length: usize) -> io::Result<(Vec<u8>, Peeked)> {
    let mut first = Vec::with_capacity(length);
    input.by_ref().take(length as u64).read_to_end(&mut first)?;
    let whole = Peeked { first: first.clone(), given: 0, rest: Box::new(input) };
    Ok((first, whole))
}

/// Unzipped data, which ends where it was cut off.
struct Unzipped<R> {
    input: MultiGzDecoder<R>,
    is_cut_off: Arc<AtomicBool>,
}

impl<R: Read> Read for Unzipped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.is_cut_off.store(true, Ordering::Relaxed);
                Ok(0)
            }
            result => result,
        }
    }
}

/// What was looked at, then the rest.
struct Peeked {
    first: Vec<u8>,
    given: usize,
    rest: Box<dyn Read + Send>,
}

impl Read for Peeked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let first = self.first.get(self.given..).unwrap_or_default();
        if first.is_empty() {
            return self.rest.read(buffer);
        }
        let length = first.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(first) {
            *to = *from;
        }
        self.given += length;
        Ok(length)
    }
}
