//! Prepared statements and portals: names for SQL, of which the oldest are
//! forgotten when there are too many.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::sql::{Dialect, redact};

/// The server tells names apart by their first 63 bytes.
const NAME_BYTES_MAX: usize = 63;
/// Names kept of one kind.
const NAMES_MAX: usize = 512;
/// SQL kept under these names.
const TEXT_BYTES_MAX: usize = 128 * 1024;
/// SQL in one record; what is longer ends with an ellipsis.
const RECORD_BYTES_MAX: usize = 8 * 1024;

/// What is executed.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) operation: String,
    /// Redacted SQL, or what else is asked for; empty if not known.
    pub(super) text: String,
    /// Statements in it; 0 if it is no SQL, or not known.
    pub(super) statements: u32,
    /// The text is not all of it.
    pub(super) cut: bool,
}

impl Statement {
    /// Reads SQL, of which more may follow (`cut`).
    pub(super) fn sql(sql: &[u8], cut: bool, dialect: Dialect) -> Self {
        let redacted = redact(sql, dialect);
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
        text.shrink_to_fit();
        Self { operation: redacted.operation, text, statements: redacted.statements, cut }
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.operation.capacity() + self.text.capacity()
    }
}

/// Statements by name.
#[derive(Default)]
pub(super) struct Names {
    named: HashMap<Box<[u8]>, Arc<Statement>>,
    /// Names in the order in which they were given; some may be gone.
    order: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Names {
    pub(super) fn insert(&mut self, name: &[u8], statement: &Arc<Statement>) {
        self.remove(name);
        if name.len() > NAME_BYTES_MAX {
            return;
        }
        self.bytes += name.len() + statement.memory_bytes();
        self.named.insert(name.into(), Arc::clone(statement));
        self.order.push_back(name.into());
        while self.named.len() > NAMES_MAX || self.bytes > TEXT_BYTES_MAX {
            let Some(oldest) = self.order.front().cloned() else { return };
            self.remove(&oldest);
        }
    }

    /// The statement of this name; a new and unknown one if there is none.
    pub(super) fn get(&self, name: &[u8]) -> Arc<Statement> {
        self.named.get(name).map(Arc::clone).unwrap_or_default()
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(statement) = self.named.remove(name) {
            self.bytes = self.bytes.saturating_sub(name.len() + statement.memory_bytes());
            self.order.retain(|one| **one != *name);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.order.iter().map(|name| name.len() + 64).sum::<usize>()
    }
}
