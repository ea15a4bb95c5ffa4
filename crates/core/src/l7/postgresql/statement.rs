//! Prepared statements and portals: names for SQL, of which the oldest are
//! forgotten when there are too many.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

pub(super) use crate::l7::statement::Statement;

/// The server tells names apart by their first 63 bytes.
const NAME_BYTES_MAX: usize = 63;
/// Names kept of one kind.
const NAMES_MAX: usize = 512;
/// SQL kept under these names.
const TEXT_BYTES_MAX: usize = 128 * 1024;

/// Statements by name.
#[derive(Default)]
pub(super) struct Names {
    named: HashMap<Box<[u8]>, Arc<Statement>, RandomState>,
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
