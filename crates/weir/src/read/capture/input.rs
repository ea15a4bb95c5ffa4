//! Where a capture's bytes come from: looked at before they are read, and unzipped.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;

/// Length of a pcap file's header, and of the part of a pcapng file's first
/// block that says how long it is.
pub(super) const PCAP_HEADER_BYTES: usize = 24;
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const SECTION_BYTES_MAX: usize = 64 * 1024;

/// How long a pcapng file's first block is, if these are its first bytes.
pub(super) fn section_bytes(first: &[u8]) -> Option<usize> {
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
pub(super) fn peek(mut input: impl Read + Send + 'static, length: usize) -> io::Result<(Vec<u8>, Peeked)> {
    let mut first = Vec::with_capacity(length);
    input.by_ref().take(length as u64).read_to_end(&mut first)?;
    let whole = Peeked { first: first.clone(), given: 0, rest: Box::new(input) };
    Ok((first, whole))
}

/// Unzipped data, which ends where it was cut off.
pub(super) struct Unzipped<R> {
    input: MultiGzDecoder<R>,
    is_cut_off: Arc<AtomicBool>,
}

impl<R: Read> Unzipped<R> {
    /// `is_cut_off` is set where it has no end.
    pub(super) fn new(input: R, is_cut_off: Arc<AtomicBool>) -> Self {
        Self { input: MultiGzDecoder::new(input), is_cut_off }
    }
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
pub(super) struct Peeked {
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
