//! Payload out of the kernel, and what is wanted of it into the kernel.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use weir_core::capture::{Frames, PayloadSeen, Wanted};
use weir_core::flow::FlowKey;

use crate::reader::Consumer;
use crate::{abi, decode};

/// The kernel does not take what is wanted of a flow.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell the kernel what is wanted of a flow's payload: {0}")]
pub struct CapturesError(#[source] io::Error);

/// Takes what comes out of the payload ring, on its reader's thread.
pub trait PayloadListener: Send {
    /// One record. What is wanted of its flow from now on goes to `captures`.
    fn payload(&mut self, seen: &PayloadSeen<'_>, captures: &Captures);

    /// Many records have come, or the ring is empty: a good moment to hand on what
    /// they gave.
    fn rest(&mut self, captures: &Captures);

    /// The ring is empty: all that passed until now has been handed over. Comes
    /// several times a second even if no record does.
    fn idle(&mut self, captures: &Captures);

    /// No more records will come.
    fn finish(&mut self);
}

/// What is wanted of each flow: the map `captures`.
pub struct Captures {
    map: MapHandle,
}

impl Captures {
    pub(crate) fn new(map: MapHandle) -> Self {
        Self { map }
    }

    /// From now on the kernel copies no more than this of a flow.
    ///
    /// # Errors
    /// No memory, or no room in the map.
    pub fn want(&self, key: &FlowKey, wanted: &Wanted) -> Result<(), CapturesError> {
        let frames = |of: fn(Frames) -> u32| wanted.frames.map(|frames| frames.map_or(0, of));
        let value = abi::capture {
            flow_first_ns: wanted.flow_first_ns,
            skip_until_seq: wanted.skip_until_seq.map(Option::unwrap_or_default),
            frame_seq: frames(|frames| frames.seq),
            frame_bytes: frames(|frames| frames.bytes),
            frame_chain: frames(|frames| frames.chain.map_or(0, NonZeroU32::get)),
            skip: wanted.skip_until_seq.map(|until| u8::from(until.is_some())),
            off: u8::from(wanted.off),
            pad: [0; 5],
        };
        let key = decode::encode_key(key);
        self.map
            .update(abi::as_bytes(&key), abi::as_bytes(&value), MapFlags::ANY)
            .map_err(|error| CapturesError(io::Error::other(error)))
    }

    /// Nothing was ever said of any flow.
    ///
    /// # Errors
    /// The kernel refuses to remove.
    pub(crate) fn clear(&self) -> Result<(), CapturesError> {
        let keys: Vec<_> = self.map.keys().collect();
        keys.iter().try_for_each(|key| self.remove(key))
    }

    /// Nothing was ever said of this flow, or it is over.
    ///
    /// # Errors
    /// The kernel refuses to remove.
    pub fn forget(&self, key: &FlowKey) -> Result<(), CapturesError> {
        self.remove(abi::as_bytes(&decode::encode_key(key)))
    }

    fn remove(&self, key: &[u8]) -> Result<(), CapturesError> {
        match self.map.delete(key) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CapturesError(io::Error::other(error))),
        }
    }
}

/// From the ring's bytes to a listener.
pub(crate) struct PayloadConsumer<L> {
    undecodable: Arc<AtomicU64>,
    captures: Captures,
    listener: L,
}

impl<L: PayloadListener> PayloadConsumer<L> {
    pub(crate) fn new(undecodable: Arc<AtomicU64>, captures: Captures, listener: L) -> Self {
        Self { undecodable, captures, listener }
    }
}

impl<L: PayloadListener> Consumer for PayloadConsumer<L> {
    fn record(&mut self, bytes: &[u8]) {
        match decode::payload(bytes) {
            Some(seen) => self.listener.payload(&seen, &self.captures),
            None => {
                self.undecodable.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn rest(&mut self) {
        self.listener.rest(&self.captures);
    }

    fn idle(&mut self) {
        self.listener.idle(&self.captures);
    }

    fn finish(&mut self) {
        self.listener.finish();
    }
}
