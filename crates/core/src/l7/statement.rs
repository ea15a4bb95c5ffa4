//! SQL as it becomes part of an exchange.

use std::sync::Arc;

use smol_str::SmolStr;

use super::{Attribute, Exchange};
use crate::record::Capture;
use crate::reveal::{Class, Reveal};
use crate::sql::{Dialect, Family, redact_but};

/// SQL in one record; what is longer ends with an ellipsis.
const RECORD_BYTES_MAX: usize = 8 * 1024;

/// Whose statements they are: what every exchange of a session says.
#[derive(Debug, Default)]
pub(super) struct Speaker {
    /// The session's beginning was not seen.
    pub(super) late: bool,
    pub(super) user: Option<SmolStr>,
    pub(super) database: Option<SmolStr>,
}

impl Speaker {
    /// An exchange with this system, of which only these things are known.
    pub(super) fn exchange(&self, system: &'static str, operation: impl Into<SmolStr>) -> Box<Exchange> {
        let mut exchange = Exchange::empty();
        exchange.operation = operation.into();
        exchange.set(Attribute::DbSystemName, SmolStr::new_static(system));
        if let Some(database) = &self.database {
            exchange.set(Attribute::DbNamespace, database.clone());
        }
        if let Some(user) = &self.user {
            exchange.set(Attribute::UserName, user.clone());
        }
        if self.late {
            exchange.note(Capture::Midstream);
        }
        exchange
    }
}

/// What is executed.
#[derive(Debug, Clone, Default)]
pub(super) struct Statement {
    pub(super) operation: SmolStr,
    /// Redacted SQL, or what else is asked for; empty if not known.
    pub(super) text: SmolStr,
    /// Statements in it; 0 if it is no SQL, or not known.
    pub(super) statements: u32,
    /// The text is not all of it.
    pub(super) cut: bool,
    /// Values that were bound to it, if they may be shown.
    pub(super) parameters: Vec<String>,
    /// The text has literals in it.
    pub(super) revealed: bool,
    /// Nothing more of what belongs to it may be shown.
    pub(super) is_secret: bool,
}

impl Statement {
    /// Reads SQL, of which more may follow (`cut`). Where it is not known what a
    /// backslash means (`escapes`), everything from the first place on where that
    /// makes a difference is left out.
    pub(super) fn sql(sql: &[u8], cut: bool, family: Family, escapes: Option<bool>, reveal: Reveal) -> Self {
        let read = |backslash_escapes| Self::read(sql, cut, Dialect { family, backslash_escapes }, reveal);
        let usual = family == Family::MySql;
        let statement = read(escapes.unwrap_or(usual));
        if escapes.is_some() || !sql.contains(&b'\\') {
            return statement;
        }
        let other = read(!usual);
        if statement.text == other.text {
            return statement;
        }
        let pairs = statement.text.chars().zip(other.text.chars());
        let mut text: String = pairs.take_while(|(one, other)| one == other).map(|(one, _)| one).collect();
        text.push('…');
        let revealed = statement.revealed || other.revealed;
        Self { text: text.into(), cut: true, revealed, is_secret: true, ..statement }
    }

    fn read(sql: &[u8], cut: bool, dialect: Dialect, reveal: Reveal) -> Self {
        let redacted = redact_but(sql, dialect, reveal);
        let mut text = redacted.text;
        let too_long = text.len() > RECORD_BYTES_MAX;
        if too_long {
            let end = (0..=RECORD_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or_default());
        }
        let cut = cut || too_long;
        if cut {
            text.push('…');
        }
        Self {
            operation: redacted.operation,
            text: text.into(),
            statements: redacted.statements,
            cut,
            parameters: Vec::new(),
            revealed: redacted.revealed,
            // What is cut off may say so.
            is_secret: redacted.is_secret || cut,
        }
    }

    /// Says in an exchange what is executed, but not under which name.
    pub(super) fn describe(&self, exchange: &mut Exchange) {
        if !self.text.is_empty() {
            exchange.target = Some(self.text.clone());
        }
        if self.statements > 0 {
            exchange.set(Attribute::DbQueryText, self.text.clone());
        }
        if self.statements > 1 {
            exchange.set(Attribute::DbOperationBatchSize, u64::from(self.statements));
        }
        if !self.parameters.is_empty() {
            exchange.set(Attribute::DbParameters, self.parameters.clone());
            exchange.revealed.insert(Class::Parameters);
        }
        if self.revealed {
            exchange.revealed.insert(Class::SqlLiterals);
        }
        if self.cut {
            exchange.note(Capture::Truncated);
        }
    }

    /// The same, with these values bound to it.
    pub(super) fn with_parameters(&self, parameters: Vec<String>) -> Self {
        Self { parameters, ..self.clone() }
    }

    /// Whether one is the other, perhaps with values bound to it.
    pub(super) fn is_same(this: &Arc<Self>, other: &Arc<Self>) -> bool {
        let is_bound = !this.parameters.is_empty() || !other.parameters.is_empty();
        Arc::ptr_eq(this, other) || is_bound && this.text == other.text
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let parameters: usize = self.parameters.iter().map(|one| size_of::<String>() + one.capacity()).sum();
        size_of::<Self>() + self.operation.len() + self.text.len() + parameters
    }
}
