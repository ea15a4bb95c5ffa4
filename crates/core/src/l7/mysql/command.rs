//! What a client can ask for. The only place that decides what of it is shown.

use std::sync::Arc;

use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use super::handshake::{self, Login};
use super::values;
use super::wire::{self, Reader};
use crate::l7::statement::Statement;
use crate::reveal::{Class, Reveal};
use crate::sql::Family;

/// As much as is looked at of a command that holds SQL.
pub(super) const STATEMENT_BYTES_MAX: usize = 16 * 1024;
/// Names have at most 64 letters; what else is in such a command is short too,
/// but for secrets.
const NAMES_BYTES_MAX: usize = 1_024;
/// Numbers.
const FIXED_BYTES_MAX: usize = 16;
/// The statement that the client prepared last, though it does not know its
/// number yet.
pub(super) const LAST_PREPARED: u32 = u32::MAX;

/// How an answer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Steps of authentication, until it succeeded or failed.
    Login,
    /// Success, failure, or results; with `cursor` perhaps without their rows.
    Results { cursor: bool },
    /// A statement's number, its parameters and columns.
    Prepared,
    /// Rows.
    Rows,
    /// Columns.
    Columns,
    /// One text.
    Text,
    /// Success or failure.
    Plain,
    /// A stream that is no answer any more.
    Stream,
    /// Not known which: the request was not seen.
    Unknown,
}

/// What success means for the rest of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Database(SmolStr),
    User(Login),
    /// The answer has the number for this statement.
    Prepares,
    /// Prepared statements are gone.
    Resets,
}

/// What has an answer.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) kind: Kind,
    /// `None`: the statement's.
    pub(super) operation: Option<SmolStr>,
    pub(super) statement: Arc<Statement>,
    /// A statement's number, to be looked up when the answer comes: the one
    /// that tells the number may still be on its way.
    pub(super) prepared: Option<u32>,
    /// What is bound to it, from after its number on, if that may be shown.
    pub(super) values: Vec<u8>,
    pub(super) effect: Effect,
}

/// A command that has come whole.
#[derive(Debug)]
pub(super) enum Said {
    Asked(Command),
    /// More of what the next execution needs.
    LongData,
    Closed(u32),
    Quit,
}

/// What decides how a command is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Whether a backslash in a string takes away the next character's meaning;
    /// `None`: not known.
    pub(super) escapes: Option<bool>,
    /// Whether attributes stand before the text of a query; `None`: not known.
    pub(super) attributes: Option<bool>,
    pub(super) reveal: Reveal,
}

/// How much is looked at of a command that begins with this byte.
pub(super) fn bytes_seen(code: u8, reveal: Reveal) -> usize {
    match code {
        0x17 if reveal.has(Class::Parameters) => STATEMENT_BYTES_MAX,
        0x03 | 0x16 => STATEMENT_BYTES_MAX,
        0x02 | 0x04..=0x06 | 0x11 => NAMES_BYTES_MAX,
        _ => FIXED_BYTES_MAX,
    }
}

impl Command {
    fn new(kind: Kind, operation: impl Into<SmolStr>) -> Self {
        Self {
            kind,
            operation: Some(operation.into()),
            statement: Arc::default(),
            prepared: None,
            values: Vec::new(),
            effect: Effect::None,
        }
    }

    fn text(self, text: impl Into<SmolStr>) -> Self {
        Self { statement: Arc::new(Statement { text: text.into(), ..Statement::default() }), ..self }
    }

    fn prepared(self, number: u32) -> Self {
        Self { prepared: Some(number), ..self }
    }

    fn effect(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    pub(super) fn login(login: &Login) -> Self {
        Self::new(Kind::Login, "LOGIN").text(login.database.clone().unwrap_or_default())
    }
}

/// Reads a command of which `body` is seen, and more was sent if it is `cut`.
pub(super) fn read(body: &[u8], cut: bool, reading: Reading) -> Option<Said> {
    let mut reader = Reader::new(body);
    let code = reader.byte()?;
    let rest = reader.rest;
    let name = || wire::lossy(Reader::new(rest).text());
    let number = || Reader::new(rest).long();
    let unknown = || Some(Said::Asked(Command::new(Kind::Unknown, format_smolstr!("COMMAND {code}"))));
    let is_numbered = matches!(code, 0x0c | 0x17 | 0x19 | 0x1a | 0x1c | 0xfa);
    if is_numbered && rest.len() < 4 {
        return unknown();
    }
    let command = match code {
        0x01 => return Some(Said::Quit),
        0x02 => {
            let effect = Effect::Database(name());
            Command::new(Kind::Plain, "INIT DB").text(name()).effect(effect)
        }
        0x03 => query(rest, cut, reading),
        0x04 => Command::new(Kind::Columns, "FIELD LIST").text(name()),
        0x05 => Command::new(Kind::Plain, "CREATE DB").text(name()),
        0x06 => Command::new(Kind::Plain, "DROP DB").text(name()),
        0x07 => Command::new(Kind::Plain, "REFRESH"),
        0x08 => Command::new(Kind::Plain, "SHUTDOWN"),
        0x09 => Command::new(Kind::Text, "STATISTICS"),
        0x0a => Command::new(Kind::Results { cursor: false }, "PROCESS INFO"),
        0x0c => Command::new(Kind::Plain, "PROCESS KILL").text(number()?.to_smolstr()),
        0x0d => Command::new(Kind::Plain, "DEBUG"),
        0x0e => Command::new(Kind::Plain, "PING"),
        0x11 => {
            let login = handshake::change_of_user(rest);
            let text = login.database.clone().unwrap_or_default();
            Command::new(Kind::Login, "CHANGE USER").text(text).effect(Effect::User(login))
        }
        0x12 => Command::new(Kind::Stream, "BINLOG DUMP"),
        0x13 => Command::new(Kind::Stream, "TABLE DUMP"),
        0x15 => Command::new(Kind::Plain, "REGISTER REPLICA"),
        0x16 => prepare(rest, cut, reading),
        0x17 => {
            let after = rest.get(4..).unwrap_or_default();
            let may_show = reading.reveal.has(Class::Parameters);
            let values = if may_show { after.to_vec() } else { Vec::new() };
            // Flags: whether and which cursor, and whether parameters are counted.
            let cursor = after.first().is_some_and(|flags| flags & 7 != 0);
            Command { values, ..execute(number()?, cursor) }
        }
        0x18 => return Some(Said::LongData),
        0x19 => return Some(Said::Closed(number()?)),
        0x1a => Command::new(Kind::Plain, "RESET STATEMENT").prepared(number()?),
        0x1b => Command::new(Kind::Plain, "SET OPTION").text(match rest.first() {
            Some(0) => "multi statements on",
            _ => "multi statements off",
        }),
        0x1c => Command::new(Kind::Rows, "FETCH").prepared(number()?),
        0x1e => Command::new(Kind::Stream, "BINLOG DUMP GTID"),
        0x1f => Command::new(Kind::Plain, "RESET CONNECTION").effect(Effect::Resets),
        0x20 => Command::new(Kind::Stream, "CLONE"),
        0x21 => Command::new(Kind::Stream, "GROUP REPLICATION STREAM"),
        // MariaDB: many executions at once.
        0xfa => execute(number()?, false),
        _ => return unknown(),
    };
    Some(Said::Asked(command))
}

fn query(rest: &[u8], cut: bool, reading: Reading) -> Command {
    let command = |statement: Statement| {
        let effect = match (statement.operation.as_str(), statement.statements) {
            ("USE", 1) => used(&statement.text).map_or(Effect::None, Effect::Database),
            _ => Effect::None,
        };
        Command {
            kind: Kind::Results { cursor: false },
            operation: None,
            statement: Arc::new(statement),
            prepared: None,
            values: Vec::new(),
            effect,
        }
    };
    // No SQL begins with their number and the 1 after it.
    let seem_to_be = matches!(rest, [0..=0x1f, 1, ..]);
    let text =
        if reading.attributes.unwrap_or(seem_to_be) { values::skip_attributes(rest) } else { Some(rest) };
    match text {
        Some(text) => command(sql(text, cut, reading)),
        None => {
            Command { operation: Some("QUERY".into()), ..command(Statement { cut, ..Statement::default() }) }
        }
    }
}

/// The database in `USE name`.
fn used(text: &str) -> Option<SmolStr> {
    let name = text.get(3..)?.trim().trim_end_matches(';').trim_end();
    let plain = match name.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        Some(quoted) => quoted.replace("``", "`").into(),
        None => SmolStr::new(name),
    };
    (!plain.is_empty()).then_some(plain)
}

fn prepare(rest: &[u8], cut: bool, reading: Reading) -> Command {
    let statement = Arc::new(sql(rest, cut, reading));
    Command { statement, ..Command::new(Kind::Prepared, "PREPARE").effect(Effect::Prepares) }
}

fn execute(number: u32, cursor: bool) -> Command {
    let command = Command::new(Kind::Results { cursor }, "EXECUTE").prepared(number);
    // Its operation is that of the statement.
    Command { operation: None, ..command }
}

fn sql(sql: &[u8], cut: bool, reading: Reading) -> Statement {
    Statement::sql(sql, cut, Family::MySql, reading.escapes, reading.reveal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading =
        Reading { escapes: Some(true), attributes: Some(false), reveal: Reveal::NOTHING };

    fn asked(body: &[u8], reading: Reading) -> Command {
        match read(body, false, reading) {
            Some(Said::Asked(command)) => command,
            other => panic!("{other:?}"),
        }
    }

    fn told(body: &[u8]) -> (String, String) {
        let command = asked(body, READING);
        let operation = command.operation.unwrap_or_else(|| command.statement.operation.clone());
        (operation.into(), command.statement.text.to_string())
    }

    #[test]
    fn commands_say_what_they_are() {
        for (body, operation, text) in [
            (&b"\x02shop"[..], "INIT DB", "shop"),
            (b"\x03select a from b where c = 'SECRET'", "SELECT", "select a from b where c = ?"),
            (b"\x04users\0%", "FIELD LIST", "users"),
            (b"\x05new", "CREATE DB", "new"),
            (b"\x06old", "DROP DB", "old"),
            (b"\x09", "STATISTICS", ""),
            (b"\x0c\x07\0\0\0", "PROCESS KILL", "7"),
            (b"\x0e", "PING", ""),
            (b"\x11joe\0\x06SECRETshop\0\x21\0mysql_native_password\0", "CHANGE USER", "shop"),
            (b"\x16select 1", "PREPARE", "select ?"),
            (b"\x1b\x01\0", "SET OPTION", "multi statements off"),
            (b"\x1f", "RESET CONNECTION", ""),
            (b"\x7fSECRET", "COMMAND 127", ""),
            (b"\x03set password = 'SECRET'", "SET", "set password ?"),
            (b"\x03create user a identified by 'SECRET'", "CREATE", "create user a identified ?"),
        ] {
            assert_eq!(told(body), (operation.to_owned(), text.to_owned()));
        }
        assert!(matches!(read(b"\x19\x07\0\0\0", false, READING), Some(Said::Closed(7))));
        assert!(matches!(read(b"\x01", false, READING), Some(Said::Quit)));
        assert_eq!(told(b"\x17\0"), ("COMMAND 23".to_owned(), String::new()), "without its number");
        assert!(read(b"", false, READING).is_none());
    }

    #[test]
    fn use_changes_the_database() {
        for (sql, name) in [("USE shop", "shop"), ("use `my``shop` ;", "my`shop"), ("USE /* a */ b", "b")] {
            let body = format!("\u{3}{sql}");
            assert_eq!(asked(body.as_bytes(), READING).effect, Effect::Database(name.into()), "{sql}");
        }
        assert_eq!(asked(b"\x03use a; use b", READING).effect, Effect::None);
    }

    #[test]
    fn attributes_are_found_where_it_is_not_known_whether_they_are_there() {
        let reading = Reading { attributes: None, ..READING };
        assert_eq!(asked(b"\x03\0\x01SELECT a", reading).statement.text, "SELECT a");
        assert_eq!(asked(b"\x03SELECT a", reading).statement.text, "SELECT a");
        let cut_off = asked(b"\x03\x01\x01\0\x01\xfd\0\x01n\xffSECRET", reading);
        assert_eq!((cut_off.operation.as_deref(), cut_off.statement.text.as_str()), (Some("QUERY"), ""));
    }

    #[test]
    fn a_backslash_of_unknown_meaning_hides_what_depends_on_it() {
        let reading = Reading { escapes: None, ..READING };
        let text = |sql: &[u8]| asked(&[b"\x03", sql].concat(), reading).statement.text.clone();
        assert_eq!(text(br"SELECT 'a\\b' FROM c"), "SELECT ? FROM c");
        let hidden = text(br"SELECT '\', SECRET, '' FROM d");
        assert!(!hidden.contains("SECRET"), "{hidden}");
        let hidden = text(br"SELECT '\'' , 'SECRET' , b");
        assert!(!hidden.contains("SECRET"), "{hidden}");
    }
}
