//! Decompresses what a compressed packet holds, piece by piece, in bounded
//! memory.

use std::io::{self, Write};

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What is decompressed at once.
const PIECE_BYTES: usize = 8 * 1024;
/// Everybody must be able to use such a window (RFC 8878); MySQL's usual levels
/// need less.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;
const ZSTD_BLOCK_BYTES_MAX: usize = 128 * 1024;
/// What its tables take, roughly.
const ZSTD_TABLES_BYTES: usize = 32 * 1024;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_BLOCK_HEADER_BYTES: usize = 3;
const ZSTD_CHECKSUM_BYTES: usize = 4;

/// What is compressed makes no sense, or needs too much memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The decompression of one packet; idle connections have none.
#[derive(Default)]
pub(super) enum Decoder {
    /// The first byte tells.
    #[default]
    Open,
    Zlib(Box<InflateState>),
    Zstd(Box<Zstd>),
}

impl Decoder {
    /// Decompresses more of the packet into `take`.
    pub(super) fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        if let (Self::Open, Some(first)) = (&*self, bytes.first()) {
            // Nobody makes zlib's streams with so small a window as that would be.
            *self = if *first == ZSTD_MAGIC[0] {
                Self::Zstd(Box::default())
            } else {
                Self::Zlib(InflateState::new_boxed(DataFormat::Zlib))
            };
        }
        match self {
            Self::Open => Ok(()),
            Self::Zlib(state) => unzip(state, bytes, take),
            Self::Zstd(zstd) => zstd.feed(bytes, take),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Open => 0,
            Self::Zlib(_) => size_of::<InflateState>(),
            Self::Zstd(zstd) => zstd.memory_bytes(),
        }
    }
}

fn unzip(state: &mut InflateState, bytes: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
    let mut rest = bytes;
    let mut piece = [0; PIECE_BYTES];
    loop {
        let result = inflate(state, rest, &mut piece, MZFlush::None);
        rest = rest.get(result.bytes_consumed..).unwrap_or_default();
        take(piece.get(..result.bytes_written).unwrap_or_default());
        match result.status {
            Ok(MZStatus::StreamEnd) => return if rest.is_empty() { Ok(()) } else { Err(Broken) },
            Ok(_) if rest.is_empty() && result.bytes_written < piece.len() => return Ok(()),
            Ok(_) if result.bytes_consumed > 0 || result.bytes_written > 0 => {}
            Err(miniz_oxide::MZError::Buf) if rest.is_empty() => return Ok(()),
            Ok(_) | Err(_) => return Err(Broken),
        }
    }
}

/// One frame of zstd, block by block: the decoder wants whole ones.
pub(super) struct Zstd {
    decoder: FrameDecoder,
    window_bytes: u64,
    /// What has come of a header or a block.
    kept: Vec<u8>,
    stage: Stage,
    has_checksum: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Blocks,
    Done,
}

impl Default for Zstd {
    fn default() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
        Self { decoder, window_bytes: 0, kept: Vec::new(), stage: Stage::Header, has_checksum: false }
    }
}

/// Length of a frame's header, magic number included; `None` if it is not known
/// yet.
fn header_bytes(bytes: &[u8]) -> Option<usize> {
    let descriptor = *bytes.get(ZSTD_MAGIC.len())?;
    let is_one_segment = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or(0);
    let content = match descriptor >> 6 {
        0 => usize::from(is_one_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    Some(ZSTD_MAGIC.len() + 1 + usize::from(!is_one_segment) + dictionary + content)
}

impl Zstd {
    fn memory_bytes(&self) -> usize {
        // Literals and sequences of a block are held besides.
        let window = usize::try_from(self.window_bytes).unwrap_or(usize::MAX);
        ZSTD_TABLES_BYTES + 3 * self.kept.capacity() + window
    }

    fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let wanted = self.wanted_bytes()?;
            let missing = wanted.saturating_sub(self.kept.len()).min(rest.len());
            let (now, later) = rest.split_at(missing);
            self.kept.extend_from_slice(now);
            rest = later;
            if self.wanted_bytes()? == self.kept.len() {
                self.take_kept(take)?;
                self.kept.clear();
            }
        }
        Ok(())
    }

    /// How many bytes the header or block has, as far as is known.
    fn wanted_bytes(&self) -> Result<usize, Broken> {
        match self.stage {
            Stage::Header => Ok(header_bytes(&self.kept).unwrap_or(ZSTD_MAGIC.len() + 1)),
            Stage::Blocks => {
                let [a, b, c, ..] = self.kept.as_slice() else { return Ok(ZSTD_BLOCK_HEADER_BYTES) };
                let header = u32::from_le_bytes([*a, *b, *c, 0]);
                let size = (header >> 3) as usize;
                let is_repeated = (header >> 1) & 3 == 1;
                if size > ZSTD_BLOCK_BYTES_MAX {
                    return Err(Broken);
                }
                let checksum = if header & 1 != 0 && self.has_checksum { ZSTD_CHECKSUM_BYTES } else { 0 };
                Ok(ZSTD_BLOCK_HEADER_BYTES + if is_repeated { 1 } else { size } + checksum)
            }
            Stage::Done => Err(Broken),
        }
    }

    fn take_kept(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        let mut kept = self.kept.as_slice();
        if self.stage == Stage::Header {
            self.has_checksum = kept.get(ZSTD_MAGIC.len()).is_some_and(|descriptor| descriptor & 4 != 0);
            self.decoder.reset(&mut kept).map_err(|_| Broken)?;
            self.window_bytes = window_bytes(&self.kept).min(ZSTD_WINDOW_BYTES_MAX);
            self.stage = Stage::Blocks;
            return Ok(());
        }
        let one = BlockDecodingStrategy::UptoBlocks(1);
        if self.decoder.decode_blocks(&mut kept, one).map_err(|_| Broken)? {
            self.stage = Stage::Done;
        }
        self.decoder.collect_to_writer(Sink { take }).map_err(|_| Broken)?;
        Ok(())
    }
}

/// How much the decoder must remember, by a whole header.
fn window_bytes(header: &[u8]) -> u64 {
    let descriptor = header.get(ZSTD_MAGIC.len()).copied().unwrap_or_default();
    if descriptor & 0x20 == 0 {
        let window = header.get(ZSTD_MAGIC.len() + 1).copied().unwrap_or_default();
        let base = 1_u64 << (10 + u32::from(window >> 3));
        return base + base / 8 * u64::from(window & 7);
    }
    // All of the content, whose length is the header's last field.
    let length = 1 << (descriptor >> 6);
    let last = header.len().checked_sub(length).and_then(|start| header.get(start..)).unwrap_or_default();
    last.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)) + 256
}

struct Sink<'a> {
    take: &'a mut dyn FnMut(&[u8]),
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.take)(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
