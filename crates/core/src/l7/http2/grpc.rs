//! gRPC: messages inside of DATA frames, and how a call went.

use smol_str::SmolStr;

use crate::l7::http::cut;
use crate::l7::{Attribute, Exchange, redact};
use crate::{reveal, sql};

/// As in records.
pub(in crate::l7) const NAME: &str = "grpc";

/// Whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;
const ERROR_BYTES_MAX: usize = 256;

/// The messages of one direction of a call.
#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Of the message that is being sent.
    left: u64,
    whole: u64,
    /// A hole was in a prefix: where messages begin is not known any more.
    lost: bool,
}

impl Messages {
    /// How many bytes need not be seen.
    pub(super) fn skips(&self) -> u64 {
        if self.lost { u64::MAX } else { self.left }
    }

    /// Takes what is left of a prefix, and says how many bytes of it were there.
    pub(super) fn prefix(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(PREFIX_BYTES - self.prefix_bytes);
        for (place, byte) in self.prefix.iter_mut().skip(self.prefix_bytes).zip(bytes) {
            *place = *byte;
        }
        self.prefix_bytes += count;
        if self.prefix_bytes == PREFIX_BYTES {
            let [_, length @ ..] = self.prefix;
            self.prefix_bytes = 0;
            self.left = u64::from(u32::from_be_bytes(length));
            self.whole += u64::from(self.left == 0);
        }
        count
    }

    /// So many bytes passed unseen.
    pub(super) fn pass(&mut self, bytes: u64) {
        if bytes == 0 || self.lost {
            return;
        }
        if self.prefix_bytes > 0 || bytes > self.left {
            self.lost = true;
            return;
        }
        self.left -= bytes;
        self.whole += u64::from(self.left == 0);
    }

    /// Bytes are missing, and it is not known how many.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    /// How many there were, where that is known.
    pub(super) fn count(&self) -> Option<u64> {
        (!self.lost).then_some(self.whole)
    }
}

/// Whether this content is a call. gRPC-Web is not: it has its status elsewhere.
pub(super) fn is_call(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// What was asked for is the method, which stands where HTTP has its path.
pub(super) fn name_call(exchange: &mut Exchange) {
    exchange.operation = exchange.target.take().unwrap_or_default();
    if let Some(method) = exchange.operation.strip_prefix('/').map(SmolStr::from) {
        exchange.set(Attribute::RpcMethod, method);
    }
}

/// The name of a status.
pub(super) fn status_name(status: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let name = usize::try_from(status).ok().and_then(|status| NAMES.get(status));
    name.map_or_else(|| status.to_string(), |name| (*name).to_owned())
}

/// What the server says was wrong: without escapes and, if it may not be shown,
/// without what it quotes and what looks like a secret; and whether it is shown.
pub(super) fn error(message: &str, may_show: bool) -> (String, bool) {
    let plain = redact::unescape(message);
    let masked = sql::mask_quoted(&plain);
    let redacted = redact::url(&masked);
    let shown = reveal::shown(&plain).filter(|shown| may_show && *shown != redacted);
    let is_shown = shown.is_some();
    (cut(shown.as_deref().unwrap_or(&redacted), ERROR_BYTES_MAX).to_owned(), is_shown)
}
