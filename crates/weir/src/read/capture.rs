//! Capture files: pcap and pcapng, gzipped or not.

mod blocks;
mod input;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{PcapBlockOwned, PcapError};
use weir_core::event::Hook;

pub(super) use blocks::Interface;
use blocks::{Framed, Next, next_of};
use input::{PCAP_HEADER_BYTES, Unzipped, peek, section_bytes};

/// As the command line calls it.
const STANDARD_INPUT: &str = "-";
/// At first; grows with what does not fit.
const BUFFER_BYTES: usize = 256 * 1024;
/// A block of a pcapng file; larger ones are nonsense.
const BUFFER_BYTES_MAX: usize = 64 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What weir reads, for messages.
pub(super) const LINKS: &str = "Ethernet, raw IP, Linux cooked and loopback";

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
    #[error("{} holds frames of link type {number}; weir reads {LINKS}", called(path))]
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
    /// Where it was captured.
    pub(super) interface: &'a Interface,
    /// Which way it went, if the file says so.
    pub(super) direction: Option<Hook>,
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// By one frame.
    Frame,
    /// By none; the next step may have to wait for whoever writes.
    Pause,
    /// There is no more.
    End,
}

/// A capture, read from its beginning to its end.
pub(super) struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Of the current section, by number.
    interfaces: Vec<Interface>,
    packets: u64,
    /// Of the last frame that has one.
    time_ns: u64,
    buffer_bytes: usize,
    /// Somebody may still be writing it.
    live: bool,
    /// It was said that more is to be read.
    has_paused: bool,
    /// What was gzipped has no end, perhaps between two packets.
    is_cut_off: Arc<AtomicBool>,
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
            Box::new(Unzipped::new(input, Arc::clone(&is_cut_off)))
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
            time_ns: 0,
            buffer_bytes: BUFFER_BYTES,
            live,
            has_paused: false,
            is_cut_off,
        })
    }

    /// Hands over the next frame.
    pub(super) fn next(&mut self, visit: &mut impl FnMut(Frame<'_>)) -> Result<Step, CaptureError> {
        loop {
            let (length, has_visited) = match self.reader.next() {
                Ok((length, block)) => {
                    let damaged = || CaptureError::Damaged { path: self.path.clone(), packets: self.packets };
                    let mut has_visited = false;
                    match next_of(&block, &self.interfaces) {
                        Next::Frame(framed) => {
                            let Framed { interface, bytes, sent_bytes, time_ns, direction } = framed;
                            let interface = self.interfaces.get(interface).ok_or_else(damaged)?;
                            // Some have no time: it is that of those around them.
                            self.time_ns = time_ns.unwrap_or(self.time_ns);
                            self.packets += 1;
                            has_visited = true;
                            visit(Frame { bytes, sent_bytes, time_ns: self.time_ns, interface, direction });
                        }
                        Next::Section => self.interfaces.clear(),
                        Next::Interface(interface) => {
                            let interface = interface.ok_or_else(damaged)?;
                            // All of a pcap file is of one link type; of a pcapng file the rest can be read.
                            if interface.link.is_none() && matches!(block, PcapBlockOwned::LegacyHeader(_)) {
                                let (path, number) = (self.path.clone(), interface.link_number);
                                return Err(CaptureError::Link { path, number });
                            }
                            self.interfaces.push(interface);
                        }
                        Next::Other => {}
                    }
                    (length, has_visited)
                }
                Err(PcapError::Eof) if self.is_cut_off.load(Ordering::Relaxed) => {
                    return Err(CaptureError::CutOff { path: self.path.clone() });
                }
                Err(PcapError::Eof) => return Ok(Step::End),
                Err(PcapError::Incomplete(_)) => {
                    if self.reader.reader_exhausted() {
                        return Err(CaptureError::CutOff { path: self.path.clone() });
                    }
                    if self.live && !std::mem::replace(&mut self.has_paused, true) {
                        return Ok(Step::Pause);
                    }
                    self.has_paused = false;
                    self.refill()?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) => {
                    return Err(CaptureError::CutOff { path: self.path.clone() });
                }
                Err(PcapError::BufferTooSmall) => {
                    self.grow()?;
                    continue;
                }
                Err(_) => {
                    return Err(CaptureError::Damaged { path: self.path.clone(), packets: self.packets });
                }
            };
            self.reader.consume(length);
            if has_visited {
                return Ok(Step::Frame);
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
