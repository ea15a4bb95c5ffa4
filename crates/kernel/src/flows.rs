//! The flow table and the tallies, read from user space.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, libbpf_sys};
use weir_core::flow::{Counters, FlowEntry, FlowKey};
use weir_core::loss::Tallies;

use crate::pins::PinDirectory;
use crate::{abi, decode, translations};

/// Entries read by one system call. 1,024 entries are 280 kB, which stays in a
/// processor's second-level cache, and more than any hash bucket holds.
const BATCH_ENTRIES: usize = 1024;

/// What a kernel says that cannot do something to a kind of map. Its own number, which no C library knows.
const ENOTSUPP: i32 = 524;

/// The kernel's tables cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The system call failed.
    #[error("cannot read the kernel's flow table: {0}")]
    Read(#[source] io::Error),
    /// The system call failed.
    #[error("cannot remove an ended flow from the kernel's table: {0}")]
    Remove(#[source] io::Error),
}

/// The flow table of loaded programs.
pub struct FlowTable {
    flows: MapHandle,
    tallies: MapHandle,
    translations: Option<MapHandle>,
}

impl FlowTable {
    pub(crate) fn new(flows: MapHandle, tallies: MapHandle, translations: MapHandle) -> Self {
        // Programs that do not redirect have one that is never written.
        let translations = (translations.max_entries() > 1).then_some(translations);
        Self { flows, tallies, translations }
    }

    /// That of pinned state, for reading, whoever owns it. `None`: there is no state.
    ///
    /// # Errors
    /// The kernel does not open the maps.
    pub fn pinned(pins: &PinDirectory) -> Result<Option<Self>, TableError> {
        if !pins.state().exists() {
            return Ok(None);
        }
        let open =
            |name: &str| pins.open_map(name).map_err(|error| TableError::Read(io::Error::other(error)));
        Ok(Some(Self::new(open("flows")?, open("tallies")?, open("translations")?)))
    }

    /// The entry of one flow, if there is one.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn read(&self, key: &FlowKey) -> Result<Option<FlowEntry>, TableError> {
        let key = decode::encode_key(key);
        let bytes = self
            .flows
            .lookup(abi::as_bytes(&key), MapFlags::ANY)
            .map_err(|error| TableError::Read(io::Error::other(error)))?;
        Ok(bytes.and_then(|bytes| decode_entry(&bytes)))
    }

    /// Takes one flow out of the table, and its translations with it; the entry as
    /// it stood at that moment.
    ///
    /// # Errors
    /// The kernel refuses to remove.
    pub fn remove(&self, key: &FlowKey) -> Result<Option<FlowEntry>, TableError> {
        // First: a packet in between is then one of a new connection, for which there is
        // no name yet, and not of one that is half there.
        if let Some(translations) = &self.translations {
            translations::remove(translations, key).map_err(TableError::Remove)?;
        }
        let raw_key = decode::encode_key(key);
        let mut value = abi::flow::default();
        // SAFETY: key and value have the sizes that the map was made with
        // (both come from abi.h) and outlive the call.
        let status = unsafe {
            libbpf_sys::bpf_map_lookup_and_delete_elem(
                self.flows.as_fd().as_raw_fd(),
                std::ptr::from_ref(&raw_key).cast::<c_void>(),
                std::ptr::from_mut(&mut value).cast::<c_void>(),
            )
        };
        match -status {
            0 => Ok(decode::entry(&value)),
            libc::ENOENT => Ok(None),
            // Hash tables can do both at once from Linux 5.14 on. Before it, a
            // packet between the two calls would go uncounted; callers remove
            // flows that have been quiet.
            ENOTSUPP => self.read_then_delete(key),
            errno => Err(TableError::Remove(io::Error::from_raw_os_error(errno))),
        }
    }

    fn read_then_delete(&self, key: &FlowKey) -> Result<Option<FlowEntry>, TableError> {
        let Some(entry) = self.read(key)? else { return Ok(None) };
        let raw_key = decode::encode_key(key);
        match self.flows.delete(abi::as_bytes(&raw_key)) {
            Ok(()) => Ok(Some(entry)),
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(Some(entry)),
            Err(error) => Err(TableError::Remove(io::Error::other(error))),
        }
    }

    /// Reads the whole table. Entries that come or go meanwhile may be left out
    /// or, rarely, be visited twice.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn visit(&self, mut visit: impl FnMut(FlowKey, FlowEntry)) -> Result<(), TableError> {
        let mut keys = vec![abi::flow_key::default(); BATCH_ENTRIES];
        let mut values = vec![abi::flow::default(); BATCH_ENTRIES];
        // The kernel's own cursor: for hash tables a bucket number of 4 bytes.
        let mut position = 0u32;
        let mut first = true;
        loop {
            let mut count = BATCH_ENTRIES as u32;
            let in_batch = if first { std::ptr::null_mut() } else { (&raw mut position).cast::<c_void>() };
            // SAFETY: keys and values have room for `count` elements of the
            // map's sizes; the cursor is 4 bytes, as hash maps want it; libbpf
            // takes no options when the last pointer is null.
            let status = unsafe {
                libbpf_sys::bpf_map_lookup_batch(
                    self.flows.as_fd().as_raw_fd(),
                    in_batch,
                    (&raw mut position).cast::<c_void>(),
                    keys.as_mut_ptr().cast::<c_void>(),
                    values.as_mut_ptr().cast::<c_void>(),
                    &raw mut count,
                    std::ptr::null(),
                )
            };
            let done = status == -libc::ENOENT;
            if status != 0 && !done {
                return Err(TableError::Read(io::Error::from_raw_os_error(-status)));
            }
            for (raw_key, value) in keys.iter().zip(&values).take(count as usize) {
                if let Some(entry) = decode::entry(value) {
                    visit(decode::key(raw_key), entry);
                }
            }
            if done {
                return Ok(());
            }
            first = false;
        }
    }

    /// Packets in no flow.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn tallies(&self) -> Result<Tallies, TableError> {
        let mut tallies = Tallies::new();
        for raw_key in self.tallies.keys() {
            let value = self
                .tallies
                .lookup(&raw_key, MapFlags::ANY)
                .map_err(|error| TableError::Read(io::Error::other(error)))?;
            let key = abi::from_bytes(&raw_key).and_then(|key| decode::tally_key(&key));
            let tally: Option<abi::tally> = value.as_deref().and_then(abi::from_bytes);
            if let (Some(key), Some(tally)) = (key, tally) {
                *tallies.entry(key).or_default() += Counters { packets: tally.packets, bytes: tally.bytes };
            }
        }
        Ok(tallies)
    }
}

fn decode_entry(bytes: &[u8]) -> Option<FlowEntry> {
    decode::entry(&abi::from_bytes(bytes)?)
}
