//! Who comes after an owner that was killed.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_core::flow::Counters;
use weir_kernel::Options;
use weir_kernel::attach::{AttachError, Owner, remove_ours, remove_pinned, survey_all};
use weir_testkit::tc::{self, CountingProgram, Hook};
use weir_testkit::{require_root, wait_until};

use crate::host::{Host, LIMIT, OPTIONS, methods};

/// Packets of a ping from web to db and back, at the hook that counts each direction.
fn counted(owner: &crate::host::Owner) -> [u64; 2] {
    owner.pings().directions.each_ref().map(|direction| {
        let Counters { packets, .. } = direction.points[0].counters;
        packets
    })
}

#[test]
fn root_programs_go_on_without_a_process() {
    require_root!();
    for method in methods() {
        let host = Host::new();
        host.leave(method);
        let left = host.programs();
        assert_eq!(left.len(), 4, "{method}");
        assert!(!host.pins().is_owned());
        host.ping(3);

        // The next owner finds what was counted, and counts on with programs of its own.
        let owner = host.own(method);
        assert!(host.pins().is_owned());
        assert_eq!(counted(&owner), [3, 3], "{method}");
        let now = host.programs();
        assert_eq!(now.len(), 4, "{method}: replaced, not added");
        assert!(now.iter().all(|program| !left.contains(program)), "{method}: {left:?} {now:?}");
        drop(owner);
        assert_eq!(host.programs(), now, "{method}: an owner that ends leaves them");

        let removal = host.topology.host().enter(|| remove_pinned(&host.pins(), false).unwrap());
        assert_eq!(removal.removed.len(), 4, "{method}");
        assert!(removal.state_removed && !removal.state_left);
        assert_eq!(host.programs(), [], "{method}");
        assert_eq!(host.files(), Vec::<std::path::PathBuf>::new(), "{method}");
        assert!(!tc::has_clsact(host.topology.host(), "veth-web"), "{method}");
    }
}

/// One ping after another while the state changes hands: each packet is counted, and in one flow.
#[test]
fn root_no_packet_is_missed_while_the_state_changes_hands() {
    require_root!();
    for method in methods() {
        let host = Host::new();
        host.leave(method);
        let pinging = host.start_pinging();
        for _ in 0..6 {
            drop(host.own(method));
        }
        let sent = pinging.finish();
        assert_eq!(counted(&host.own(method)), [sent, sent], "{method}");
    }
}

#[test]
fn root_there_is_one_owner_at_a_time() {
    require_root!();
    let host = Host::new();
    let method = methods()[0];
    let mut process = host.owning_process(method);
    let refused = weir_kernel::Datapath::pinned(&OPTIONS, &host.pins()).err().unwrap();
    assert!(matches!(refused, weir_kernel::PinError::InUse { .. }), "{refused}");

    // Nor does `weir down` touch what is in use, unless it must.
    let removal = host.topology.host().enter(|| remove_pinned(&host.pins(), false).unwrap());
    assert!(removal.state_left && !removal.state_removed && removal.removed.is_empty());
    assert_eq!(host.programs().len(), 4);
    let removal = host.topology.host().enter(|| remove_pinned(&host.pins(), true).unwrap());
    assert!(removal.state_removed);
    assert_eq!(host.programs(), []);
    assert!(process.is_running());
    process.stop(libc::SIGKILL, LIMIT);
    drop(host.own(method));
}

/// Many at once where there was nothing: one makes it, the others take it over, one after the other.
#[test]
fn root_it_is_made_once() {
    require_root!();
    let host = Host::new();
    let method = methods()[0];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let deadline = std::time::Instant::now() + LIMIT;
                loop {
                    match weir_kernel::Datapath::pinned(&OPTIONS, &host.pins()) {
                        Ok(datapath) => return drop(datapath),
                        Err(weir_kernel::PinError::InUse { .. }) if std::time::Instant::now() < deadline => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let maps = host.files().len();
    drop(host.own(method));
    assert_eq!(host.files().iter().filter(|path| path.parent().unwrap().ends_with("maps")).count(), maps);
}

#[test]
fn root_programs_of_others_stay() {
    require_root!();
    for method in methods() {
        let host = Host::new();
        let namespace = host.topology.host();
        let other = CountingProgram::load();
        namespace.run("tc", &["qdisc", "add", "dev", "veth-web", "clsact"]);
        other.attach_filter(namespace, "veth-web", Hook::Ingress, 9);
        let before = host.programs();
        host.leave(method);
        drop(host.own(method));
        assert_eq!(host.programs().len(), 5, "{method}");
        let others = namespace.enter(|| survey_all(&host.pins()).unwrap());
        assert_eq!(others.iter().filter(|program| program.owner == Owner::Pinned).count(), 4, "{method}");
        assert_eq!(others.iter().filter(|program| program.owner == Owner::Other).count(), 1, "{method}");
        let seen = other.packets();
        host.ping(2);
        assert!(other.packets() >= seen + 2);
        // Which is what `weir down` does not call left over either.
        let removal = namespace.enter(|| remove_ours(true, &host.pins()).unwrap());
        assert!(removal.removed.is_empty() && removal.left.is_empty(), "{method}: {removal:?}");
        namespace.enter(|| remove_pinned(&host.pins(), false).unwrap());
        assert_eq!(host.programs(), before, "{method}");
        assert!(tc::has_clsact(namespace, "veth-web"), "{method}: it was not weir's");
    }
}

#[test]
fn root_pins_of_interfaces_that_are_gone_are_removed() {
    require_root!();
    let mut host = Host::new();
    let method = methods()[0];
    let owner = host.own(method);
    let all = host.files().len();
    host.topology.add_container("late");
    let attachment = owner.attach(&host, "veth-late", true).unwrap();
    let with_late = host.files().len();
    host.topology.remove_container("late");
    // The owner hears of it by netlink, and drops what it held there.
    drop(attachment);
    wait_until(LIMIT, "the pins are gone", || host.files().len() == all);
    assert!(with_late >= all);

    // With nobody to hear of it, the next owner finds out.
    drop(owner);
    host.topology.remove_container("db");
    host.topology.add_container("db");
    let owner = host.own(method);
    assert_eq!(host.files().len(), all);
    assert_eq!(host.programs().len(), 4);
    drop(owner);
}

/// What was told before a takeover is not told again.
#[test]
fn root_events_of_the_past_are_not_told() {
    require_root!();
    let host = Host::new();
    let method = methods()[0];
    host.leave(method);
    host.ping(1);
    let mut owner = host.own(method);
    let (sender, events) = std::sync::mpsc::channel();
    owner.datapath.start_reader(move |batch| drop(sender.send(batch))).unwrap();
    weir_testkit::traffic::ping(
        host.topology.container("db").namespace(),
        host.topology.container("web").ipv4(),
        1,
        56,
    );
    let batch = events.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(batch.len(), 1, "{batch:?}");
}

/// The first owner has no programs for such devices, the second one loads them for the same maps, and the third one
/// finds them at work.
#[test]
fn root_programs_for_devices_without_ethernet_come_when_they_are_asked_for() {
    require_root!();
    for method in methods() {
        let mut host = Host::new();
        host.topology.add_container("late");
        let attached = |host: &Host| {
            let found = host.topology.host().enter(|| survey_all(&host.pins()).unwrap());
            let programs = found.into_iter().filter(|program| program.owner == Owner::Pinned);
            programs.map(|program| (program.name, program.program_id)).collect::<BTreeMap<_, _>>()
        };
        let owner = host.own(method);
        let refused = owner.attach(&host, "veth-late", false).unwrap_err();
        assert!(matches!(refused, AttachError::WithoutEthernet { .. }), "{method}: {refused}");
        host.ping(1);
        drop(owner);

        let owner = host.own_with(&Options { without_ethernet: true, ..OPTIONS }, method);
        owner.attach(&host, "veth-late", false).unwrap();
        drop(owner);
        let left = attached(&host);
        let names: Vec<_> = left.keys().map(String::as_str).collect();
        assert_eq!(names, ["weir_egress", "weir_egress_ip", "weir_ingress", "weir_ingress_ip"], "{method}");

        let owner = host.own(method);
        let now = attached(&host);
        assert!(
            left.iter().all(|(name, id)| now.get(name).is_some_and(|now| now != id)),
            "{method}: {now:?}"
        );
        assert_eq!(counted(&owner), [1, 1], "{method}");
    }
}
