//! Another version of weir, as far as its state goes: programs with other code, or with other layouts of the tables.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ObjectBuilder};

use crate::{Namespace, tc};

/// `v4` of `BPFFS/weir/v4`, for the other layouts.
const OTHER_VERSION: &str = "v99";

/// Programs of another version, in the place of those of a weir that was killed. They stay when this is dropped.
#[derive(Debug)]
pub struct OtherVersion {
    programs: Object,
}

impl OtherVersion {
    /// Programs with other code, for the same tables. Panics if there is no state, or somebody owns it.
    #[track_caller]
    #[must_use]
    pub fn of_programs(bpffs: &Path, host: &Namespace) -> Self {
        let state = state(bpffs);
        let object = include_bytes!(concat!(env!("OUT_DIR"), "/other_programs.bpf.o"));
        let programs = load(object, &state, &[]);
        replace(&programs, &state, host);
        Self { programs }
    }

    /// Programs with tables of other layouts, which are empty: the state is that of another version from now on, with
    /// the same rules. Panics if there is no state, or somebody owns it.
    #[track_caller]
    #[must_use]
    pub fn of_layouts(bpffs: &Path, host: &Namespace) -> Self {
        let state = state(bpffs);
        let object = include_bytes!(concat!(env!("OUT_DIR"), "/other_layouts.bpf.o"));
        const OWN: [&str; 2] = ["flows", "translations"];
        let mut programs = load(object, &state, &OWN);
        for mut map in programs.maps_mut() {
            let path = state.join("maps").join(map.name());
            if OWN.iter().any(|own| map.name() == *own) {
                fs::remove_file(&path).expect("a pinned map goes");
                map.pin(&path).expect("a map is pinned");
            }
        }
        replace(&programs, &state, host);
        fs::rename(&state, state.with_file_name(OTHER_VERSION)).expect("a folder of bpffs gets another name");
        Self { programs }
    }

    /// How many packets these programs have seen.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let map = self.programs.maps().find(|map| map.name() == "of_other_version").expect("its own map");
        let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).expect("a map is read");
        u64::from_ne_bytes(value.expect("an array's element").try_into().expect("8 bytes"))
    }
}

fn state(bpffs: &Path) -> PathBuf {
    let versions = fs::read_dir(bpffs.join("weir")).expect("a weir was here").flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path()).collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
    versions.remove(0)
}

/// Loads programs for the maps that are there, but for those of these names.
fn load(object: &[u8], state: &Path, own: &[&str]) -> Object {
    let mut open = ObjectBuilder::default().open_memory(object).expect("an object file");
    for mut map in open.maps_mut() {
        let path = state.join("maps").join(map.name());
        let Ok(there) = MapHandle::from_pinned_path(&path) else { continue };
        match own.iter().any(|own| map.name() == *own) {
            true => map.set_max_entries(there.max_entries()).expect("a map's size"),
            false => map.reuse_fd(there.as_fd()).expect("a pinned map is used"),
        }
    }
    open.load().expect("the kernel takes the programs")
}

/// Has every link, and every filter in this network namespace, run the program whose name it has.
fn replace(programs: &Object, state: &Path, host: &Namespace) {
    let named = |name: &str| {
        let program = programs.progs().find(|program| program.name() == name)?;
        Some(program.as_fd().as_raw_fd())
    };
    tc::replace_programs(host, named);
    for namespace in fs::read_dir(state.join("links")).expect("links").flatten() {
        for file in fs::read_dir(namespace.path()).expect("links").flatten() {
            let name = file.file_name().into_string().expect("a name");
            let (_, name) = name.split_once('-').expect("INTERFACE-PROGRAM");
            let program = named(name).expect("a program");
            let mut link = Link::open(file.path()).expect("a pinned link");
            // SAFETY: both descriptors are open; there are no options.
            let status = unsafe {
                libbpf_rs::libbpf_sys::bpf_link_update(link.as_fd().as_raw_fd(), program, std::ptr::null())
            };
            assert_eq!(status, 0, "{name}: {}", std::io::Error::last_os_error());
            // Dropping it must not take the program off.
            link.disconnect();
        }
    }
}
