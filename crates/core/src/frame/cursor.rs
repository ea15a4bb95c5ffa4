//! What is left of a frame.

use crate::loss::TallyReason;

/// The bytes that were captured of it, and how many were sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a [u8],
    /// At least `rest.len()`.
    pub(super) sent: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], TallyReason> {
        let why = if self.sent < length { TallyReason::Malformed } else { TallyReason::Truncated };
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(why)?;
        self.rest = rest;
        self.sent -= length;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, length: usize) -> Result<(), TallyReason> {
        self.take(length).map(|_| ())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], TallyReason> {
        self.take(N)?.try_into().map_err(|_| TallyReason::Truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, TallyReason> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, TallyReason> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Leaves out what follows after so many bytes: padding.
    pub(super) fn limit(&mut self, length: usize) {
        self.rest = self.rest.get(..length).unwrap_or(self.rest);
        self.sent = self.sent.min(length);
    }

    pub(super) fn sent_bytes(&self) -> u32 {
        u32::try_from(self.sent).unwrap_or(u32::MAX)
    }
}
