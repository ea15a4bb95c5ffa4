//! Messages as they are on the wire, and how they are told from other bytes.

use super::{Direction, Gap, Guess, Part, Resync};
use crate::reveal::{Class, Reveal};

/// Type and length.
pub(super) const HEADER_BYTES: usize = 5;
/// Length and code of the messages that have no type.
pub(super) const OPENING_BYTES: usize = 8;
/// As much as is looked at of a message that holds SQL.
pub(super) const STATEMENT_BYTES_MAX: usize = 16 * 1024;
/// Names are shorter than 64 bytes for the server, as long as it is not built otherwise.
const NAMES_BYTES_MAX: usize = 512;
/// Of error messages, of which the first fields are the ones of interest.
const ERROR_BYTES_MAX: usize = 4 * 1024;
/// Values that are shown of one execution, if any may be.
const VALUES_MAX: usize = 32;
/// Of each.
const VALUE_BYTES_MAX: usize = 256;
/// The server takes no longer message (1 GiB).
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// The server takes no longer one.
const STARTUP_BYTES_MAX: usize = 10_000;
/// The key in it has up to 256 bytes.
const CANCEL_BYTES_MAX: usize = 12 + 256;
/// The highest method of authentication (SASL's last step).
const AUTHENTICATION_MAX: u32 = 12;
/// So many messages that follow each other are no accident.
const CHAIN_MAX: usize = 8;
/// So many whole ones are none either, where the next one is not whole yet.
const CHAIN_MIN: usize = 2;
/// Bytes at the end that may be the beginning of a chain.
const RESYNC_BYTES_MAX: usize = 4 * 1024;
/// A row of an answer.
pub(super) const ROW: u8 = b'D';
/// `ReadyForQuery`, except for its last byte.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];

/// A message that has come to its end.
pub(super) struct Message<'a> {
    pub(super) kind: u8,
    /// As much as is looked at.
    pub(super) body: &'a [u8],
    /// Whether that is less than there was.
    pub(super) cut: bool,
    pub(super) part: Part,
    /// Bytes after `body` are missing.
    pub(super) gap: Option<Gap>,
}

/// A client's first message.
pub(super) enum Opening {
    More,
    /// Not an opening.
    None,
    Encryption(&'static str),
    /// With its length.
    Cancel(usize),
    /// With its length.
    Startup(usize),
}

pub(super) fn opening(bytes: &[u8]) -> Opening {
    let [l0, l1, l2, l3, c0, c1, c2, c3, ..] = bytes else {
        let may_be = bytes.iter().take(2).all(|byte| *byte == 0);
        return if may_be { Opening::More } else { Opening::None };
    };
    let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
    match (u32::from_be_bytes([*c0, *c1, *c2, *c3]), length) {
        (80_877_103, 8) => Opening::Encryption("SSLREQUEST"),
        (80_877_104, 8) => Opening::Encryption("GSSENCREQUEST"),
        (80_877_102, 12..=CANCEL_BYTES_MAX) => Opening::Cancel(length),
        (0x0003_0000..=0x0003_ffff, 9..=STARTUP_BYTES_MAX) => Opening::Startup(length),
        _ => Opening::None,
    }
}

/// Type and whole length; `Some(None)` if they have not come yet, `None` if this
/// is no message.
pub(super) fn header(direction: Direction, bytes: &[u8]) -> Option<Option<(u8, usize)>> {
    let kind = *bytes.first()?;
    if !known(direction, kind) {
        return None;
    }
    let [_, l0, l1, l2, l3, ..] = bytes else { return Some(None) };
    let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
    (4..=MESSAGE_BYTES_MAX).contains(&length).then_some(Some((kind, 1 + length)))
}

fn known(direction: Direction, kind: u8) -> bool {
    match direction {
        Direction::ToServer => b"QPBDECSHFXdcfp".contains(&kind),
        Direction::ToClient => b"RKSZTDCIEN123nstAGHWVvdc".contains(&kind),
    }
}

/// How much of a body is looked at. Nothing of rows, copied data, secrets, and
/// of what holds nothing that is used.
pub(super) fn body_bytes_seen(direction: Direction, kind: u8, reveal: Reveal) -> usize {
    match (direction, kind) {
        (Direction::ToServer, b'B') if reveal.has(Class::Parameters) => STATEMENT_BYTES_MAX,
        (Direction::ToServer, b'Q' | b'P') => STATEMENT_BYTES_MAX,
        (Direction::ToServer, b'B' | b'D' | b'E' | b'C') => NAMES_BYTES_MAX,
        (Direction::ToServer, b'F') => 4,
        (Direction::ToClient, b'E') => ERROR_BYTES_MAX,
        (Direction::ToClient, b'C' | b'S') => NAMES_BYTES_MAX,
        _ => 0,
    }
}

/// The text up to the next NUL, and what follows it. Text that is cut off ends
/// where it is cut off.
pub(super) fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (bytes.get(..end).unwrap_or_default(), bytes.get(end + 1..).unwrap_or_default()),
        None => (bytes, &[]),
    }
}

/// What an error message says.
pub(super) struct Error {
    pub(super) severity: String,
    pub(super) code: Option<String>,
    pub(super) message: String,
    /// By a program in the database (`RAISE`), or it cannot be told.
    pub(super) is_made_up: bool,
}

/// Whether errors of this code say what a program has made up: `raise_exception`,
/// `assert_failure`, and those of programs in other languages.
fn is_of_programs(code: &str) -> bool {
    matches!(code, "P0001" | "P0004") || code.starts_with("38")
}

pub(super) fn error(body: &[u8]) -> Error {
    let mut error = Error { severity: String::new(), code: None, message: String::new(), is_made_up: true };
    let mut rest = body;
    let mut is_raised = false;
    while let [field, value @ ..] = rest {
        let (value, after) = text(value);
        rest = after;
        let value = || String::from_utf8_lossy(value).into_owned();
        match field {
            // The end: nothing of it is missing.
            0 => {
                error.is_made_up = is_raised;
                break;
            }
            // A program may give any code.
            b'R' => is_raised |= value() == "exec_stmt_raise",
            // In English, unlike `S`, which stands before it.
            b'V' => error.severity = value(),
            b'S' => error.severity = value(),
            b'C' => error.code = Some(value()),
            b'M' => error.message = value(),
            _ => {}
        }
    }
    error.severity.retain(char::is_alphanumeric);
    let is_code = |code: &String| code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    error.code = error.code.filter(is_code);
    error.is_made_up |= error.code.as_deref().is_none_or(is_of_programs);
    error
}

/// Whether a whole body is what its type demands, exactly.
fn valid(direction: Direction, kind: u8, body: &[u8]) -> bool {
    match (direction, kind) {
        (Direction::ToServer, b'Q') => sql(body) == Some(&[]),
        (Direction::ToServer, b'P') => prepares(body).is_some(),
        (Direction::ToServer, b'B') => binds(body) == Some(&[]),
        (Direction::ToServer, b'D' | b'C') => {
            matches!(body, [b'S' | b'P', name @ ..] if sql(name) == Some(&[]))
        }
        (Direction::ToServer, b'E') => sql(body).is_some_and(|rest| rest.len() == 4),
        (Direction::ToServer, b'S' | b'H' | b'X') => body.is_empty(),
        (Direction::ToClient, b'Z') => matches!(body, [b'I' | b'T' | b'E']),
        (Direction::ToClient, b'R') => number(body).is_some_and(|(kind, _)| kind <= AUTHENTICATION_MAX),
        (Direction::ToClient, b'K') => (8..=4 + 256).contains(&body.len()),
        (Direction::ToClient, b'S') => sql(body).and_then(sql) == Some(&[]),
        (Direction::ToClient, b'C') => sql(body) == Some(&[]) && body.len() <= NAMES_BYTES_MAX,
        (Direction::ToClient, b'1' | b'2' | b'3' | b'n' | b's' | b'I') => body.is_empty(),
        (Direction::ToClient, b'T') => columns(body) == Some(&[]),
        (Direction::ToClient, b'D') => short(body).and_then(|(count, rest)| values(rest, count)) == Some(&[]),
        (Direction::ToClient, b'E' | b'N') => body.len() > 2 && body.ends_with(&[0, 0]) && fields(body),
        (Direction::ToClient, b't') => {
            short(body).is_some_and(|(count, rest)| rest.len() == 4 * usize::from(count))
        }
        _ => false,
    }
}

/// What follows a text that ends here, of characters that are in SQL.
fn sql(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (text, rest) = bytes.split_at(end);
    let is_text = text.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace());
    if is_text { rest.get(1..) } else { None }
}

fn short(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn prepares(body: &[u8]) -> Option<()> {
    let (count, types) = short(sql(sql(body)?)?)?;
    (types.len() == 4 * usize::from(count)).then_some(())
}

fn binds(body: &[u8]) -> Option<&[u8]> {
    let formats = |bytes| -> Option<&[u8]> {
        let (count, rest) = short(bytes)?;
        rest.get(2 * usize::from(count)..)
    };
    let (count, rest) = short(formats(sql(sql(body)?)?)?)?;
    formats(values(rest, count)?)
}

/// The values that a message binds, as text, from after the statement's name on:
/// as many as came, within limits.
pub(super) fn bound(body: &[u8]) -> Vec<String> {
    let values = |bytes| -> Option<Vec<String>> {
        let (formats, rest) = short(bytes)?;
        let (formats, rest) = rest.split_at_checked(2 * usize::from(formats))?;
        let (count, mut rest) = short(rest)?;
        let mut values = Vec::new();
        for place in 0..usize::from(count).min(VALUES_MAX) {
            let Some((length, after)) = number(rest) else { break };
            if length == u32::MAX {
                values.push("NULL".to_owned());
                rest = after;
                continue;
            }
            let Some((value, after)) = after.split_at_checked(length as usize) else { break };
            rest = after;
            // One format is for all.
            let format = formats
                .chunks_exact(2)
                .nth(place)
                .or(formats.get(..2).filter(|one| one.len() == formats.len()));
            values.push(value_text(value, format == Some(&[0, 1])));
        }
        if values.len() < usize::from(count) {
            values.push("…".to_owned());
        }
        Some(values)
    };
    values(body).unwrap_or_default()
}

fn value_text(value: &[u8], is_binary: bool) -> String {
    let (value, rest) = value.split_at(value.len().min(VALUE_BYTES_MAX));
    let mut text = match is_binary {
        true => value.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
        false => String::from_utf8_lossy(value).into_owned(),
    };
    if !rest.is_empty() {
        text.push('…');
    }
    text
}

/// What follows that many values, each with its length before it.
fn values(bytes: &[u8], count: u16) -> Option<&[u8]> {
    let mut rest = bytes;
    for _ in 0..count {
        let (length, after) = number(rest)?;
        rest = if length == u32::MAX { after } else { after.get(length as usize..)? };
    }
    Some(rest)
}

fn columns(body: &[u8]) -> Option<&[u8]> {
    let (count, mut rest) = short(body)?;
    for _ in 0..count {
        rest = sql(rest)?.get(18..)?;
    }
    Some(rest)
}

fn fields(body: &[u8]) -> bool {
    let mut rest = body;
    while let [field, value @ ..] = rest {
        if *field == 0 {
            return value.is_empty();
        }
        if !field.is_ascii_alphabetic() {
            return false;
        }
        rest = text(value).1;
    }
    false
}

/// What follows each other from here on.
enum Chain {
    Broken,
    /// So many messages, and the beginning of one, or nothing.
    Open(usize),
    /// Whole messages up to the last byte, or more of them than chance allows.
    Whole,
}

fn chain(direction: Direction, bytes: &[u8]) -> Chain {
    let mut rest = bytes;
    for count in 0..CHAIN_MAX {
        if rest.is_empty() {
            return if count == 0 { Chain::Open(0) } else { Chain::Whole };
        }
        let (kind, length) = match header(direction, rest) {
            None => return Chain::Broken,
            Some(None) => return Chain::Open(count),
            Some(Some(header)) => header,
        };
        let Some(body) = rest.get(HEADER_BYTES..length) else { return Chain::Open(count) };
        if !valid(direction, kind, body) {
            return Chain::Broken;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Chain::Whole
}

/// Whether this direction begins with messages.
pub(super) fn guess(direction: Direction, bytes: &[u8]) -> Guess {
    // The answer to a request for encryption, which decides nothing by itself.
    if direction == Direction::ToClient && matches!(bytes, [b'N' | b'S' | b'G']) {
        return Guess::More;
    }
    match chain(direction, bytes) {
        Chain::Broken => Guess::No,
        Chain::Whole | Chain::Open(CHAIN_MIN..) => Guess::Sure,
        Chain::Open(_) => Guess::More,
    }
}

/// A chain that begins with what begins a request.
pub(super) fn resync_client(bytes: &[u8]) -> Resync {
    let mut keep = None;
    for (start, kind) in bytes.iter().enumerate() {
        if !b"QPBS".contains(kind) {
            continue;
        }
        let rest = bytes.get(start..).unwrap_or_default();
        match chain(Direction::ToServer, rest) {
            Chain::Whole | Chain::Open(CHAIN_MIN..) => return Resync::At(start),
            Chain::Open(_) if rest.len() <= RESYNC_BYTES_MAX => keep = keep.or(Some(rest.len())),
            Chain::Open(_) | Chain::Broken => {}
        }
    }
    Resync::Keep(keep.unwrap_or(0))
}

/// `ReadyForQuery`, with nothing after it, or with messages.
pub(super) fn resync_server(bytes: &[u8]) -> Resync {
    let ready = |(start, window): (usize, &[u8])| {
        let is_ready = matches!(window, [head @ .., b'I' | b'T' | b'E'] if *head == READY);
        let after = bytes.get(start + READY.len() + 1..).unwrap_or_default();
        (is_ready && !matches!(chain(Direction::ToClient, after), Chain::Broken)).then_some(start)
    };
    match bytes.windows(READY.len() + 1).enumerate().find_map(ready) {
        Some(start) => Resync::At(start),
        None => Resync::Keep(bytes.len().min(READY.len())),
    }
}
