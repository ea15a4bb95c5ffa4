//! Why state is not made or taken over.

use std::fs;

use weir_kernel::{Datapath, Options, PinDirectory, PinError};
use weir_testkit::{Namespace, require_root};

use crate::host::{Host, OPTIONS, methods};

fn error(pins: &PinDirectory) -> PinError {
    Datapath::pinned(&OPTIONS, pins).err().unwrap()
}

#[test]
fn root_a_file_system_to_write_to_is_needed() {
    require_root!();
    let host = Host::new();
    assert!(matches!(error(&PinDirectory::new("/proc")), PinError::NotMounted { .. }));
    assert!(matches!(error(&PinDirectory::new("/nowhere")), PinError::NotMounted { .. }));
    host.bpffs.make_read_only();
    assert!(matches!(error(&host.pins()), PinError::ReadOnly { .. }));
}

#[test]
fn root_another_version_is_named() {
    require_root!();
    let host = Host::new();
    fs::create_dir_all(host.pins().path().join("v99999")).unwrap();
    assert!(host.pins().exists());
    match error(&host.pins()) {
        PinError::OtherVersion { found, .. } => assert_eq!(found, "99999"),
        other => panic!("{other}"),
    }
    weir_kernel::attach::remove_pinned(&host.pins(), false).unwrap();
    Datapath::pinned(&OPTIONS, &host.pins()).unwrap();
}

#[test]
fn root_a_map_of_another_size_is_named() {
    require_root!();
    let host = Host::new();
    let datapath = Datapath::pinned(&OPTIONS, &host.pins()).unwrap();
    assert_eq!(host.pins().max_flows(), Some(64));
    drop(datapath);
    match Datapath::pinned(&Options { max_flows: 65, ..OPTIONS }, &host.pins()) {
        Err(PinError::OtherTableSize { found: 64, wanted: 65, .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken over"),
    }

    // One map in another's place.
    let maps = host.pins().state().join("maps");
    fs::rename(maps.join("tallies"), maps.join("fragments")).unwrap();
    match error(&host.pins()) {
        PinError::OtherMap { map, .. } => assert_eq!(map, "fragments"),
        other => panic!("{other}"),
    }
}

/// What was begun and never finished is begun anew.
#[test]
fn root_half_made_state_is_no_state() {
    require_root!();
    let host = Host::new();
    let half = host.pins().path().join("new").join("maps");
    fs::create_dir_all(&half).unwrap();
    assert!(!host.pins().exists());
    Datapath::pinned(&OPTIONS, &host.pins()).unwrap();
    assert!(host.pins().exists() && !half.exists());
}

/// Interfaces have numbers, and those are per network namespace.
#[test]
fn root_another_network_namespace_is_refused() {
    require_root!();
    let host = Host::new();
    let method = methods()[0];
    if method == weir_kernel::attach::Method::Clsact {
        return; // filters have no file that would tell
    }
    drop(host.own(method));
    let elsewhere = Namespace::new("elsewhere");
    let refused = elsewhere.enter(|| {
        let mut datapath = Datapath::pinned(&OPTIONS, &host.pins()).unwrap();
        weir_kernel::attach::Attacher::of(method, &mut datapath).err().unwrap()
    });
    assert!(matches!(refused, PinError::OtherNamespace { .. }), "{refused}");
}
