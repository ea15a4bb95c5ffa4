//! The table while nobody keeps it.

use weir_core::flow::{FlowEntry, FlowKey, FlowState};
use weir_core::loss::TallyReason;
use weir_kernel::monotonic_now_ns;
use weir_testkit::traffic::{EchoServer, tcp_echo};
use weir_testkit::{require_root, wait_until};

use crate::host::{Host, LIMIT, Owner, methods};

/// Entries of TCP in the table, and how many of them have ended.
fn entries(owner: &Owner) -> (usize, usize) {
    let (mut all, mut ended) = (0, 0);
    visit(owner, |key, entry| {
        all += usize::from(key.protocol.0 == 6);
        ended += usize::from(key.protocol.0 == 6 && entry.state >= FlowState::Closed);
    });
    (all, ended)
}

/// The last packet of all.
fn newest_ns(owner: &Owner) -> u64 {
    let mut newest_ns = 0;
    visit(owner, |_, entry| newest_ns = newest_ns.max(entry.last_ns));
    newest_ns
}

fn visit(owner: &Owner, visit: impl FnMut(FlowKey, FlowEntry)) {
    owner.datapath.flow_table().unwrap().visit(visit).unwrap();
}

fn refused(owner: &Owner) -> u64 {
    let tallies = owner.datapath.flow_table().unwrap().tallies().unwrap();
    let full = tallies.iter().filter(|((_, reason), _)| *reason == TallyReason::TableFull);
    full.map(|(_, counters)| counters.packets).sum()
}

/// Four times as many connections as the table has room for, and never more than a quarter of it at once: without a
/// keeper the programs clear it, with one that does nothing it fills up.
#[test]
fn root_programs_clear_the_table_when_nobody_does() {
    require_root!();
    let host = Host::new();
    let mut owner = host.own(methods()[0]);
    let server =
        EchoServer::tcp(host.topology.container("db").namespace(), host.topology.container("db").ipv4());
    let web = host.topology.container("web").namespace();
    owner.datapath.stop_keeping();
    for _ in 0..16 {
        tcp_echo(web, server.address(), 16, 100);
        // What ended must have been quiet for a second before its place is given away.
        let ended_ns = newest_ns(&owner);
        wait_until(LIMIT, "a second of quiet", || monotonic_now_ns() > ended_ns + 1_000_000_000);
    }
    let (all, ended) = entries(&owner);
    assert_eq!(refused(&owner), 0);
    assert!(all <= 64 && ended > 0, "{all} entries, {ended} have ended");

    // With a keeper they leave it alone.
    owner.datapath.keep();
    tcp_echo(web, server.address(), 64, 100);
    assert!(refused(&owner) > 0, "{:?}", entries(&owner));
}
