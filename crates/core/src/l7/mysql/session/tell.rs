//! What is told of commands and their answers.

use smol_str::{SmolStr, ToSmolStr, format_smolstr};

use super::{
    Answer, Asked, Capabilities, Capture, Context, Effect, Exchange, Heard, Message, Session, Statement,
};
use crate::l7::Attribute;
use crate::l7::mysql::statement::Known;
use crate::l7::mysql::values::{self, Bound};
use crate::l7::mysql::wire::Failure;
use crate::reveal::Class;
use crate::sql::{error_text, made_up_text};

/// Messages that a program made up: anything may stand in them.
const SIGNALS: std::ops::RangeInclusive<u16> = 1_642..=1_646;
/// The state of what they signal, unless they say another one: the number may be any.
const SIGNALLED: &str = "45000";
/// A server cuts off longer ones: a quotation mark may be missing.
const MESSAGE_BYTES_MAX: usize = 511;
/// Statements that change rows, or find none to change.
const CHANGING: [&str; 5] = ["DELETE", "INSERT", "LOAD", "REPLACE", "UPDATE"];
/// What the server says about how it did it, by flag.
const HINTS: [(u16, &str); 3] =
    [(0x0010, "no_good_index_used"), (0x0020, "no_index_used"), (0x0800, "slow_query")];

impl Session {
    pub(super) fn exchange(&self, operation: impl Into<SmolStr>) -> Box<Exchange> {
        self.who.exchange(if self.is_mariadb { "mariadb" } else { "mysql" }, operation)
    }

    /// A command and its whole answer.
    pub(super) fn emit(&self, cx: &mut Context<'_>, asked: &Asked, heard: &Heard) {
        let mut exchange = self.describe(asked);
        exchange.note(heard.capture);
        exchange.response = Some(heard.response);
        let statement = self.statement(asked);
        let may_show = self.reveal.has(Class::ErrorText) && statement.statements > 0 && !statement.is_secret;
        outcome(&mut exchange, &heard.answer, may_show);
        cx.emit(exchange);
    }

    /// A command whose answer broke off.
    pub(super) fn broken_off(&mut self, cx: &mut Context<'_>, asked: &Asked, heard: &Heard) {
        let mut exchange = self.describe(asked);
        exchange.note(heard.capture);
        exchange.response = Some(heard.response);
        sizes(&mut exchange, &heard.answer);
        cx.emit(exchange);
        self.unsure(&asked.effect);
    }

    /// A command without an answer, or whose answer cannot be told.
    pub(super) fn no_answer(&mut self, cx: &mut Context<'_>, asked: &Asked) {
        cx.emit(self.describe(asked));
        self.unsure(&asked.effect);
    }

    /// It is not known whether this has happened.
    fn unsure(&mut self, effect: &Effect) {
        match effect {
            Effect::None | Effect::Prepares => {}
            Effect::Database(_) => self.who.database = None,
            Effect::User(_) => {
                (self.who.user, self.who.database) = (None, None);
                self.prepared.clear();
            }
            Effect::Resets => self.prepared.clear(),
        }
    }

    /// An answer to something that was not seen, or cannot be told which it is.
    pub(super) fn orphan(&self, cx: &mut Context<'_>, heard: &Heard) {
        let mut exchange = self.exchange("");
        exchange.note(heard.capture);
        exchange.response = Some(heard.response);
        outcome(&mut exchange, &heard.answer, false);
        cx.emit(exchange);
    }

    /// An error that the server tells on its own.
    pub(super) fn unasked(
        &self,
        cx: &mut Context<'_>,
        operation: &'static str,
        answer: &Answer,
        message: &Message<'_>,
    ) {
        let mut exchange = self.exchange(operation);
        exchange.response = Some(message.part);
        outcome(&mut exchange, answer, false);
        cx.emit(exchange);
    }

    /// What is executed, as far as that is known.
    fn statement<'a>(&'a self, asked: &'a Asked) -> &'a Statement {
        match asked.prepared.map(|number| self.prepared.get(number)) {
            Some(Known::Statement(prepared)) => &prepared.statement,
            _ => &asked.statement,
        }
    }

    /// What is bound to a statement's parameters, if that may be shown.
    pub(super) fn bound(&self, asked: &Asked) -> Option<Bound> {
        let Known::Statement(prepared) = self.prepared.get(asked.prepared?) else { return None };
        if asked.values.is_empty() || prepared.statement.statements == 0 || prepared.statement.is_secret {
            return None;
        }
        let has_names = self.agreed.is_some_and(Capabilities::query_attributes);
        values::bound(&asked.values, prepared.parameters, &prepared.types, has_names)
    }

    fn describe(&self, asked: &Asked) -> Box<Exchange> {
        let mut exchange = self.exchange("");
        exchange.request = Some(asked.request);
        exchange.note(asked.capture);
        let statement = self.statement(asked);
        let operation = match &asked.operation {
            Some(operation) => operation.clone(),
            None if !statement.operation.is_empty() => statement.operation.clone(),
            None if asked.prepared.is_some() => SmolStr::new_static("EXECUTE"),
            None => SmolStr::new_static("QUERY"),
        };
        exchange.set(Attribute::DbOperationName, operation.clone());
        exchange.operation = operation;
        statement.describe(&mut exchange);
        if let Some(bound) = self.bound(asked).filter(|bound| !bound.texts.is_empty()) {
            exchange.set(Attribute::DbParameters, bound.texts);
            exchange.revealed.insert(Class::Parameters);
        }
        match asked.prepared.map(|number| (number, self.prepared.get(number))) {
            Some((number, Known::Forgotten)) => {
                exchange.target = Some(format_smolstr!("stmt#{number}"));
                exchange.note(Capture::Truncated);
            }
            Some((number, Known::Never)) => {
                exchange.target = Some(format_smolstr!("stmt#{number}"));
                if self.lost_commands {
                    exchange.note(Capture::Gap);
                }
            }
            _ => {}
        }
        if let Effect::User(login) = &asked.effect {
            exchange.attributes.remove(Attribute::UserName);
            if let Some(user) = &login.user {
                exchange.set(Attribute::UserName, user.clone());
            }
        }
        exchange
    }
}

/// How it went; `may_show` what the server cites.
fn outcome(exchange: &mut Exchange, answer: &Answer, may_show: bool) {
    sizes(exchange, answer);
    let Some(failure) = &answer.failure else {
        exchange.ok = Some(true);
        exchange.status = Some(SmolStr::new_static("OK"));
        return;
    };
    exchange.ok = Some(false);
    let code = failure.code.to_smolstr();
    let (text, revealed) = message(failure, may_show);
    if revealed {
        exchange.revealed.insert(Class::ErrorText);
    }
    exchange.error = Some(text.into());
    exchange.set(Attribute::DbResponseStatusCode, code.clone());
    exchange.set(Attribute::ErrorType, code.clone());
    exchange.status = Some(code);
}

fn sizes(exchange: &mut Exchange, answer: &Answer) {
    if answer.has_rows {
        exchange.set(Attribute::DbResponseReturnedRows, answer.rows);
    }
    // Every success says a number.
    let changes = CHANGING.contains(&exchange.operation.as_str());
    if let Some(affected) = answer.affected.filter(|affected| *affected > 0 || changes) {
        exchange.set(Attribute::DbAffectedRows, affected);
    }
    if answer.warnings > 0 {
        exchange.set(Attribute::DbWarnings, answer.warnings);
    }
    let status = answer.status.unwrap_or_default();
    let set = HINTS.iter().filter(|(flag, _)| status & flag != 0);
    let hints: Vec<String> = set.map(|(_, name)| (*name).to_owned()).collect();
    if !hints.is_empty() {
        exchange.set(Attribute::DbHints, hints);
    }
}

/// State and message, without what it cites if that may not be shown; and
/// whether it is shown.
fn message(failure: &Failure, may_show: bool) -> (String, bool) {
    let said = failure.message.as_str();
    let is_made_up = SIGNALS.contains(&failure.code) || failure.state.as_deref() == Some(SIGNALLED);
    let told = if is_made_up { made_up_text } else { error_text };
    let (masked, revealed) = told(said, may_show);
    let text = if revealed {
        masked
    } else if said.len() >= MESSAGE_BYTES_MAX {
        let end = masked.find(['\'', '"', '`']).unwrap_or_default();
        format!("{}?…", masked.get(..end).unwrap_or_default())
    } else {
        masked
    };
    match &failure.state {
        Some(state) => (format!("{state}: {text}"), revealed),
        None => (text, revealed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_lose_what_they_cite() {
        let long = format!("Incorrect value: 'SECRET{}", "x".repeat(600));
        for (code, said, told) in [
            (1062, "Duplicate entry 'SECRET' for key 'a'", "23000: Duplicate entry '?'"),
            (1644, "SECRET made up", "23000: ?"),
            (1146, "Table 'a.b' doesn't exist", "23000: Table '?' doesn't exist"),
            (1366, long.as_str(), "23000: Incorrect value: ?…"),
        ] {
            let state = Some("23000".into());
            assert_eq!(message(&Failure { code, state, message: said.into() }, false).0, told);
        }
        let signalled = Failure { code: 1048, state: Some("45000".into()), message: "SECRET".into() };
        assert_eq!(message(&signalled, false).0, "45000: ?");
    }
}
