//! The lines that say what follows, and how long it is.

use memchr::memchr;

/// The longest number, its type, its sign and the end of the line.
const LENGTH_LINE_BYTES_MAX: usize = 24;

/// Of numbers that are never too large.
const DIGITS_USUAL: usize = 16;
const LINE_END_BYTES: usize = 2;

/// What stands behind a type: a length or a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// The number, and how many bytes its line takes.
    Is(i64, usize),
    /// `?`: what follows says itself where it ends.
    Streamed(usize),
    /// The line is not whole.
    More,
    No,
}

/// Reads a line that begins with a type, such as `$12`.
pub(super) fn length(bytes: &[u8]) -> Length {
    // Nearly all are a few digits.
    let line = bytes.get(1..).unwrap_or_default();
    let mut number = 0;
    for (digits, byte) in line.iter().take(DIGITS_USUAL).enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + i64::from(byte - b'0'),
            b'\r' if digits > 0 && line.get(digits + 1) == Some(&b'\n') => {
                return Length::Is(number, 1 + digits + LINE_END_BYTES);
            }
            _ => break,
        }
    }
    any_length(bytes)
}

fn any_length(bytes: &[u8]) -> Length {
    let head = bytes.get(..LENGTH_LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        let text = head.get(1..).unwrap_or_default();
        let may_be = text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'?' | b'\r'));
        return if may_be && head.len() < LENGTH_LINE_BYTES_MAX { Length::More } else { Length::No };
    };
    let Some(text) = head.get(1..end).and_then(|line| line.strip_suffix(b"\r")) else { return Length::No };
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    match number {
        _ if text == b"?" => Length::Streamed(end + 1),
        Some(number) if digits.iter().all(u8::is_ascii_digit) => Length::Is(number, end + 1),
        _ => Length::No,
    }
}

/// A line of any length, without its end.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// And how many bytes it takes with its end.
    Is(&'a [u8], usize),
    More,
    TooLong,
}

/// Finds the end of a line once, however many pieces it comes in.
#[derive(Debug, Default)]
pub(super) struct LineSearch {
    scanned: usize,
}

impl LineSearch {
    pub(super) fn find<'a>(&mut self, bytes: &'a [u8], bytes_max: usize) -> Line<'a> {
        let from = self.scanned.min(bytes.len());
        match bytes.get(from..).and_then(|rest| memchr(b'\n', rest)) {
            Some(after) if from + after < bytes_max => {
                self.scanned = 0;
                let end = from + after;
                let line = bytes.get(..end).unwrap_or_default();
                Line::Is(line.strip_suffix(b"\r").unwrap_or(line), end + 1)
            }
            None if bytes.len() < bytes_max => {
                self.scanned = bytes.len();
                Line::More
            }
            _ => {
                self.scanned = 0;
                Line::TooLong
            }
        }
    }

    pub(super) fn reset(&mut self) {
        self.scanned = 0;
    }
}
