//! Heads of messages: the start line, and those headers that matter.

use memchr::memchr;
use smol_str::SmolStr;

use super::guess::{METHOD_BYTES_MAX, METHODS, without_blank_lines};
use super::strict;
use crate::l7::redact;
use crate::reveal::Reveal;
use crate::sql::mask_quoted;
use crate::text;

/// Longer ones are cut: no server takes them.
pub(in crate::l7) const TARGET_BYTES_MAX: usize = 8 * 1024;
const TEXT_BYTES_MAX: usize = 256;

/// How long a body is, by its head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing is said.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Encoded in a way that has no end of its own.
    UntilClose,
}

/// What a head says of what matters, as it was sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::l7) struct Head<'a> {
    pub(super) framing: Framing,
    pub(super) host: Option<&'a [u8]>,
    pub(super) user_agent: Option<&'a [u8]>,
    /// What to speak from here on.
    pub(super) upgrade: Option<&'a [u8]>,
    pub(super) expects_continue: bool,
    pub(super) anomalies: Vec<&'static str>,
    length: Option<u64>,
}

/// A request's first line, redacted.
#[derive(Debug)]
pub(in crate::l7) struct RequestLine {
    pub(super) method: SmolStr,
    /// The method is one of [`METHODS`].
    pub(super) is_usual: bool,
    pub(super) target: SmolStr,
    /// It shows what is left out by default.
    pub(super) revealed: bool,
    /// `1.1`; `None`: not said, as before HTTP/1.0.
    pub(super) version: Option<SmolStr>,
}

/// An answer's first line.
#[derive(Debug)]
pub(in crate::l7) struct StatusLine {
    pub(in crate::l7) version: SmolStr,
    pub(in crate::l7) status: u16,
    /// What the server says is wrong; else nothing.
    pub(in crate::l7) reason: SmolStr,
}

/// Where the head ends (after its empty line), looking from `scanned` on, which
/// is moved along.
pub(super) fn end_of_head(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    let mut at = *scanned;
    while let Some(line) = bytes.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let feed = at + line;
        match bytes.get(feed + 1..) {
            Some([b'\n', ..]) => return Some(feed + 2),
            Some([b'\r', b'\n', ..]) => return Some(feed + 3),
            // The next byte decides.
            Some([] | [b'\r']) => {
                *scanned = feed;
                return None;
            }
            _ => at = feed + 1,
        }
    }
    *scanned = bytes.len();
    None
}

/// Reads a request's head that lies whole and flawless at the beginning of these
/// bytes, and how long it is.
pub(super) fn strict_request(bytes: &[u8], reveal: Reveal) -> Option<(RequestLine, Head<'_>, usize)> {
    let (strict::Asked { method, target, minor_version }, head, length) = strict::request(bytes)?;
    let line = request_line(method, target, Some(version(minor_version)), reveal);
    Some((line, head, length))
}

/// Reads a request's head, or the whole lines of one that was cut.
pub(super) fn request(bytes: &[u8], reveal: Reveal) -> Option<(RequestLine, Head<'_>)> {
    if let Some((line, head, _)) = strict_request(bytes, reveal) {
        return Some((line, head));
    }
    let mut lines = Lines::new(bytes);
    let first = lines.next()?;
    let first = text::lossy(first);
    let mut words = first.split_ascii_whitespace();
    let method = words.next()?;
    let mut rest: Vec<&str> = words.collect();
    let version = match rest.last().and_then(|word| word.strip_prefix("HTTP/")) {
        Some(number) => {
            let number = SmolStr::new(number);
            rest.pop();
            Some(number)
        }
        None => None,
    };
    Some((request_line(method.as_bytes(), &rest.join(" "), version, reveal), Head::of_unusual_lines(lines)))
}

pub(in crate::l7) fn request_line(
    method: &[u8],
    target: &str,
    version: Option<SmolStr>,
    reveal: Reveal,
) -> RequestLine {
    // A target of the form host:port has nothing to redact but what stands before an @.
    // Cut afterwards: what is cut off may say that what stands before it is a password.
    let (target, revealed) = match method {
        b"CONNECT" if !target.starts_with('/') => (redact::authority(target), false),
        _ => redact::url_but(target, reveal),
    };
    let target = SmolStr::new(cut(&target, TARGET_BYTES_MAX));
    let usual = METHODS.iter().find(|usual| usual.as_bytes() == method);
    let method = match usual {
        Some(usual) => SmolStr::new_static(usual),
        None => cut(&text::lossy(method), METHOD_BYTES_MAX).into(),
    };
    RequestLine { method, is_usual: usual.is_some(), target, revealed, version }
}

/// Reads an answer's head that lies whole and flawless at the beginning of these
/// bytes, and how long it is.
pub(super) fn strict_response(bytes: &[u8]) -> Option<(StatusLine, Head<'_>, usize)> {
    let (strict::Answered { minor_version, status, reason }, head, length) = strict::response(bytes)?;
    // What is not ASCII there may be anything.
    let reason = if is_ok(status) {
        None
    } else {
        std::str::from_utf8(reason).ok().filter(|reason| reason.is_ascii())
    };
    Some((status_line(version(minor_version), status, reason.unwrap_or_default()), head, length))
}

/// Reads an answer's head, or the whole lines of one that was cut.
pub(super) fn response(bytes: &[u8]) -> Option<(StatusLine, Head<'_>)> {
    if let Some((line, head, _)) = strict_response(bytes) {
        return Some((line, head));
    }
    let mut lines = Lines::new(bytes);
    let first = lines.next()?;
    let first = text::lossy(first);
    let (version, rest) = first.trim().split_once([' ', '\t'])?;
    let rest = rest.trim_start();
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (status, reason) = rest.split_at(digits);
    let version = cut(version.strip_prefix("HTTP/")?, 8).into();
    let line = status_line(version, status.parse().ok()?, reason.trim());
    Some((line, Head::of_unusual_lines(lines)))
}

fn status_line(version: SmolStr, status: u16, reason: &str) -> StatusLine {
    let reason = match is_ok(status) {
        true => SmolStr::default(),
        // Some servers tell there what they were sent.
        false => cut(&redact::url(&mask_quoted(reason)), TEXT_BYTES_MAX).into(),
    };
    StatusLine { version, status, reason }
}

/// Whether the server did what was asked.
pub(super) fn is_ok(status: u16) -> bool {
    status < 400
}

/// Of the two that the strict reader knows.
fn version(minor: u8) -> SmolStr {
    SmolStr::new_static(if minor == 0 { "1.0" } else { "1.1" })
}

impl<'a> Head<'a> {
    /// Headers that the strict reader refuses, line by line.
    fn of_unusual_lines(lines: Lines<'a>) -> Self {
        let mut head = Self::default();
        head.anomaly("malformed head");
        for line in lines {
            let mut halves = line.splitn(2, |byte| *byte == b':');
            if let (Some(name), Some(value)) = (halves.next(), halves.next()) {
                head.header(name.trim_ascii(), value);
            }
        }
        head.finish();
        head
    }

    /// Takes a header, if it is one of those that matter.
    #[inline]
    pub(in crate::l7) fn header(&mut self, name: &[u8], value: &'a [u8]) {
        // Most do not, and their names' lengths and first letters say so.
        match (name.len(), name.first().map_or(0, u8::to_ascii_lowercase)) {
            (4, b'h') | (6, b'e') | (7 | 10, b'u') | (14, b'c') | (17, b't') => {
                self.header_that_may_matter(name, value)
            }
            _ => {}
        }
    }

    // Apart, so that it costs nothing where it is not needed.
    #[inline(never)]
    fn header_that_may_matter(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |expected: &[u8]| name.eq_ignore_ascii_case(expected);
        if is(b"host") {
            if self.host.is_some() {
                self.anomaly("several hosts");
            }
            self.host.get_or_insert(value.trim_ascii());
        } else if is(b"expect") {
            self.expects_continue = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
        } else if is(b"upgrade") {
            self.upgrade.get_or_insert(value.trim_ascii());
        } else if is(b"user-agent") {
            self.user_agent.get_or_insert(value.trim_ascii());
        } else if is(b"content-length") {
            self.content_length(value);
        } else if is(b"transfer-encoding") {
            self.transfer_encoding(value);
        }
    }

    /// Whether this is what is to be spoken from here on.
    pub(super) fn upgrades_to(&self, name: &str) -> bool {
        self.upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// As the client called it, redacted.
    pub(super) fn host(&self) -> Option<SmolStr> {
        let host = text::lossy(self.host?);
        // Cut afterwards, like a target.
        Some(cut(&redact::authority(&host), TEXT_BYTES_MAX).into())
    }

    pub(super) fn user_agent(&self) -> Option<SmolStr> {
        Some(cut(&text::lossy(self.user_agent?), TEXT_BYTES_MAX).into())
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        if last.eq_ignore_ascii_case(b"chunked") {
            self.framing = Framing::Chunked;
        } else if !last.eq_ignore_ascii_case(b"identity") {
            self.framing = Framing::UntilClose;
        }
    }

    /// Several numbers, in one header or several, must be the same one.
    fn content_length(&mut self, value: &[u8]) {
        for number in value.split(|byte| *byte == b',') {
            match (parsed(number.trim_ascii()), self.length) {
                (None, _) => self.anomaly("bad content length"),
                (Some(new), Some(old)) if new != old => self.anomaly("several content lengths"),
                (Some(new), _) => self.length = Some(new),
            }
        }
    }

    /// Chunks go before a length (RFC 9112, 6.3).
    pub(super) fn finish(&mut self) {
        match (self.framing, self.length) {
            (Framing::None, Some(length)) => self.framing = Framing::Length(length),
            (Framing::Chunked | Framing::UntilClose, Some(_)) => self.anomaly("length and transfer encoding"),
            _ => {}
        }
    }

    pub(in crate::l7) fn anomaly(&mut self, what: &'static str) {
        if !self.anomalies.contains(&what) {
            self.anomalies.push(what);
        }
    }
}

/// A number that is nothing but digits.
fn parsed(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(value)
    })
}

/// Whole lines, without their ends; folded ones are put together by nobody, as
/// no header that matters may be folded.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: without_blank_lines(bytes) }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.rest)?;
        let line = self.rest.get(..end)?;
        self.rest = self.rest.get(end + 1..)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| !line.is_empty())
    }
}

pub(in crate::l7) fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whichever reader takes a head, the next message begins at the same place.
        #[test]
        fn the_strict_reader_and_the_search_agree_where_a_head_ends(
            pieces in proptest::collection::vec(prop::sample::select(vec![
                "GET / HTTP/1.1", "HTTP/1.1 200 OK", "HTTP/1.0 404 ", "Host: a", "Host:", "a: b c", ": b", " folded",
                "\r\n", "\r\n", "\r\n", "\n", "\n", "\r", "\r\n\r\n", "\n\r\n", "x", "\t", "\u{e9}", "\0",
            ]), 0..12),
            beginning in prop::sample::select(vec!["GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", ""]),
        ) {
            let text = format!("{beginning}{}", pieces.concat());
            let bytes = without_blank_lines(text.as_bytes());
            let end = end_of_head(bytes, &mut 0);
            if let Some((.., length)) = strict_request(bytes, Reveal::NOTHING) {
                prop_assert_eq!(Some(length), end);
            }
            if let Some((.., length)) = strict_response(bytes) {
                prop_assert_eq!(Some(length), end);
            }
        }
    }
}
