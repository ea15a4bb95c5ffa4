//! Prepared statements: numbers for SQL, of which the oldest are forgotten when
//! there are too many.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::l7::statement::Statement;

/// Statements kept of a connection.
const STATEMENTS_MAX: usize = 1_024;
/// SQL kept of them.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// A statement that was prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) statement: Arc<Statement>,
    pub(super) parameters: u16,
    /// Of its parameters, as they were told last; only if values may be shown.
    pub(super) types: Vec<u16>,
    /// When it was, among the others.
    place: u64,
}

/// What is known of a number.
pub(super) enum Known<'a> {
    Statement(&'a Prepared),
    /// It was prepared, and there was no room to remember it.
    Forgotten,
    /// It was prepared before anything was seen, or never.
    Never,
}

/// Statements by the number that the server gave them.
#[derive(Default)]
pub(super) struct Statements {
    numbered: HashMap<u32, Prepared>,
    /// Numbers in the order in which they were given; some may be gone.
    order: VecDeque<(u64, u32)>,
    next: u64,
    bytes: usize,
    /// Numbers up to this one may have been forgotten.
    forgotten: Option<u32>,
}

impl Statements {
    pub(super) fn insert(&mut self, number: u32, statement: &Arc<Statement>, parameters: u16) {
        self.remove(number);
        self.bytes += statement.memory_bytes();
        let statement = Arc::clone(statement);
        let prepared = Prepared { statement, parameters, types: Vec::new(), place: self.next };
        self.numbered.insert(number, prepared);
        self.order.push_back((self.next, number));
        self.next += 1;
        while self.numbered.len() > STATEMENTS_MAX || self.bytes > TEXT_BYTES_MAX {
            let Some((place, number)) = self.order.pop_front() else { return };
            if self.numbered.get(&number).is_some_and(|one| one.place == place) {
                self.remove(number);
                self.forgotten = self.forgotten.max(Some(number));
            }
        }
        if self.order.len() > 2 * STATEMENTS_MAX {
            let numbered = &self.numbered;
            self.order.retain(|(place, number)| numbered.get(number).is_some_and(|one| one.place == *place));
        }
    }

    /// The types of its parameters were told.
    pub(super) fn set_types(&mut self, number: u32, types: Vec<u16>) {
        if let Some(one) = self.numbered.get_mut(&number) {
            self.bytes += size_of_val(types.as_slice());
            self.bytes = self.bytes.saturating_sub(size_of_val(one.types.as_slice()));
            one.types = types;
        }
    }

    pub(super) fn get(&self, number: u32) -> Known<'_> {
        match self.numbered.get(&number) {
            Some(one) => Known::Statement(one),
            None if self.forgotten.is_some_and(|last| number <= last) => Known::Forgotten,
            None => Known::Never,
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        if let Some(one) = self.numbered.remove(&number) {
            let bytes = one.statement.memory_bytes() + size_of_val(one.types.as_slice());
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// None of them is valid any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.numbered.capacity() * 64 + self.order.capacity() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Arc<Statement> {
        Arc::new(Statement { text: text.into(), ..Statement::default() })
    }

    #[test]
    fn the_oldest_are_forgotten_and_known_to_be() {
        let mut statements = Statements::default();
        for number in 1..=2_000 {
            statements.insert(number, &statement("SELECT ?"), 0);
        }
        assert!(matches!(statements.get(1), Known::Forgotten));
        assert!(matches!(statements.get(2_000), Known::Statement(_)));
        assert!(matches!(statements.get(2_001), Known::Never));
        for number in 0..100 {
            statements.insert(number, &statement(&"x".repeat(8_000)), 0);
            assert!(statements.memory_bytes() < TEXT_BYTES_MAX + 250_000, "{}", statements.memory_bytes());
        }
    }

    #[test]
    fn what_is_closed_makes_room() {
        let mut statements = Statements::default();
        for number in 0..100_000 {
            statements.insert(number, &statement("SELECT ?"), 0);
            statements.remove(number);
        }
        assert!(matches!(statements.get(1), Known::Never));
        assert!(statements.bytes == 0 && statements.memory_bytes() < 250_000);
    }
}
