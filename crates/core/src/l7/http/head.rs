//! Heads of messages: the start line, and those headers that matter.

use smol_str::{SmolStr, format_smolstr};

use crate::l7::{Guess, redact};
use crate::reveal::Reveal;

/// As many headers as servers accept.
const HEADERS_MAX: usize = 128;
/// Longer ones are cut: no server takes them.
pub(in crate::l7) const TARGET_BYTES_MAX: usize = 8 * 1024;
const TEXT_BYTES_MAX: usize = 256;
/// A method is a word; a longer one is something else.
const METHOD_BYTES_MAX: usize = 32;

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

/// What a head says, redacted.
#[derive(Debug, Clone, Default)]
pub(in crate::l7) struct Head {
    pub(super) framing: Framing,
    pub(super) host: Option<SmolStr>,
    pub(super) user_agent: Option<SmolStr>,
    /// What to speak from here on, in lower case.
    pub(super) upgrade: Option<String>,
    pub(super) expects_continue: bool,
    pub(super) anomalies: Vec<&'static str>,
    length: Option<u64>,
}

#[derive(Debug, Clone)]
pub(in crate::l7) struct RequestLine {
    pub(super) method: SmolStr,
    pub(super) target: SmolStr,
    /// It shows what is left out by default.
    pub(super) revealed: bool,
    /// `1.1`; `None`: not said, as before HTTP/1.0.
    pub(super) version: Option<SmolStr>,
}

#[derive(Debug, Clone)]
pub(in crate::l7) struct StatusLine {
    pub(in crate::l7) version: SmolStr,
    pub(in crate::l7) status: u16,
    pub(in crate::l7) reason: SmolStr,
}

/// Whether bytes begin with a request.
pub(super) fn guess_request(bytes: &[u8]) -> Guess {
    let bytes = without_blank_lines(bytes);
    let word = bytes.iter().position(|byte| *byte == b' ');
    let method = bytes.get(..word.unwrap_or(bytes.len())).unwrap_or_default();
    if method.len() > METHOD_BYTES_MAX
        || !method.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    {
        return Guess::No;
    }
    let Some(end) = bytes.iter().take(TARGET_BYTES_MAX).position(|byte| *byte == b'\n') else {
        let plausible = word != Some(0) && bytes.len() < TARGET_BYTES_MAX;
        return if plausible { Guess::More } else { Guess::No };
    };
    let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
    match (word, line.rsplit(|byte| *byte == b' ').next()) {
        (Some(1..), Some(version)) if version.starts_with(b"HTTP/1.") || version == b"HTTP/0.9" => {
            Guess::Sure
        }
        // SIP/2.0, RTSP/1.0, HTTP/2.0.
        (_, Some(version)) if is_version(version) => Guess::No,
        (Some(1..), _) if METHODS.iter().any(|known| known.as_bytes() == method) => Guess::Maybe,
        _ => Guess::No,
    }
}

/// Whether bytes begin with an answer.
pub(super) fn guess_response(bytes: &[u8]) -> Guess {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let bytes = without_blank_lines(bytes);
    if bytes.len() < BEGINNING.len() + 6 {
        let known = bytes.len().min(BEGINNING.len());
        let same = bytes.get(..known) == BEGINNING.get(..known);
        return if same { Guess::More } else { Guess::No };
    }
    match bytes.get(BEGINNING.len()..) {
        Some([minor, b' ' | b'\t', digits @ ..])
            if bytes.starts_with(BEGINNING) && minor.is_ascii_digit() =>
        {
            let digits = digits.trim_ascii_start();
            let three = digits.len() >= 3 && digits.iter().take(3).all(u8::is_ascii_digit);
            if three { Guess::Sure } else { Guess::No }
        }
        _ => Guess::No,
    }
}

/// Letters, a slash, digits and dots.
fn is_version(word: &[u8]) -> bool {
    let mut halves = word.splitn(2, |byte| *byte == b'/');
    let (Some(name), Some(number)) = (halves.next(), halves.next()) else { return false };
    (2..=8).contains(&name.len())
        && name.iter().all(u8::is_ascii_uppercase)
        && !number.is_empty()
        && number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

/// Whether bytes begin with a usual method, as far as they go.
pub(super) fn begins_with_method(bytes: &[u8]) -> bool {
    METHODS.iter().any(|method| {
        let length = method.len().min(bytes.len());
        bytes.get(..length) == method.as_bytes().get(..length)
            && matches!(bytes.get(length), None | Some(b' '))
    })
}

/// Empty lines before a message are to be ignored (RFC 9112, 2.2).
pub(super) fn blank_bytes(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

fn without_blank_lines(bytes: &[u8]) -> &[u8] {
    bytes.get(blank_bytes(bytes)..).unwrap_or_default()
}

/// Where the head ends (after its empty line), looking from `scanned` on, which
/// is moved along.
pub(super) fn end_of_head(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    let mut at = *scanned;
    while let Some(line) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
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

/// Reads a request's head, or the whole lines of one that was cut.
pub(super) fn request(bytes: &[u8], reveal: Reveal) -> Option<(RequestLine, Head)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let mut head = Head::default();
    if matches!(parsed.parse(bytes), Ok(httparse::Status::Complete(_)))
        && let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    {
        for header in parsed.headers.iter() {
            head.header(header.name, header.value);
        }
        head.finish();
        let line = request_line(method, path, Some(format_smolstr!("1.{minor}")), reveal);
        return Some((line, head));
    }
    let mut lines = Lines::new(bytes);
    let first = lines.next()?;
    let first = String::from_utf8_lossy(first);
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
    head.unusual_lines(lines);
    Some((request_line(method, &rest.join(" "), version, reveal), head))
}

pub(in crate::l7) fn request_line(
    method: &str,
    target: &str,
    version: Option<SmolStr>,
    reveal: Reveal,
) -> RequestLine {
    // A target of the form host:port has nothing to redact but what stands before an @.
    // Cut afterwards: what is cut off may say that what stands before it is a password.
    let (mut target, revealed) = match method {
        "CONNECT" if !target.starts_with('/') => (redact::authority(target), false),
        _ => redact::url_but(target, reveal),
    };
    target.truncate(cut(&target, TARGET_BYTES_MAX).len());
    RequestLine { method: cut(method, METHOD_BYTES_MAX).into(), target: target.into(), revealed, version }
}

/// Reads an answer's head, or the whole lines of one that was cut.
pub(super) fn response(bytes: &[u8]) -> Option<(StatusLine, Head)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let mut head = Head::default();
    if matches!(parsed.parse(bytes), Ok(httparse::Status::Complete(_)))
        && let (Some(minor), Some(status)) = (parsed.version, parsed.code)
    {
        for header in parsed.headers.iter() {
            head.header(header.name, header.value);
        }
        head.finish();
        let reason = cut(parsed.reason.unwrap_or_default(), TEXT_BYTES_MAX).into();
        return Some((StatusLine { version: format_smolstr!("1.{minor}"), status, reason }, head));
    }
    let mut lines = Lines::new(bytes);
    let first = lines.next()?;
    let first = String::from_utf8_lossy(first);
    let (version, rest) = first.trim().split_once([' ', '\t'])?;
    let rest = rest.trim_start();
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (status, reason) = rest.split_at(digits);
    let status = StatusLine {
        version: cut(version.strip_prefix("HTTP/")?, 8).into(),
        status: status.parse().ok()?,
        reason: cut(reason.trim(), TEXT_BYTES_MAX).into(),
    };
    head.unusual_lines(lines);
    Some((status, head))
}

impl Head {
    /// Headers that the strict reader refuses, line by line.
    fn unusual_lines(&mut self, lines: Lines<'_>) {
        self.anomaly("malformed head");
        for line in lines {
            let mut halves = line.splitn(2, |byte| *byte == b':');
            if let (Some(name), Some(value)) = (halves.next(), halves.next()) {
                self.header(&String::from_utf8_lossy(name.trim_ascii()), value);
            }
        }
        self.finish();
    }

    pub(in crate::l7) fn header(&mut self, name: &str, value: &[u8]) {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        let value = value.trim_ascii();
        let text = || cut(&String::from_utf8_lossy(value), TEXT_BYTES_MAX).to_owned();
        if is("content-length") {
            self.content_length(value);
        } else if is("transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            if last.eq_ignore_ascii_case(b"chunked") {
                self.framing = Framing::Chunked;
            } else if !last.eq_ignore_ascii_case(b"identity") {
                self.framing = Framing::UntilClose;
            }
        } else if is("host") {
            if self.host.is_some() {
                self.anomaly("several hosts");
            }
            // Cut afterwards, like a target.
            let host = redact::authority(&String::from_utf8_lossy(value));
            self.host.get_or_insert(cut(&host, TEXT_BYTES_MAX).into());
        } else if is("user-agent") {
            self.user_agent.get_or_insert(text().into());
        } else if is("upgrade") {
            self.upgrade.get_or_insert(text().to_ascii_lowercase());
        } else if is("expect") {
            self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        }
    }

    /// Several numbers, in one header or several, must be the same one.
    fn content_length(&mut self, value: &[u8]) {
        for number in value.split(|byte| *byte == b',') {
            let digits = number.trim_ascii();
            let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let parsed =
                std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| text.parse().ok());
            match (parsed, self.length) {
                (None, _) => self.anomaly("bad content length"),
                (Some(new), Some(old)) if new != old => self.anomaly("several content lengths"),
                (Some(new), _) => self.length = Some(new),
            }
        }
    }

    /// Chunks go before a length (RFC 9112, 6.3).
    fn finish(&mut self) {
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
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line = self.rest.get(..end)?;
        self.rest = self.rest.get(end + 1..)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| !line.is_empty())
    }
}

pub(in crate::l7) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or(text)
}

/// Methods that an old request without a version may have; also the names that
/// are attributes as they are.
pub(super) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
