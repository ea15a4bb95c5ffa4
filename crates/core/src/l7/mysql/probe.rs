//! How MySQL is told from other bytes, and where a connection that was joined
//! late, or of which bytes are missing, can be understood again.
//!
//! A client sends a command when it has the answer to the one before, so that a
//! command begins where a segment does, and ends where that one or a later one
//! ends. The server's answer are its first bytes after it.

use super::command::{Kind, STATEMENT_BYTES_MAX};
use super::frames;
use super::wire::{self, HEADER_BYTES, Header, Reader};
use super::{handshake, values};
use crate::l7::{Guess, Heads, Resync};

/// No command but those with SQL is so long.
const SHORT_COMMAND_BYTES_MAX: usize = 1_024;
/// As much of SQL as is looked at.
const TEXT_BYTES: usize = 64;
/// So much of SQL that goes on is enough.
const TEXT_BYTES_MIN: usize = 12;
/// Bytes of a greeting that are looked at.
const GREETING_BYTES_MAX: usize = 256;
/// What a server may say instead of a greeting.
const REFUSAL_BYTES_MAX: usize = 1_024;
/// Packets in a row that are enough.
const CHAIN_MAX: usize = 16;
/// Nobody sends so many.
const COLUMNS_MAX: u64 = 4_096;

/// What SQL begins with.
const KEYWORDS: [&str; 44] = [
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECK",
    "COMMIT",
    "CREATE",
    "DEALLOCATE",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DO",
    "DROP",
    "EXECUTE",
    "EXPLAIN",
    "FLUSH",
    "GRANT",
    "HANDLER",
    "INSERT",
    "KILL",
    "LOAD",
    "LOCK",
    "OPTIMIZE",
    "PREPARE",
    "RELEASE",
    "RENAME",
    "REPLACE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SELECT",
    "SET",
    "SHOW",
    "SHUTDOWN",
    "START",
    "STOP",
    "TRUNCATE",
    "UNLOCK",
    "UPDATE",
    "USE",
    "VALUES",
    "WITH",
    "XA",
];

pub(super) fn probe(heads: &Heads<'_>) -> Guess {
    let greeted = greeting(heads.to_client);
    if matches!(greeted, Guess::Sure | Guess::Maybe) {
        return greeted;
    }
    let asked = match login(heads.to_server) {
        Guess::No => commands(heads.to_server).max(frames::commands(heads.to_server)),
        guess => guess,
    };
    let answered = match begins_answer(heads.to_client, Kind::Unknown, Some(1)) {
        None => Guess::More,
        Some(true) => Guess::Maybe,
        Some(false) => greeted,
    };
    match (asked, answered) {
        (Guess::Sure, _) => Guess::Sure,
        (Guess::No, _) | (_, Guess::No) => Guess::No,
        (Guess::Maybe, Guess::Maybe) => Guess::Sure,
        _ => Guess::More,
    }
}

fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte.is_ascii_whitespace()
}

/// A server that speaks first.
fn greeting(bytes: &[u8]) -> Guess {
    let Some(header) = wire::header(bytes) else {
        return if bytes.get(2).is_none_or(|high| *high == 0) { Guess::More } else { Guess::No };
    };
    if header.sequence != 0 {
        return Guess::No;
    }
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    match body.first() {
        None => Guess::More,
        Some(0xff) if header.length <= REFUSAL_BYTES_MAX => refusal(header, body),
        Some(10) if header.length <= GREETING_BYTES_MAX + 64 => {
            let version = body.get(1..body.len().min(GREETING_BYTES_MAX)).unwrap_or_default();
            let end = version.iter().position(|byte| *byte == 0);
            let text = version.get(..end.unwrap_or(version.len())).unwrap_or_default();
            if !text.iter().all(|byte| (b' '..0x7f).contains(byte)) {
                return Guess::No;
            }
            match end {
                None if body.len() >= header.length => Guess::No,
                None => Guess::More,
                Some(end) => {
                    // The challenge's first part ends in a NUL.
                    match body.get(1 + end + 1 + 4 + 8) {
                        Some(0) if end > 0 => Guess::Sure,
                        Some(_) => Guess::No,
                        None => Guess::More,
                    }
                }
            }
        }
        Some(_) => Guess::No,
    }
}

fn refusal(header: Header, body: &[u8]) -> Guess {
    let Some(whole) = body.get(..header.length) else { return Guess::More };
    let Some(failure) = wire::failure(whole) else { return Guess::No };
    let is_failure = (1_000..5_000).contains(&failure.code)
        && whole.get(3..).is_some_and(|text| !text.is_empty() && text.iter().all(|byte| is_text(*byte)));
    if is_failure { Guess::Maybe } else { Guess::No }
}

/// A client's first packet.
fn login(bytes: &[u8]) -> Guess {
    let Some(header) = wire::header(bytes) else { return Guess::No };
    if header.sequence != 1 || header.length < 32 {
        return Guess::No;
    }
    match bytes.get(HEADER_BYTES..HEADER_BYTES + 32) {
        // It is set since version 4.1, and room for more is empty.
        Some(fixed) if fixed.get(1).is_some_and(|flags| flags & 2 != 0) => {
            let room = fixed.get(9..28).unwrap_or_default();
            if room.iter().all(|byte| *byte == 0) { Guess::Sure } else { Guess::No }
        }
        Some(_) => Guess::No,
        None => Guess::More,
    }
}

/// Whole commands, up to the last byte; or the beginning of SQL.
pub(super) fn commands(bytes: &[u8]) -> Guess {
    let mut rest = bytes;
    let mut sure = false;
    for _ in 0..CHAIN_MAX {
        if rest.is_empty() && !bytes.is_empty() {
            return if sure { Guess::Sure } else { Guess::Maybe };
        }
        let Some(header) = wire::header(rest) else {
            return if rest.get(3).is_none() { Guess::More } else { Guess::No };
        };
        let seen = rest.get(HEADER_BYTES..).unwrap_or_default();
        let whole = header.length <= seen.len();
        let body = seen.get(..header.length).unwrap_or(seen);
        match (header.sequence, command(header, body, whole)) {
            (0, Guess::Sure) if !whole => return Guess::Sure,
            (0, Guess::Sure) => sure = true,
            (0, Guess::Maybe) => {}
            (0, Guess::More) => return Guess::More,
            _ => return Guess::No,
        }
        rest = rest.get(header.packet_bytes()..).unwrap_or_default();
    }
    Guess::Sure
}

/// One command, or its beginning; [`Guess::Sure`] only for SQL.
fn command(header: Header, body: &[u8], whole: bool) -> Guess {
    let [code, rest @ ..] = body else {
        return if header.length > 0 { Guess::More } else { Guess::No };
    };
    if matches!(code, 0x03 | 0x16) {
        let text = match rest {
            [0..=0x1f, 1, ..] if *code == 0x03 => match values::skip_attributes(rest) {
                Some(text) => text,
                None if whole || body.len() >= STATEMENT_BYTES_MAX => return Guess::No,
                None => return Guess::More,
            },
            _ => rest,
        };
        return sql(text, whole);
    }
    if header.length > SHORT_COMMAND_BYTES_MAX {
        return Guess::No;
    }
    if !whole {
        return Guess::More;
    }
    let names = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(|byte| is_text(*byte));
    let valid = match code {
        0x01 | 0x09 | 0x0a | 0x0d | 0x0e | 0x1f => rest.is_empty(),
        0x02 | 0x05 | 0x06 => names(rest),
        0x04 => rest.contains(&0) && names(Reader::new(rest).text()),
        0x0c | 0x19 | 0x1a => rest.len() == 4,
        0x11 => names(Reader::new(rest).text()) && handshake::change_of_user(rest).user.is_some(),
        0x17 => matches!(rest, [_, _, _, _, 0..=0x1f, 1, 0, 0, 0, ..]),
        0x18 => rest.len() >= 6,
        0x1b => matches!(rest, [0 | 1, 0]),
        0x1c => rest.len() == 8,
        0xfa => rest.len() >= 6,
        _ => false,
    };
    if valid { Guess::Maybe } else { Guess::No }
}

fn sql(text: &[u8], whole: bool) -> Guess {
    let text = text.get(..text.len().min(TEXT_BYTES)).unwrap_or_default();
    if !text.iter().all(|byte| is_text(*byte)) {
        return Guess::No;
    }
    if !whole && text.len() < TEXT_BYTES_MIN {
        return Guess::More;
    }
    let opens = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'(';
    let start = text.iter().position(|byte| !opens(byte)).unwrap_or(text.len());
    let text = text.get(start..).unwrap_or_default();
    let end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    if KEYWORDS.iter().any(|keyword| keyword.as_bytes().eq_ignore_ascii_case(word)) {
        return Guess::Sure;
    }
    match text.first() {
        Some(b'/' | b'-' | b'#' | b'{' | b'a'..=b'z' | b'A'..=b'Z') if whole => Guess::Maybe,
        _ => Guess::No,
    }
}

/// Where the client's next command begins: here, or not in these bytes.
pub(super) fn resync_commands(bytes: &[u8]) -> Resync {
    found(commands(bytes), bytes.len())
}

/// The same, for what was guessed of bytes.
pub(super) fn found(guess: Guess, length: usize) -> Resync {
    match guess {
        Guess::Sure | Guess::Maybe => Resync::At(0),
        Guess::More if length < STATEMENT_BYTES_MAX => Resync::Keep(length),
        Guess::More | Guess::No => Resync::Keep(0),
    }
}

/// Whether an answer of this kind begins here, with a packet of this number
/// (`None`: of any); `None` if that cannot be told yet.
pub(super) fn begins_answer(bytes: &[u8], kind: Kind, sequence: Option<u8>) -> Option<bool> {
    let header = match wire::header(bytes) {
        Some(header) if sequence.is_some_and(|sequence| sequence != header.sequence) => return Some(false),
        Some(header) => header,
        None => return None,
    };
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let Some(first) = body.first() else { return if header.length > 0 { None } else { Some(false) } };
    Some(match (kind, first) {
        (Kind::Text | Kind::Login | Kind::Stream, _) => true,
        (_, 0xff) => {
            // Code, then state; a report of progress has another code.
            let code = body.get(1..3)?;
            (3..=REFUSAL_BYTES_MAX * 4).contains(&header.length) && matches!(code, [_, 3..=19] | [0xff, 0xff])
        }
        (Kind::Rows, first) => *first == 0 || *first == 0xfe,
        (Kind::Columns, first) => *first == 3 || *first == 0xfe,
        (_, 0x00) => header.length >= 7,
        (_, 0xfe) => header.length < wire::PACKET_BYTES_MAX,
        (Kind::Plain | Kind::Prepared, _) => false,
        (_, 0xfb) => header.length > 1,
        (_, _) => {
            let mut reader = Reader::new(body);
            let count = reader.number();
            let size = body.len() - reader.rest.len();
            let is_count = count.is_some_and(|count| (1..=COLUMNS_MAX).contains(&count));
            is_count && (size..=size + 1).contains(&header.length)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::Transport;

    fn guess(to_server: &[u8], to_client: &[u8]) -> Guess {
        probe(&Heads { to_server, to_client, transport: Transport::Tcp })
    }

    fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
        let [a, b, c, _] = (body.len() as u32).to_le_bytes();
        [&[a, b, c, sequence], body].concat()
    }

    #[test]
    fn it_is_told_from_other_protocols() {
        let greeting = packet(0, b"\x0a8.0.32\0\x01\0\0\0abcdefgh\0\xff\xff");
        for (to_server, to_client, expected) in [
            (&b""[..], &greeting[..], Guess::Sure),
            (b"", &greeting[..12], Guess::More),
            (b"", &packet(0, b"\xff\x10\x04Too many connections"), Guess::Maybe),
            (&packet(0, b"\x03SELECT 1"), b"", Guess::Sure),
            (&packet(0, b"\x03\0\x01select 1"), b"", Guess::Sure),
            (&packet(0, b"\x0e"), b"", Guess::More),
            (&packet(0, b"\x0e"), &packet(1, &[0, 0, 0, 2, 0, 0, 0]), Guess::Sure),
            (&packet(0, b"\x0e"), b"HTTP/1.1 200 OK\r\n", Guess::No),
            (b"GET / HTTP/1.1\r\n\r\n", b"", Guess::No),
            (b"*1\r\n$4\r\nPING\r\n", b"", Guess::No),
            (b"", b"220 mail.example.com ESMTP", Guess::No),
            (b"", b"SSH-2.0-OpenSSH", Guess::No),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"", Guess::No),
            (&packet(0, &[3, 1, 2, 3]), b"", Guess::No),
            (&[0, 0, 0, 8, 4, 210, 22, 47], b"", Guess::No),
            (b"", b"", Guess::More),
        ] {
            assert_eq!(guess(to_server, to_client), expected, "{to_server:?} {to_client:?}");
        }
    }

    #[test]
    fn commands_are_found_where_they_begin_and_nowhere_else() {
        let select = packet(0, b"\x03SELECT 1");
        assert_eq!(resync_commands(&select), Resync::At(0));
        assert_eq!(resync_commands(&select[1..]), Resync::Keep(0));
        assert_eq!(resync_commands(&[packet(0, b"\x19\x01\0\0\0"), select].concat()), Resync::At(0));
        assert_eq!(resync_commands(&[packet(0, b"\x0e"), b"more".to_vec()].concat()), Resync::Keep(0));
        let long = packet(0, &[b"\x03INSERT INTO a VALUES ('".as_slice(), &[b'x'; 90_000]].concat());
        assert_eq!(resync_commands(&long[..1_448]), Resync::At(0));
        assert_eq!(resync_commands(&long[1_448..3_000]), Resync::Keep(0));
    }
}
