//! One direction of a connection: where in a frame it is, and which header
//! fields it has brought.

use super::frame::{self, HEADER_BYTES, Header};
use super::headers::Headers;
use super::hpack::Decoder;
use super::sync::Search;
use crate::l7::{FrameAhead, Part};
use crate::record::Capture;

/// Of header fields, as they are sent; servers accept 8 to 64 kB.
pub(super) const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// The kernel side leaves out contents that are at least as long as this.
const LONG_BYTES: usize = 4_096;
/// In long frames of one direction. Until then the messages of calls are counted in
/// them, too.
const SPARED_AFTER_BYTES: u64 = 1 << 20;

pub(super) struct Way {
    pub(super) reading: Reading,
    /// The frame that is being read.
    pub(super) frame: Header,
    /// What was seen of it; of DATA frames only the header.
    pub(super) part: Part,
    payload: Vec<u8>,
    /// Header fields, until they are whole.
    block: Option<Block>,
    table: Decoder,
    /// Why what came before is not known, if so.
    pub(super) doubt: Capture,
    /// It is not known where the next frame begins.
    pub(super) searching: bool,
    pub(super) search: Search,
    /// Where frames begin was found by what they look like.
    pub(super) guessed: bool,
    /// Something was said.
    pub(super) begun: bool,
    /// In frames that are so long that leaving out their contents is worth it.
    long_bytes: u64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Header,
    /// So much of a frame that is looked at, and after it so much that is not.
    Payload(usize, usize),
    /// How much padding there is, in a DATA frame with so many bytes.
    PadLength(usize),
    /// Content, and padding after it.
    Content(usize, usize),
}

impl Reading {
    /// How a frame is read.
    fn of(header: Header) -> Self {
        let length = header.length;
        let wanted = match header.kind {
            frame::DATA if header.has(frame::PADDED) && length > 0 => return Self::PadLength(length),
            frame::DATA => return Self::Content(length, 0),
            frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION => BLOCK_BYTES_MAX,
            frame::RST_STREAM | frame::GOAWAY => 8,
            _ => 0,
        };
        let wanted = wanted.min(length);
        Self::Payload(wanted, length - wanted)
    }

    /// What is left of the frame.
    pub(super) fn left(self) -> usize {
        match self {
            Self::Header => 0,
            Self::Payload(wanted, rest) => wanted + rest,
            Self::PadLength(left) => left,
            Self::Content(content, padding) => content + padding,
        }
    }
}

/// Header fields, over as many frames as they come in.
struct Block {
    stream: u32,
    /// The stream that a push is promised on.
    promised: Option<u32>,
    /// Nothing comes after them.
    last: bool,
    part: Part,
    bytes: Vec<u8>,
    /// Not all of it is in `bytes`.
    broken: bool,
    too_long: bool,
}

/// What a block has brought.
pub(super) struct Said {
    pub(super) stream: u32,
    /// The stream that a push is promised on.
    pub(super) promised: Option<u32>,
    /// Nothing comes after it.
    pub(super) last: bool,
    pub(super) part: Part,
    pub(super) headers: Headers,
    /// How much of it was seen.
    pub(super) capture: Capture,
}

impl Way {
    pub(super) fn new(late: bool) -> Self {
        Self {
            reading: Reading::Header,
            frame: Header::default(),
            part: Part::default(),
            payload: Vec::new(),
            block: None,
            table: if late { Decoder::late() } else { Decoder::default() },
            doubt: if late { Capture::Midstream } else { Capture::Complete },
            searching: late,
            search: Search::default(),
            guessed: late,
            begun: false,
            long_bytes: 0,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes.capacity());
        self.payload.capacity() + block + self.table.memory_bytes()
    }

    /// A frame begins, of which `part` was seen. Gives back the block that ought
    /// to have gone on with it, and does not.
    pub(super) fn begin(&mut self, header: Header, part: Part) -> Option<Said> {
        self.begun = true;
        self.searching = false;
        self.frame = header;
        self.part = part;
        self.reading = Reading::of(header);
        if header.kind == frame::DATA && header.length >= LONG_BYTES {
            self.long_bytes += header.length as u64;
        }
        let goes_on = header.kind == frame::CONTINUATION;
        let broken_off = match &self.block {
            Some(block) if !goes_on || block.stream != header.stream => self.break_off(),
            _ => None,
        };
        match header.kind {
            frame::HEADERS | frame::PUSH_PROMISE => self.block = Some(Block::new(header)),
            // Of a block whose beginning was missed: what it adds to the table is not known.
            frame::CONTINUATION if self.block.is_none() => self.table = Decoder::late(),
            _ => {}
        }
        broken_off
    }

    /// The next frame, once so much has come in long ones that their contents can be left out.
    pub(super) fn frame_ahead(&self) -> Option<FrameAhead> {
        let length = HEADER_BYTES + self.frame.length;
        (self.long_bytes >= SPARED_AFTER_BYTES && !self.searching)
            .then(|| FrameAhead { left_bytes: self.reading.left() as u64, bytes: length as u64 })
    }

    /// More of the frame's payload, as far as that is looked at.
    pub(super) fn take(&mut self, bytes: &[u8], time_ns: u64) {
        self.payload.extend_from_slice(bytes);
        self.part.grow(time_ns, bytes.len() as u64);
    }

    /// Bytes of the payload are missing.
    pub(super) fn miss(&mut self, bytes: u64, time_ns: u64, capture: Capture) {
        self.part.grow(time_ns, bytes);
        if matches!(self.frame.kind, frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION) {
            self.doubt = self.doubt.max(capture);
        }
    }

    /// Four bytes of the payload as a number, if they were seen.
    pub(super) fn number(&self, at: usize) -> Option<u32> {
        let bytes: [u8; 4] = self.payload.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    }

    /// The frame is over. Gives what a block has brought, if one ends with it.
    pub(super) fn end(&mut self) -> Option<Said> {
        let payload = std::mem::take(&mut self.payload);
        let (header, part) = (self.frame, self.part);
        if !matches!(header.kind, frame::HEADERS | frame::PUSH_PROMISE | frame::CONTINUATION) {
            return None;
        }
        let block = self.block.as_mut()?;
        block.add(header, &payload, part);
        if header.has(frame::END_HEADERS) { self.block_ends() } else { None }
    }

    /// What comes of a block of which no more comes.
    pub(super) fn break_off(&mut self) -> Option<Said> {
        self.block.as_mut()?.broken = true;
        self.block_ends()
    }

    /// Frames were missed: the table is not known any more.
    pub(super) fn lose(&mut self, capture: Capture) {
        self.begun = true;
        self.searching = true;
        self.search = Search::default();
        self.guessed = true;
        self.reading = Reading::Header;
        self.payload = Vec::new();
        self.table = Decoder::late();
        self.doubt = self.doubt.max(capture);
    }

    fn block_ends(&mut self) -> Option<Said> {
        let Block { stream, promised, last, part, bytes, broken, too_long } = self.block.take()?;
        let mut headers = Headers::default();
        headers.too_long = too_long;
        match self.table.block(&bytes, &mut |field| headers.take(field)) {
            Ok(list_bytes) if !broken => headers.written_out(list_bytes),
            result => {
                headers.malformed |= result.is_err() && !broken;
                headers.unseen = true;
                self.table = Decoder::late();
            }
        }
        let capture = match (headers.unseen, self.doubt) {
            (false, _) => Capture::Complete,
            // Not missed, but malformed or too much to be kept.
            (true, Capture::Complete) => Capture::Truncated,
            (true, doubt) => doubt,
        };
        Some(Said { stream, promised, last, part, headers, capture })
    }
}

impl Block {
    fn new(header: Header) -> Self {
        Self {
            stream: header.stream,
            promised: None,
            last: header.kind == frame::HEADERS && header.has(frame::END_STREAM),
            part: Part::default(),
            bytes: Vec::new(),
            broken: false,
            too_long: false,
        }
    }

    /// What was seen of one of its frames.
    fn add(&mut self, header: Header, payload: &[u8], part: Part) {
        match self.part.bytes {
            0 => self.part = part,
            _ => self.part.grow(part.last_ns, part.bytes),
        }
        let Some((range, promised)) = header.fragment(payload) else {
            self.broken = true;
            return;
        };
        self.promised = self.promised.or(promised);
        let fragment = payload.get(range.start..range.end.min(payload.len())).unwrap_or_default();
        if self.broken {
            return;
        }
        let room = BLOCK_BYTES_MAX - self.bytes.len();
        self.too_long = range.len() > room;
        self.broken = self.too_long || fragment.len() < range.len();
        self.bytes.extend_from_slice(fragment.get(..room).unwrap_or(fragment));
    }
}
