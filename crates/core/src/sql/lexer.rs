//! One pass over SQL, from its first byte to its last.

use super::statement::{Masked, Statement};
use super::{Dialect, Family, Redacted};
use crate::text;

/// Longer words are no keywords.
const KEYWORD_BYTES_MAX: usize = 32;
const LITERAL: &str = "?";

pub(super) struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    dialect: Dialect,
    redacted: Redacted,
    /// White space or a comment came since the last token.
    space: bool,
    /// Inside of comments whose text MySQL executes.
    executed_comments: u32,
    statement: Statement,
    /// Literals are shown, where nothing hides them.
    shows_literals: bool,
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_name(byte: u8) -> bool {
    begins_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_space(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a [u8], dialect: Dialect) -> Self {
        Self {
            sql,
            at: 0,
            dialect,
            redacted: Redacted { text: String::with_capacity(sql.len().min(4_096)), ..Redacted::default() },
            space: false,
            executed_comments: 0,
            statement: Statement::default(),
            shows_literals: false,
        }
    }

    pub(super) fn showing_literals(self) -> Self {
        Self { shows_literals: true, ..self }
    }

    pub(super) fn run(mut self) -> Redacted {
        while let Some(byte) = self.peek(0) {
            self.token(byte);
        }
        // What is not told may name a password.
        self.redacted.is_secret |= self.statement.masked == Masked::Everything;
        self.redacted
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.sql.get(self.at..).unwrap_or_default()
    }

    fn is_mysql(&self) -> bool {
        self.dialect.family == Family::MySql
    }

    /// Reads one token; always at least one byte.
    fn token(&mut self, byte: u8) {
        match byte {
            _ if is_space(byte) => {
                self.at += 1;
                self.space = true;
            }
            _ if self.comment() => self.space = true,
            b'\'' => self.string(1, b'\'', self.dialect.backslash_escapes),
            b'"' if self.is_mysql() => self.string(1, b'"', self.dialect.backslash_escapes),
            b'"' => self.quoted_name(b'"'),
            b'`' if self.is_mysql() => self.quoted_name(b'`'),
            b'$' if !self.is_mysql() => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => self.number(),
            _ if begins_name(byte) => self.name(),
            b';' => self.end_statement(),
            _ => {
                self.at += 1;
                self.put(char::from(byte).encode_utf8(&mut [0; 4]));
            }
        }
    }

    /// Passes a comment, if one begins here.
    fn comment(&mut self) -> bool {
        let rest = self.rest();
        match rest {
            [b'-', b'-', next, ..] if self.is_mysql() && !is_space(*next) => false,
            [b'-', b'-', ..] => self.line_comment(),
            [b'#', ..] if self.is_mysql() => self.line_comment(),
            [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] if self.is_mysql() => {
                // The server executes it: from the version on that stands there.
                self.at += if rest.get(2) == Some(&b'!') { 3 } else { 4 };
                while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
                    self.at += 1;
                }
                self.executed_comments += 1;
                true
            }
            [b'*', b'/', ..] if self.executed_comments > 0 => {
                self.executed_comments -= 1;
                self.at += 2;
                true
            }
            [b'/', b'*', ..] => {
                self.block_comment();
                true
            }
            _ => false,
        }
    }

    fn line_comment(&mut self) -> bool {
        let rest = self.rest();
        let ends = |byte: &u8| *byte == b'\n' || *byte == b'\r' && !self.is_mysql();
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        self.at += length;
        self.doubt_executed(rest.get(..length).unwrap_or_default());
        true
    }

    /// Servers of other versions skip a comment that others execute, up to the
    /// first `*/`: if one stands in these bytes, a literal may end elsewhere.
    fn doubt_executed(&mut self, bytes: &[u8]) {
        if self.executed_comments > 0 && bytes.windows(2).any(|pair| pair == b"*/") {
            self.statement.masked = Masked::Everything;
        }
    }

    fn block_comment(&mut self) {
        let nests = !self.is_mysql();
        let mut depth = 0_u32;
        loop {
            match self.rest() {
                [] => return,
                [b'/', b'*', ..] if nests || depth == 0 => {
                    depth += 1;
                    self.at += 2;
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// Passes a string whose quotation mark ends `opening` bytes from here, and
    /// those that continue it on further lines.
    fn string(&mut self, opening: usize, quote: u8, backslash_escapes: bool) {
        let mut start = self.at;
        self.at += opening;
        self.put(if self.shows_literals { "" } else { LITERAL });
        loop {
            let is_whole = self.string_body(quote, backslash_escapes);
            self.doubt_executed(self.sql.get(start..self.at.min(self.sql.len())).unwrap_or_default());
            self.show(start, is_whole);
            if self.is_mysql() || !self.is_continued() {
                return;
            }
            start = self.at - 1;
        }
    }

    /// Passes what is left of a string. Tells whether it has an end.
    fn string_body(&mut self, quote: u8, backslash_escapes: bool) -> bool {
        let mut before = 0;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' {
                if self.statement.masked == Masked::Statement {
                    self.statement.masked = Masked::Everything;
                }
                if backslash_escapes {
                    // In some encodings of East Asia it may be half a character.
                    if before >= 0x80 && self.peek(0) == Some(quote) {
                        self.statement.masked = Masked::Everything;
                    }
                    self.at += 1;
                    before = 0;
                    continue;
                }
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    return true;
                }
                self.at += 1;
            }
            before = byte;
        }
        false
    }

    /// Puts the string that began there, or a part of it, where literals are shown.
    fn show(&mut self, start: usize, is_whole: bool) {
        if !self.shows_literals || self.statement.masked != Masked::Nothing {
            return;
        }
        let text = &mut self.redacted.text;
        if text.ends_with('\'') {
            text.push(' ');
        }
        if is_whole {
            self.put_literal(start);
        } else {
            text.push_str(LITERAL);
        }
    }

    /// Puts the literal that began there and ends here.
    fn put_literal(&mut self, start: usize) {
        if !self.shows_literals {
            return self.put(LITERAL);
        }
        self.redacted.revealed |= self.statement.masked == Masked::Nothing;
        self.put_bytes(self.sql.get(start..self.at).unwrap_or_default());
    }

    /// Whether the string that ended goes on: standard SQL joins strings with a
    /// line break between them, and the first one's rules hold for all. If so,
    /// passes the quotation mark.
    fn is_continued(&mut self) -> bool {
        let end = self.at;
        let mut newline = false;
        loop {
            match self.rest() {
                [b'-', b'-', ..] => {
                    self.line_comment();
                }
                [b'\'', ..] if newline => {
                    self.at += 1;
                    return true;
                }
                [byte, ..] if is_space(*byte) => {
                    newline |= matches!(byte, b'\n' | b'\r');
                    self.at += 1;
                }
                [] => return false,
                _ => {
                    // What was passed is white space and comments.
                    self.space |= self.at > end;
                    return false;
                }
            }
        }
    }

    fn quoted_name(&mut self, quote: u8) {
        let start = self.at;
        self.at += 1;
        loop {
            let rest = self.rest();
            let Some(length) = rest.iter().position(|byte| *byte == quote) else {
                // Without an end it may be anything.
                self.at = self.sql.len();
                return self.put(LITERAL);
            };
            self.at += length + 1;
            if self.peek(0) != Some(quote) {
                break;
            }
            self.at += 1;
        }
        let name = self.sql.get(start..self.at).unwrap_or_default();
        self.doubt_executed(name);
        self.put_bytes(name);
    }

    /// A parameter (`$1`), a string (`$tag$...$tag$`), or just a dollar sign.
    fn dollar(&mut self) {
        let rest = self.rest();
        let name = rest.get(1..).unwrap_or_default();
        let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            self.at += 1 + digits;
            return self.put_bytes(rest.get(..=digits).unwrap_or_default());
        }
        let tag = name.iter().take_while(|byte| **byte != b'$' && continues_name(**byte)).count();
        if name.get(tag) != Some(&b'$') {
            self.at += 1;
            // A tag that is cut off hides the beginning of a string.
            if name.len() == tag {
                self.at = self.sql.len();
                return self.put(LITERAL);
            }
            return self.put("$");
        }
        let (mark, body) = rest.split_at((tag + 2).min(rest.len()));
        self.at += mark.len();
        let mut place = 0;
        while let Some(next) = body.get(place..).and_then(|rest| rest.iter().position(|byte| *byte == b'$')) {
            place += next;
            if body.get(place..).is_some_and(|rest| rest.starts_with(mark)) {
                let start = self.at - mark.len();
                self.at += place + mark.len();
                return self.put_literal(start);
            }
            place += 1;
        }
        self.at = self.sql.len();
        self.put(LITERAL);
    }

    fn number(&mut self) {
        let start = self.at;
        let hexadecimal = matches!(self.rest(), [b'0', b'x' | b'X', ..]);
        let mut before = 0;
        while let Some(byte) = self.peek(0) {
            let exponent_sign = matches!(byte, b'+' | b'-') && matches!(before, b'e' | b'E') && !hexadecimal;
            if !(continues_name(byte) || byte == b'.' || exponent_sign) {
                break;
            }
            before = byte;
            self.at += 1;
        }
        self.put_literal(start);
        // Where letters follow a number, old servers begin a name, or a quotation mark of another kind.
        let has_dollar = self.sql.get(start..self.at).is_some_and(|number| number.contains(&b'$'));
        if !self.is_mysql() && (has_dollar || begins_name(before) && self.peek(0) == Some(b'\'')) {
            self.statement.masked = Masked::Everything;
        }
    }

    fn name(&mut self) {
        let rest = self.rest();
        let length = rest.iter().take_while(|byte| continues_name(**byte)).count();
        let (name, after) = rest.split_at(length);
        match (name, after) {
            // Unicode escapes are written with a backslash, which escapes no quote.
            ([b'u' | b'U'], [b'&', b'\'', ..]) if !self.is_mysql() => return self.string(3, b'\'', false),
            ([b'e' | b'E'], [b'\'', ..]) if !self.is_mysql() => return self.string(2, b'\'', true),
            ([b'b' | b'B' | b'x' | b'X' | b'n' | b'N'], [b'\'', ..]) => {
                return self.string(2, b'\'', self.dialect.backslash_escapes);
            }
            _ => {}
        }
        self.at += length;
        self.put_bytes(name);
        let mut capitals = [0; KEYWORD_BYTES_MAX];
        let Some(capitals) = capitals.get_mut(..length) else { return };
        capitals.copy_from_slice(name);
        capitals.make_ascii_uppercase();
        self.keyword(&text::lossy(capitals));
    }

    fn keyword(&mut self, word: &str) {
        if self.redacted.operation.is_empty() && self.statement.masked != Masked::Everything {
            self.redacted.operation = word.into();
        }
        if self.statement.hides_after(word) && self.statement.masked == Masked::Nothing {
            self.space = true;
            self.put(LITERAL);
            self.redacted.is_secret = true;
            self.statement.masked = Masked::Statement;
        }
    }

    fn end_statement(&mut self) {
        self.at += 1;
        if self.statement.masked == Masked::Everything {
            return;
        }
        self.statement = Statement::default();
        self.space = false;
        self.redacted.text.push(';');
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes)
            && bytes.iter().all(|byte| (b' '..=b'~').contains(byte))
        {
            return self.put(text); // nearly always
        }
        let text = String::from_utf8_lossy(bytes);
        if text.chars().any(char::is_control) {
            let clean: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
            return self.put(&clean);
        }
        self.put(&text);
    }

    fn put(&mut self, token: &str) {
        if !self.statement.begun {
            self.statement.begun = true;
            self.redacted.statements = self.redacted.statements.saturating_add(1);
        }
        if self.statement.masked != Masked::Nothing {
            return;
        }
        let text = &mut self.redacted.text;
        if std::mem::take(&mut self.space) && !text.is_empty() {
            text.push(' ');
        }
        text.push_str(token);
    }
}
