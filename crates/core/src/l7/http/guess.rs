//! Whether bytes begin with a head.

use memchr::memchr;

use super::head::TARGET_BYTES_MAX;
use crate::l7::Guess;

/// A method is a word; a longer one is something else.
pub(super) const METHOD_BYTES_MAX: usize = 32;
/// Methods that an old request without a version may have; also the names that
/// are attributes as they are.
pub(super) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Whether bytes begin with a request.
pub(super) fn request(bytes: &[u8]) -> Guess {
    let bytes = without_blank_lines(bytes);
    let word = bytes.iter().position(|byte| *byte == b' ');
    let method = bytes.get(..word.unwrap_or(bytes.len())).unwrap_or_default();
    if !may_be_method(method) {
        return Guess::No;
    }
    let line = bytes.get(..TARGET_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr(b'\n', line) else {
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
pub(super) fn response(bytes: &[u8]) -> Guess {
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

/// Whether it is made of what methods are made of.
pub(super) fn may_be_method(word: &[u8]) -> bool {
    word.len() <= METHOD_BYTES_MAX
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
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

pub(super) fn without_blank_lines(bytes: &[u8]) -> &[u8] {
    bytes.get(blank_bytes(bytes)..).unwrap_or_default()
}
