//! State of another version: its connections and what was counted of them are carried over.

use std::fs;

use weir_core::flow::{FlowEntry, FlowKey};
use weir_kernel::attach::{Method, remove_pinned};
use weir_kernel::{Datapath, Options, PinError};
use weir_testkit::{OtherVersion, require_root};

use crate::host::{Host, OPTIONS, Owner, methods};

/// Packets of all pings, each way: as they set out, and as they arrived.
fn pinged(owner: &Owner) -> [[u64; 2]; 2] {
    let mut sums = [[0; 2]; 2];
    let count = |key: FlowKey, entry: FlowEntry| {
        for (sum, direction) in sums.iter_mut().zip(&entry.directions).filter(|_| key.protocol.0 == 1) {
            for (sum, point) in sum.iter_mut().zip(&direction.points) {
                *sum += point.counters.packets;
            }
        }
    };
    owner.datapath.flow_table().unwrap().visit(count).unwrap();
    sums
}

fn versions(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.pins().path()).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn root_programs_with_other_code_are_replaced() {
    require_root!();
    methods().into_iter().for_each(programs_with_other_code_are_replaced);
}

fn programs_with_other_code_are_replaced(method: Method) {
    let host = Host::new();
    host.leave(method);
    let other = OtherVersion::of_programs(host.bpffs.path(), host.topology.host());
    host.ping(3);
    assert!(other.packets() >= 12, "two hooks at both ends");
    let owner = host.own(method);
    let seen = other.packets();
    host.ping(2);
    assert_eq!(other.packets(), seen, "they run no more");
    assert_eq!(pinged(&owner), [[5, 5]; 2]);
}

#[test]
fn root_tables_with_other_layouts_are_carried_over() {
    require_root!();
    methods().into_iter().for_each(tables_with_other_layouts_are_carried_over);
}

fn tables_with_other_layouts_are_carried_over(method: Method) {
    let host = Host::new();
    host.leave(method);
    let left = host.programs();
    let other = OtherVersion::of_layouts(host.bpffs.path(), host.topology.host());
    assert_eq!(versions(&host), ["v99"]);
    assert!(host.pins().is_of_another_version());
    assert_eq!(host.pins().max_flows(), Some(64));
    host.ping(3);
    assert!(other.packets() >= 12);

    let refused = Datapath::pinned(&Options { max_flows: 65, ..OPTIONS }, &host.pins()).err().unwrap();
    assert!(matches!(refused, PinError::OtherTableSize { found: 64, wanted: 65, .. }), "{refused}");
    // One that ends before its programs are in place has changed nothing.
    drop(Datapath::pinned(&OPTIONS, &host.pins()).unwrap());
    host.ping(1);

    let owner = host.own(method);
    let seen = other.packets();
    host.ping(2);
    assert_eq!(other.packets(), seen, "they run no more");
    assert_eq!(pinged(&owner), [[6, 6]; 2]);
    assert!(!host.pins().is_of_another_version());
    assert_eq!(versions(&host).len(), 1);
    let now = host.programs();
    assert_eq!((now.len(), left.len()), (4, 4), "replaced, not added");
    drop(owner);
    assert_eq!(host.programs(), now, "an owner that ends leaves them");
    // And like any state it is taken over once more.
    assert_eq!(pinged(&host.own(method)), [[6, 6]; 2]);
}

/// One ping after another while the state goes from one version to another, again and again. (The other
/// version's tables are empty at its beginning.)
#[test]
fn root_no_packet_is_missed_while_the_version_changes() {
    require_root!();
    methods().into_iter().for_each(no_packet_is_missed_while_the_version_changes);
}

fn no_packet_is_missed_while_the_version_changes(method: Method) {
    let host = Host::new();
    host.leave(method);
    for _ in 0..5 {
        let _other = OtherVersion::of_layouts(host.bpffs.path(), host.topology.host());
        let pinging = host.start_pinging();
        let owner = host.own(method);
        let sent = pinging.finish();
        assert_eq!(pinged(&owner), [[sent, sent]; 2]);
    }
}

/// A version whose tables happen to be laid out as this one's: what matters here is what runs at the interfaces.
#[test]
fn root_links_and_filters_go_from_one_version_to_another() {
    require_root!();
    for method in methods() {
        let host = Host::new();
        host.leave(method);
        let left = host.programs();
        host.ping(3);
        fs::rename(host.pins().state(), host.pins().path().join("v99")).unwrap();
        let owner = host.own(method);
        let now = host.programs();
        assert_eq!(now.len(), 4, "{method}: replaced, not added");
        assert!(now.iter().all(|program| !left.contains(program)), "{method}: {left:?} {now:?}");
        host.ping(2);
        assert_eq!(pinged(&owner), [[5, 5]; 2], "{method}");
        assert_eq!(versions(&host).len(), 1, "{method}");
        drop(owner);
        let removal = host.topology.host().enter(|| remove_pinned(&host.pins(), false).unwrap());
        assert_eq!((removal.removed.len(), host.programs().len()), (4, 0), "{method}");
    }
}
