//! What Redis looks like, at the beginning of a connection and after a hole.

use super::command::Subscription;
use super::is_text;
use super::keys::known;
use super::line::{Length, length};
use crate::l7::{Guess, Heads, Resync};

/// Arguments that a first command may have.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// No command has a longer name.
const NAME_BYTES_MAX: i64 = 64;
/// `*1048576\r\n$64\r\n` and the name.
const COMMAND_HEAD_BYTES_MAX: usize = 96;

pub(super) fn probe(heads: &Heads<'_>) -> Guess {
    let asked = command(heads.to_server);
    if asked == Guess::Sure {
        // A length, a length and a name that only Redis knows.
        return Guess::Sure;
    }
    match (asked, reply(heads.to_client), heads.to_server.is_empty()) {
        (Guess::No, ..) | (_, Guess::No, _) => Guess::No,
        (_, Guess::Sure, true) => Guess::Sure,
        (Guess::Maybe, Guess::Maybe | Guess::Sure, _) => Guess::Sure,
        (asked, answered, _) => asked.max(answered.min(Guess::Maybe)),
    }
}

/// Whether this is how a command begins.
fn command(bytes: &[u8]) -> Guess {
    if bytes.first().is_some_and(|first| *first != b'*') {
        return text_command(bytes);
    }
    let Length::Is(1..=ARGUMENTS_MAX, at) = length(bytes) else { return part(bytes) };
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.first().is_some_and(|first| *first != b'$') {
        return Guess::No;
    }
    let Length::Is(size @ 1..=NAME_BYTES_MAX, at) = length(rest) else { return part(rest) };
    let rest = rest.get(at..).unwrap_or_default();
    let size = usize::try_from(size).unwrap_or_default();
    let name = rest.get(..size).unwrap_or(rest);
    if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Guess::No;
    }
    match rest.get(size..) {
        Some([b'\r', b'\n', ..]) if is_known_name(name) => Guess::Sure,
        Some([b'\r', b'\n', ..]) => Guess::Maybe,
        None | Some([] | [b'\r']) => Guess::More,
        Some(_) => Guess::No,
    }
}

fn part(bytes: &[u8]) -> Guess {
    if bytes.is_empty() || length(bytes) == Length::More { Guess::More } else { Guess::No }
}

fn is_known_name(name: &[u8]) -> bool {
    known(name).is_some()
}

/// A line of text that begins with a command's name. HTTP has a GET, too.
fn text_command(bytes: &[u8]) -> Guess {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let http = line.windows(6).any(|window| window == b"HTTP/1");
    if http || !line.iter().all(|byte| is_text(*byte)) {
        return Guess::No;
    }
    let word = line.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    match end {
        Some(_) if word.is_empty() || is_known_name(word) => Guess::Maybe,
        // Of a command that is not known, the server's answer tells.
        _ if line.len() < super::LINE_BYTES_MAX => Guess::More,
        _ => Guess::No,
    }
}

/// Whether this is how a reply begins.
fn reply(bytes: &[u8]) -> Guess {
    let Some(kind) = bytes.first() else { return Guess::More };
    let line_end = bytes.iter().position(|byte| *byte == b'\n');
    if is_message(bytes) || bytes.starts_with(b"-DENIED Redis") {
        return Guess::Sure;
    }
    match kind {
        // A mail server says so, too, and goes on talking.
        b'+' if bytes.starts_with(b"+OK ") => Guess::No,
        b'+' | b'-' | b'(' | b',' => match line_end {
            Some(end) if bytes.get(..end).is_some_and(|line| line.ends_with(b"\r")) => Guess::Maybe,
            Some(_) => Guess::No,
            None => Guess::More,
        },
        b':' | b'$' | b'*' | b'%' | b'~' | b'>' | b'|' | b'=' | b'!' => match length(bytes) {
            Length::Is(-1.., _) | Length::Streamed(_) => Guess::Maybe,
            Length::More => Guess::More,
            _ => Guess::No,
        },
        b'_' | b'#' if matches!(bytes, [b'_', b'\r', b'\n', ..] | [b'#', _, b'\r', b'\n', ..]) => {
            Guess::Maybe
        }
        b'_' | b'#' if bytes.len() < 4 => Guess::More,
        _ => Guess::No,
    }
}

/// Whether this begins like what a subscriber is sent.
fn is_message(bytes: &[u8]) -> bool {
    if !matches!(bytes.first(), Some(b'*' | b'>')) {
        return false;
    }
    let Length::Is(2..=4, at) = length(bytes) else { return false };
    let rest = bytes.get(at..).unwrap_or_default();
    let Length::Is(size @ 3..=32, at) = length(rest) else { return false };
    let end = at.saturating_add(usize::try_from(size).unwrap_or_default());
    let known = |label: &[u8]| label_is_known(label) && rest.first() == Some(&b'$');
    rest.get(at..end).is_some_and(known)
}

fn label_is_known(label: &[u8]) -> bool {
    is_message_label(label)
        || label == b"invalidate"
        || (Subscription::named(label).is_some() && label.iter().all(u8::is_ascii_lowercase))
}

/// What is sent to subscribers without being asked for each time.
pub(super) fn is_message_label(label: &[u8]) -> bool {
    matches!(label, b"message" | b"pmessage" | b"smessage")
}

/// A line of what a `MONITOR` is sent: `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`.
pub(super) fn is_monitored(text: &[u8]) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits >= 9 && text.get(digits) == Some(&b'.') && text.contains(&b'[')
}

/// Looks for a command of a known name, at the beginning of a line.
pub(super) fn resync_requests(bytes: &[u8]) -> Resync {
    let mut from = 0;
    while let Some(star) = bytes.iter().skip(from).position(|byte| *byte == b'*').map(|after| from + after) {
        let before = bytes.get(..star).unwrap_or_default();
        if before.is_empty() || before.ends_with(b"\r\n") {
            let rest = bytes.get(star..).unwrap_or_default();
            match command(rest.get(..COMMAND_HEAD_BYTES_MAX).unwrap_or(rest)) {
                Guess::Sure => return Resync::At(star),
                // With the end of the line before it.
                Guess::More => return Resync::Keep(rest.len() + before.len().min(2)),
                _ => {}
            }
        }
        from = star + 1;
    }
    let end = [b"\r\n".as_slice(), b"\r"].into_iter().find(|end| bytes.ends_with(end));
    Resync::Keep(end.map_or(0, <[u8]>::len))
}

/// A value inside of a reply looks just like a reply. So only the first bytes
/// after a question can be one (`asked`), and messages, which say what they are.
pub(super) fn resync_replies(bytes: &[u8], asked: bool) -> Resync {
    let monitored = bytes.first() == Some(&b'+') && is_monitored(bytes.get(1..).unwrap_or_default());
    match reply(bytes) {
        Guess::Sure => Resync::At(0),
        _ if monitored => Resync::At(0),
        Guess::Maybe if asked => Resync::At(0),
        Guess::More if asked && bytes.len() < COMMAND_HEAD_BYTES_MAX => Resync::Keep(bytes.len()),
        Guess::Maybe if !asked && bytes.len() < COMMAND_HEAD_BYTES_MAX && may_become_message(bytes) => {
            Resync::Keep(bytes.len())
        }
        _ => Resync::Keep(0),
    }
}

fn may_become_message(bytes: &[u8]) -> bool {
    let Length::Is(2..=4, at) = length(bytes) else { return false };
    let rest = bytes.get(at..).unwrap_or_default();
    matches!(bytes.first(), Some(b'*' | b'>')) && (rest.is_empty() || length(rest) == Length::More)
}
