//! BPF maps of other processes.

use std::fs;

use libbpf_rs::{MapCore, MapHandle};

/// Whether a map of this name that the process `id` has open has an entry.
#[must_use]
pub fn map_has_entries(id: u32, name: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{id}/fdinfo")) else { return false };
    let texts = descriptors.flatten().filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok());
    let map = |text: String| {
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"))?;
        MapHandle::from_map_id(id.trim().parse().ok()?).ok()
    };
    texts.filter_map(map).any(|map| map.name() == name && map.keys().next().is_some())
}
