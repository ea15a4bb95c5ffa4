//! SQL as it may leave weir: without its literals.
//!
//! [`redact`] understands just enough of SQL to tell literals from the rest. It
//! takes any bytes: text that is cut off, not UTF-8, or no SQL at all. Where it
//! cannot be sure where a literal ends, everything after its beginning is left
//! out: better too little than a password.

mod lexer;
mod statement;
#[cfg(test)]
mod tests;

use smol_str::SmolStr;

use crate::reveal::{self, Class, Reveal, names_password};
use lexer::Lexer;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Dollar quotes, `E''`, nested comments; `"` encloses names.
    PostgreSql,
    /// `"` encloses strings and a backquote names; `#` begins a comment; MariaDB likewise.
    MySql,
}

/// What decides where a literal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Whose SQL it is.
    pub family: Family,
    /// A backslash in a plain string takes away the next character's meaning.
    pub backslash_escapes: bool,
}

impl Dialect {
    /// PostgreSQL with its defaults (`standard_conforming_strings` is on).
    pub const POSTGRESQL: Self = Self { family: Family::PostgreSql, backslash_escapes: false };
    /// MySQL and MariaDB with their defaults (no `NO_BACKSLASH_ESCAPES`).
    pub const MYSQL: Self = Self { family: Family::MySql, backslash_escapes: true };
}

/// SQL without its literals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redacted {
    /// The text: each literal is a `?`, comments are gone, white space is one
    /// space.
    pub text: String,
    /// The first keyword, in capitals: `SELECT`. Empty if there is none.
    pub operation: SmolStr,
    /// How many statements there are.
    pub statements: u32,
    /// Literals stand in the text as they were sent.
    pub revealed: bool,
    /// It sets a password, or (asked only where something may be shown) names
    /// something like one: values that belong to it, in parameters or in errors
    /// about it, are never to be shown.
    pub is_secret: bool,
}

/// Takes the literals out of SQL, and what follows the keyword for the password
/// in statements that set one.
#[must_use]
pub fn redact(sql: &[u8], dialect: Dialect) -> Redacted {
    Lexer::new(sql, dialect).run()
}

/// The same, except for what may be shown. Of statements that set or name a
/// password no literal ever is.
#[must_use]
pub fn redact_but(sql: &[u8], dialect: Dialect, reveal: Reveal) -> Redacted {
    let mut redacted = redact(sql, dialect);
    if reveal.is_empty() {
        return redacted;
    }
    redacted.is_secret |= names_password(&redacted.text);
    if !reveal.has(Class::SqlLiterals) || redacted.is_secret {
        return redacted;
    }
    Lexer::new(sql, dialect).showing_literals().run()
}

/// A database's error message, without what it cites if that may not be shown;
/// and whether it is shown.
#[must_use]
pub fn error_text(message: &str, may_show: bool) -> (String, bool) {
    let masked = mask_quoted(message);
    match reveal::shown(message).filter(|shown| may_show && *shown != masked) {
        Some(shown) => (shown, true),
        None => (masked, false),
    }
}

/// The same of a message that a program in the database made up: anything may
/// stand in it, quoted or not.
#[must_use]
pub fn made_up_text(message: &str, may_show: bool) -> (String, bool) {
    match reveal::shown(message).filter(|_| may_show) {
        Some(shown) => (shown, true),
        None => ("?".to_owned(), false),
    }
}

/// Quotation marks that databases put around what they cite, in their languages.
const QUOTES: [(char, char); 8] =
    [('"', '"'), ('\'', '\''), ('`', '`'), ('«', '»'), ('»', '«'), ('„', '“'), ('“', '”'), ('‘', '’')];

/// A database's error message without what it cites: values stand in it as they
/// were sent. A value may hold quotation marks itself, so everything between the
/// first mark and the last one of its kind is left out.
#[must_use]
pub fn mask_quoted(message: &str) -> String {
    let mut masked = String::with_capacity(message.len());
    let mut rest = message;
    loop {
        let Some((start, opening, closing)) = first_quote(rest) else {
            masked.extend(rest.chars().map(|one| if one.is_control() { ' ' } else { one }));
            return masked;
        };
        let (before, quoted) = rest.split_at(start);
        masked.extend(before.chars().map(|one| if one.is_control() { ' ' } else { one }));
        masked.push(opening);
        masked.push('?');
        let inside = quoted.get(opening.len_utf8()..).unwrap_or_default();
        let Some(end) = last_quote(inside, closing) else { return masked };
        masked.push(closing);
        rest = inside.get(end + closing.len_utf8()..).unwrap_or_default();
    }
}

/// Whether this is an apostrophe inside of a word, between what stands before
/// and after it. Languages that put no space around quotation marks have other
/// letters.
fn is_apostrophe(before: char, one: char, next: char) -> bool {
    one == '\'' && before.is_ascii_alphabetic() && next.is_ascii_alphabetic()
}

/// Where something quoted begins, and its quotation marks.
fn first_quote(text: &str) -> Option<(usize, char, char)> {
    let mut before = ' ';
    let mut chars = text.char_indices().peekable();
    while let Some((at, one)) = chars.next() {
        let next = chars.peek().map_or(' ', |(_, next)| *next);
        if !is_apostrophe(before, one, next)
            && let Some((opening, closing)) = QUOTES.iter().find(|(opening, _)| *opening == one)
        {
            return Some((at, *opening, *closing));
        }
        before = one;
    }
    None
}

/// Where the last quotation mark of this kind stands.
fn last_quote(text: &str, closing: char) -> Option<usize> {
    let mut after = ' ';
    let mut chars = text.char_indices().rev().peekable();
    while let Some((at, one)) = chars.next() {
        let before = chars.peek().map_or(' ', |(_, before)| *before);
        if one == closing && !is_apostrophe(before, one, after) {
            return Some(at);
        }
        after = one;
    }
    None
}
