//! State of another version of weir is carried over: its rules, and its connections as they are.
//!
//! The maps of two versions differ. So there are both for a moment: what is in the former's maps is written into this
//! version's, each value member by member, as the kernel describes the layout of both ([`layout`]). The programs of
//! the former work on meanwhile, and when they have been replaced, what they did last is added. While program after
//! program is replaced, new connections that a rule is about find no target: they are refused, and their clients ask
//! again a moment later.

mod bytes;
mod layout;
mod settle;

use std::collections::HashMap;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use crate::pins::{self, PinError};
use crate::redirects::RULE_BYTES;
use layout::Layout;

/// What makes it state that connections hang on.
const NEEDED: [&str; 3] = [FLOWS, TRANSLATIONS, "redirect_texts"];
const FLOWS: &str = "flows";
const TRANSLATIONS: &str = "translations";
/// Without them no rule redirects anything.
const TARGETS: &str = "redirect_targets";
const BYTES_BEFORE: &str = "rule_bytes_before";

/// Keys and their values.
type Content = HashMap<Vec<u8>, Vec<u8>>;

/// One former version's maps, beside this one's.
pub(crate) struct Carry {
    maps: Vec<Carried>,
    /// The former's targets.
    targets: Content,
}

/// A map that both versions have.
struct Carried {
    name: String,
    from: MapHandle,
    to: MapHandle,
    key: Way,
    value: Way,
    /// Flows and translations as they were when they were copied last.
    copied: Content,
}

/// From one version's keys or values to the other's.
enum Way {
    /// Text and the like, which has no layout: filled up with zeros to this length.
    Bytes(usize),
    Members(Layout, Layout),
}

impl Way {
    fn convert(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(length) => {
                let surplus = bytes.get(*length..).unwrap_or_default();
                let mut converted = bytes.get(..bytes.len() - surplus.len())?.to_vec();
                converted.resize(*length, 0);
                surplus.iter().all(|byte| *byte == 0).then_some(converted)
            }
            Self::Members(from, to) => from.convert(to, bytes),
        }
    }
}

impl Carry {
    /// Looks at the state in the folder of another version. `maps`: those of this version's programs, with their
    /// names.
    ///
    /// # Errors
    /// It cannot be carried over; why, as in "because ...".
    pub(crate) fn open(
        former: &Path,
        maps: impl Iterator<Item = (String, MapHandle)>,
    ) -> Result<Self, String> {
        let mut carried = Vec::new();
        for (name, to) in maps {
            let path = pins::maps(former).join(&name);
            if path.exists() {
                carried.extend(Carried::open(name, &path, to)?);
            }
        }
        for needed in NEEDED {
            if !carried.iter().any(|map: &Carried| map.name == needed) {
                return Err(format!("it has no map {needed}"));
            }
        }
        Ok(Self { maps: carried, targets: Content::new() })
    }

    /// Copies what is there. The former's programs go on, and may change it.
    ///
    /// # Errors
    /// Something does not fit into this version's maps, or the kernel refuses.
    pub(crate) fn copy(&mut self) -> Result<(), PinError> {
        if let Some(map) = self.map(RULE_BYTES) {
            bytes::begin(map)?;
        }
        for map in self.maps.iter_mut().filter(|map| ![TARGETS, RULE_BYTES].contains(&map.name.as_str())) {
            let mut copied = std::mem::take(&mut map.copied);
            map.visit(|raw_key, raw_value| {
                if copied.get(&raw_key) == Some(&raw_value) {
                    return Ok(());
                }
                let (key, value) = map.convert(&raw_key, &raw_value)?;
                map.write(&key, &value, MapFlags::ANY)?;
                // Of the others there are few, and they are copied twice.
                if [FLOWS, TRANSLATIONS].contains(&map.name.as_str()) {
                    copied.insert(raw_key, raw_value);
                }
                Ok(())
            })?;
            map.copied = copied;
        }
        Ok(())
    }

    /// From now on the former's programs begin no connection that a rule is about, and what they have begun is
    /// copied.
    ///
    /// # Errors
    /// As [`Carry::copy`].
    pub(crate) fn hold(&mut self) -> Result<(), PinError> {
        if let Some(map) = self.map(TARGETS) {
            self.targets = map.take()?;
        }
        self.copy()
    }

    /// The programs were not replaced: all is as it was before [`Carry::hold`].
    pub(crate) fn release(&self) {
        let Some(map) = self.map(TARGETS) else { return };
        for (key, value) in &self.targets {
            // If that fails too, the first error says why.
            let _ = map.from.update(key, value, MapFlags::ANY);
        }
    }

    /// The programs are this version's: adds what the former's did last, and lets connections begin.
    ///
    /// # Errors
    /// As [`Carry::copy`].
    pub(crate) fn settle(&self) -> Result<(), PinError> {
        // First: clients wait for them.
        if let Some(map) = self.map(TARGETS) {
            for (raw_key, raw_value) in &self.targets {
                let (key, value) = map.convert(raw_key, raw_value)?;
                map.write(&key, &value, MapFlags::ANY)?;
            }
        }
        if let Some(map) = self.map(TRANSLATIONS) {
            map.visit(|raw_key, raw_value| {
                if map.copied.get(&raw_key) == Some(&raw_value) {
                    return Ok(());
                }
                let (key, value) = map.convert(&raw_key, &raw_value)?;
                map.write(&key, &value, MapFlags::NO_EXIST)
            })?;
        }
        if let (Some(bytes), Some(before)) = (self.map(RULE_BYTES), self.map(BYTES_BEFORE)) {
            bytes::settle(bytes, before)?;
        }
        self.map(FLOWS).map_or(Ok(()), settle_flows)
    }

    /// Entries that the former's flow table has room for.
    pub(crate) fn max_flows(&self) -> Option<u32> {
        self.map(FLOWS).map(|map| map.from.max_entries())
    }

    fn map(&self, name: &str) -> Option<&Carried> {
        self.maps.iter().find(|map| map.name == name)
    }
}

fn settle_flows(map: &Carried) -> Result<(), PinError> {
    map.visit(|raw_key, raw_last| {
        let copied = map.copied.get(&raw_key);
        if copied == Some(&raw_last) {
            return Ok(());
        }
        let (key, last) = map.convert(&raw_key, &raw_last)?;
        let copied = copied.and_then(|raw_copied| map.value.convert(raw_copied));
        let now = map.to.lookup(&key, MapFlags::ANY).map_err(|error| map.refused("read", error))?;
        let settled = match (now, copied) {
            (None, _) => Some(last),
            (Some(now), Some(copied)) => settle::flow(&now, &copied, &last),
            // It began with this version's programs, as far as they know.
            (Some(_), None) => None,
        };
        settled.map_or(Ok(()), |flow| map.write(&key, &flow, MapFlags::ANY))
    })
}

impl Carried {
    /// `None`: what is in it is not worth it, or belongs to the programs of one load.
    fn open(name: String, path: &Path, to: MapHandle) -> Result<Option<Self>, String> {
        let opened = |error: libbpf_rs::Error| format!("its map {name} cannot be opened: {error}");
        let from = MapHandle::from_pinned_path(path).map_err(opened)?;
        if !matches!(to.map_type(), MapType::Hash | MapType::LpmTrie) && name != RULE_BYTES {
            return Ok(None);
        }
        let unlike = || format!("nothing says how its map {name} is laid out, or it is another kind of map");
        if from.map_type() != to.map_type() {
            return Err(unlike());
        }
        let (key, value) = ways(&from, &to).ok_or_else(unlike)?;
        Ok(Some(Self { name, from, to, key, value, copied: Content::new() }))
    }

    fn convert(&self, key: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), PinError> {
        let converted = self.key.convert(key).zip(self.value.convert(value));
        converted.ok_or_else(|| {
            let action = format!("carry over an entry of the map {}", self.name);
            PinError::new(action, io::Error::other("it does not fit into this version's"))
        })
    }

    /// The former's content. Entries may be visited twice while programs take others out.
    fn visit(&self, mut visit: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), PinError>) -> Result<(), PinError> {
        self.from.keys().try_for_each(|key| match self.read(&key)? {
            Some(value) => visit(key, value),
            None => Ok(()),
        })
    }

    /// The former's content, which it has no more.
    fn take(&self) -> Result<Content, PinError> {
        let keys: Vec<_> = self.from.keys().collect();
        let mut content = Content::new();
        for key in keys {
            let value = self.read(&key)?;
            match self.from.delete(&key) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.refused("clear", error));
                }
                _ => content.extend(value.map(|value| (key, value))),
            }
        }
        Ok(content)
    }

    /// `None`: it was taken out meanwhile.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PinError> {
        self.from.lookup(key, MapFlags::ANY).map_err(|error| self.refused("read", error))
    }

    fn write(&self, key: &[u8], value: &[u8], flags: MapFlags) -> Result<(), PinError> {
        match self.to.update(key, value, flags) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(self.refused("write", error)),
            _ => Ok(()),
        }
    }

    fn refused(&self, action: &str, error: libbpf_rs::Error) -> PinError {
        PinError::new(format!("{action} the map {}", self.name), io::Error::other(error))
    }
}

/// How keys and values get from one map to another.
fn ways(from: &MapHandle, to: &MapHandle) -> Option<(Way, Way)> {
    let (old, new) = (from.info().ok()?.info, to.info().ok()?.info);
    let (old_types, new_types) = (description(old.btf_id), description(new.btf_id));
    let way = |old_type: u32, new_type: u32, old_bytes: u32, new_bytes: u32| match (old_type, new_type) {
        (0, 0) => Some(Way::Bytes(new_bytes as usize)),
        (0, _) | (_, 0) => None,
        _ => {
            let from = Layout::parse(old_types.as_deref()?, old_type)?;
            let to = Layout::parse(new_types.as_deref()?, new_type)?;
            let as_said = from.bytes() == old_bytes as usize && to.bytes() == new_bytes as usize;
            as_said.then_some(Way::Members(from, to))
        }
    };
    let key = way(old.btf_key_type_id, new.btf_key_type_id, old.key_size, new.key_size)?;
    let value = way(old.btf_value_type_id, new.btf_value_type_id, old.value_size, new.value_size)?;
    Some((key, value))
}

/// The types that the kernel was told of with that number.
fn description(btf_id: u32) -> Option<Vec<u8>> {
    // SAFETY: the call takes no pointer.
    let fd = unsafe { libbpf_sys::bpf_btf_get_fd_by_id(btf_id) };
    if fd < 0 {
        return None;
    }
    // SAFETY: a new descriptor, which nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut bytes = vec![0u8; description_bytes(&fd, &mut [])?];
    let length = description_bytes(&fd, &mut bytes)?;
    (length == bytes.len()).then_some(bytes)
}

/// Writes as much of the description as there is room for; how long it is.
fn description_bytes(fd: &OwnedFd, room: &mut [u8]) -> Option<usize> {
    let mut info = libbpf_sys::bpf_btf_info {
        btf: if room.is_empty() { 0 } else { room.as_mut_ptr().cast::<c_void>() as u64 },
        btf_size: u32::try_from(room.len()).ok()?,
        ..Default::default()
    };
    let mut info_bytes = u32::try_from(size_of::<libbpf_sys::bpf_btf_info>()).ok()?;
    // SAFETY: `info` has `info_bytes` bytes, and says where and how large `room` is; both outlive the call.
    let status =
        unsafe { libbpf_sys::bpf_btf_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut info_bytes) };
    (status == 0).then_some(info.btf_size as usize)
}
