//! Bodies in chunks: their sizes, and what stands after the last one.

use super::{Http, Reading};
use crate::l7::{Context, Direction, Step, Times};

/// A chunk's size, with whatever extensions.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
impl Http {
    /// A line that says how long the next chunk is.
    pub(super) fn chunk_size(&mut self, direction: Direction, bytes: &[u8], times: Times) -> Step {
        let Some(length) = self.line(direction, bytes) else {
            return if bytes.len() > CHUNK_LINE_BYTES_MAX {
                Step::Desync
            } else {
                Step::NeedMore(bytes.len() + 1)
            };
        };
        let line = bytes.get(..length).unwrap_or_default();
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|_| digits.first() != Some(&b'+')) else {
            if let Some(answering) = &mut self.answering {
                answering.anomalies.push("bad chunk size");
            }
            return Step::Desync;
        };
        self.grow(direction, times.last_ns, length as u64, false);
        self.reading[direction.index()] = if size == 0 { Reading::Trailers } else { Reading::Chunk(size) };
        Step::Consumed(length)
    }

    /// Lines after the last chunk, up to an empty one.
    pub(super) fn trailers(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        bytes: &[u8],
        times: Times,
    ) -> Step {
        let Some(length) = self.line(direction, bytes) else {
            return Step::NeedMore(bytes.len() + 1);
        };
        self.grow(direction, times.last_ns, length as u64, false);
        if bytes.get(..length).is_some_and(|line| line.trim_ascii().is_empty()) {
            self.message_ends(cx, direction);
        }
        Step::Consumed(length)
    }

    /// The length of the first line, its end included.
    fn line(&mut self, direction: Direction, bytes: &[u8]) -> Option<usize> {
        let scanned = &mut self.scanned[direction.index()];
        let rest = bytes.get(*scanned..).unwrap_or_default();
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(feed) => Some(std::mem::take(scanned) + feed + 1),
            None => {
                *scanned = bytes.len();
                None
            }
        }
    }
}
