//! From what was read to an exchange: statuses and errors, redacted.

use smol_str::SmolStr;

use super::SYSTEM;
use super::command::{Command, Errors, HIDDEN, quoted};
use super::reply::Reply;
use crate::l7::{Attribute, Exchange};
use crate::reveal::{self, Class};
use crate::text::number;

/// Simple answers that are words of the server, not data.
const WORDS: &[&str] = &[
    "OK",
    "PONG",
    "QUEUED",
    "RESET",
    "NOKEY",
    "none",
    "string",
    "list",
    "set",
    "zset",
    "hash",
    "stream",
    "Background saving started",
    "Background append only file rewriting started",
];
/// What the server sends without being asked, by its label.
const PUSHES: &[&str] = &[
    "message",
    "pmessage",
    "smessage",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "invalidate",
    "tracking-redir-broken",
    "monitor",
];
/// How servers begin to say that there is no such command.
const UNKNOWN: &[u8] = b"ERR unknown command";
/// Of what kind an error is.
const CODE_BYTES_MAX: usize = 32;
/// How much of an error was kept, if it was cut.
const ERROR_BYTES_MAX: usize = 512;

/// A command with its answer, as far as they are known.
pub(super) fn exchange(
    command: Option<Command>,
    reply: Option<&Reply>,
    database: Option<u64>,
) -> Box<Exchange> {
    let (mut exchange, errors, told) = match command {
        Some(Command { exchange, errors, database, .. }) => (exchange, errors, database),
        None => (of_redis(), Errors::default(), None),
    };
    if errors.name_is_guess && !reply.is_some_and(knows_command) {
        // A password that was typed where a command belongs, for instance.
        let hidden = SmolStr::new_static(HIDDEN);
        exchange.set(Attribute::DbOperationName, hidden.clone());
        exchange.set(Attribute::DbQueryText, hidden.clone());
        exchange.operation = hidden;
    }
    // Hardly ever another one than when the command was read.
    match database {
        _ if told == database => {}
        Some(database) => exchange.set(Attribute::DbNamespace, number(database)),
        None => drop(exchange.attributes.remove(Attribute::DbNamespace)),
    }
    if let Some(reply) = reply {
        exchange.response = Some(reply.part);
        exchange.note(reply.capture);
        answer(&mut exchange, reply, errors);
    }
    exchange
}

/// Whether the server's answer, as far as it was seen, shows that there is such a command.
fn knows_command(reply: &Reply) -> bool {
    let text = reply.text.as_slice();
    reply.kind.is_some() && !(reply.is_error() && (text.starts_with(UNKNOWN) || UNKNOWN.starts_with(text)))
}

fn of_redis() -> Box<Exchange> {
    let mut exchange = Exchange::empty();
    exchange.set(Attribute::DbSystemName, SmolStr::new_static(SYSTEM));
    exchange
}

/// What the server sent without being asked each time.
pub(super) fn push(reply: &Reply) -> Box<Exchange> {
    let mut exchange = of_redis();
    let label = reply.label().unwrap_or_default();
    let known = PUSHES.iter().find(|push| push.as_bytes() == label);
    exchange.operation = SmolStr::new_static(known.unwrap_or(&"push"));
    exchange.target = reply.channel().filter(|_| known.is_some()).map(quoted);
    exchange.status = reply.kind.map(|kind| SmolStr::new_static(kind_name(kind)));
    exchange.response = Some(reply.part);
    exchange.note(reply.capture);
    exchange.set(Attribute::DbOperationName, exchange.operation.clone());
    exchange
}

/// Notes how many commands were executed together.
pub(super) fn batch(exchange: &mut Exchange, commands: u64) {
    // One alone is no batch, as OpenTelemetry has it.
    if commands > 1 {
        exchange.set(Attribute::DbOperationBatchSize, commands);
    }
}

fn answer(exchange: &mut Exchange, reply: &Reply, errors: Errors) {
    let Some(kind) = reply.kind else { return };
    let error = if reply.is_error() { Some(reply.text.as_slice()) } else { reply.inner_error() };
    exchange.ok = Some(error.is_none());
    if let Some(error) = error {
        let (code, mut text) = redacted(error, errors.are_known);
        if errors.are_shown
            && let Some(shown) = reveal::shown(&String::from_utf8_lossy(error)).filter(|shown| *shown != text)
        {
            exchange.revealed.insert(Class::ErrorText);
            text = shown;
        }
        if let Some(code) = &code {
            exchange.set(Attribute::DbResponseStatusCode, code.as_str());
        }
        exchange.set(Attribute::ErrorType, code.as_deref().unwrap_or("_OTHER"));
        exchange.error = Some(text.into());
        if reply.is_error() {
            exchange.status = Some(code.map_or(SmolStr::new_static("error"), SmolStr::from));
            return;
        }
    }
    let text = WORDS.iter().find(|word| kind == b'+' && word.as_bytes() == reply.text.as_slice());
    let name = if reply.null { "nil" } else { kind_name(kind) };
    exchange.status = Some(SmolStr::new_static(text.unwrap_or(&name)));
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        b':' => "integer",
        b'*' => "array",
        b'%' => "map",
        b'~' => "set",
        b',' => "double",
        b'#' => "boolean",
        b'(' => "big number",
        b'=' => "verbatim string",
        b'_' => "nil",
        b'>' => "push",
        b'-' | b'!' => "error",
        _ => "string",
    }
}

/// Code and text of an error, without anything that was quoted in it. Of
/// errors that a script or a module may have made, only the code.
fn redacted(error: &[u8], from_server: bool) -> (Option<String>, String) {
    let cut = error.len() >= ERROR_BYTES_MAX;
    let text = String::from_utf8_lossy(error);
    let first = text.split([' ', '\r', '\n']).next().unwrap_or_default();
    let is_code = first.starts_with(|first: char| first.is_ascii_uppercase())
        && first.len() <= CODE_BYTES_MAX
        && first.chars().all(|one| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '_');
    let code = is_code.then(|| first.to_owned());
    let rest = text.get(if is_code { first.len() } else { 0 }..).unwrap_or_default().trim();
    let shown = from_server || rest.starts_with("unknown command") || rest.starts_with("Protocol error");
    let rest = if shown { without_quoted(rest, cut) } else { "?".to_owned() };
    let text = match &code {
        Some(code) if rest.is_empty() => code.clone(),
        Some(code) => format!("{code} {rest}"),
        None => rest,
    };
    (code, text)
}

/// From the first quotation mark to the last everything may be somebody's words:
/// these may have quotation marks in them.
fn without_quoted(text: &str, cut: bool) -> String {
    let is_mark = |character: char| matches!(character, '\'' | '"' | '`');
    let mut before = ' ';
    let opening = text.char_indices().find(|(_, character)| {
        let opens = is_mark(*character) && !before.is_alphanumeric();
        before = *character;
        opens
    });
    let Some((start, mark)) = opening else { return text.to_owned() };
    let kept = text.get(..start).unwrap_or_default();
    let after = text.rfind(is_mark).filter(|end| !cut && *end > start);
    let rest = after.and_then(|end| text.get(end + 1..)).unwrap_or_default();
    format!("{kept}{mark}?{mark}{rest}")
}
