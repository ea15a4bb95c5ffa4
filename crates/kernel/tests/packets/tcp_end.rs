//! TCP at its end, and after it: closes are told once, and a key that is used again begins anew.

use weir_core::event::{Event, FlowClosed};
use weir_core::flow::FlowState;
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, B};
use crate::lab::{At, BACK_FIRST, BACK_SECOND, FIRST, Lab, SECOND};
use crate::tcp::{Connection, from_client};

/// The closes among the events so far.
fn closes(lab: &mut Lab) -> Vec<FlowClosed> {
    lab.events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Close(close) => Some(close),
            _ => None,
        })
        .collect()
}

#[track_caller]
fn assert_told_once(lab: &mut Lab, at: At, state: FlowState) {
    let hook = lab.hook(at);
    let told: Vec<_> =
        closes(lab).iter().map(|close| (close.seen.hook, close.state, close.incarnation)).collect();
    assert_eq!(told, [(hook, state, 0)]);
}

#[test]
fn root_both_ends_finish() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        tcp.client("PA", 1001, 1001, 10);
        tcp.server("PA", 1001, 1011, 20);
        tcp.client("FA", 1011, 1021, 0);
        assert_eq!(tcp.state(), FlowState::Closing);
        tcp.server("FA", 1021, 1012, 0);
        assert_eq!(tcp.state(), FlowState::Closing);
        assert!(closes(tcp.lab).is_empty());
        tcp.client("A", 1012, 1022, 0);
        assert_eq!(tcp.state(), FlowState::Closed);
        // What comes after the end is counted, and told no more.
        tcp.server("FA", 1021, 1012, 0);
        tcp.client("A", 1012, 1022, 0);
        tcp.server("R", 1022, 0, 0);
        assert_eq!((tcp.state(), tcp.entry().resets), (FlowState::Closed, 1));
        assert_told_once(tcp.lab, FIRST, FlowState::Closed);
    });
}

#[test]
fn root_one_end_goes_on_sending() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        tcp.client("FA", 1001, 1001, 0);
        tcp.server("A", 1001, 1002, 0);
        for part in 0..10 {
            tcp.server("A", 1001 + part * 100, 1002, 100);
            tcp.client("A", 1002, 1101 + part * 100, 0);
            assert_eq!(tcp.state(), FlowState::Closing);
        }
        tcp.server("FA", 2001, 1002, 0);
        // Not of the FIN yet.
        tcp.client("A", 1002, 2001, 0);
        assert_eq!(tcp.state(), FlowState::Closing);
        tcp.client("A", 1002, 2002, 0);
        assert_eq!(tcp.state(), FlowState::Closed);
        assert_told_once(tcp.lab, FIRST, FlowState::Closed);
    });
}

#[test]
fn root_both_ends_finish_at_once() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        tcp.client("FA", 1001, 1001, 0);
        tcp.server("FA", 1001, 1001, 0);
        tcp.client("A", 1002, 1002, 0);
        assert_eq!(tcp.state(), FlowState::Closing);
        tcp.server("A", 1002, 1002, 0);
        assert_eq!(tcp.state(), FlowState::Closed);
        assert_told_once(tcp.lab, BACK_FIRST, FlowState::Closed);
    });
}

/// A FIN with the last bytes, lost and sent again.
#[test]
fn root_a_repeated_fin_with_data() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        tcp.client("FPA", 1001, 1001, 50);
        tcp.client("FPA", 1001, 1001, 50);
        assert_eq!(tcp.of_client().retransmits, 1);
        tcp.server("FA", 1001, 1051, 0); // acknowledges the data only
        tcp.client("A", 1052, 1002, 0);
        assert_eq!(tcp.state(), FlowState::Closing);
        tcp.server("A", 1002, 1052, 0);
        assert_eq!(tcp.state(), FlowState::Closed);
    });
}

#[test]
fn root_a_connection_is_refused() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.client("S", 1000, 0, 0);
        tcp.server("RA", 0, 1001, 0);
        let entry = tcp.entry();
        assert_eq!((entry.state, entry.resets, entry.rtt_us), (FlowState::Reset, 1, None));
        assert_told_once(tcp.lab, BACK_FIRST, FlowState::Reset);
    });
}

#[test]
fn root_a_connection_is_torn() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        tcp.client("FA", 1001, 1001, 0);
        tcp.client("R", 1002, 0, 0);
        tcp.server("R", 1001, 0, 0);
        assert_eq!((tcp.state(), tcp.entry().resets), (FlowState::Reset, 2));
        assert_told_once(tcp.lab, FIRST, FlowState::Reset);
    });
}

/// The rest of a connection that nobody knows: it opens, and is over.
#[test]
fn root_a_rst_out_of_nowhere() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.server("R", 5000, 0, 0);
        let entry = tcp.entry();
        assert_eq!((entry.state, entry.midstream, entry.resets), (FlowState::Reset, true, 1));
        let events = tcp.lab.events();
        assert!(matches!(events.as_slice(), [Event::Open(_), Event::Close(_)]), "{events:?}");
    });
}

/// Counters only grow: the event that begins the new connection has what the old one left.
#[test]
fn root_a_closed_connection_begins_again() {
    require_root!();
    Lab::plain(|lab| {
        let mut tcp = Connection::new(lab);
        tcp.open();
        tcp.client("A", 1001, 1001, 10);
        tcp.client("A", 1001, 1001, 10);
        tcp.server("R", 1001, 0, 0);
        let before = tcp.entry();
        assert_eq!(before.state, FlowState::Reset);
        tcp.lab.events();

        tcp.client("S", 900_000, 0, 0);
        let events = tcp.lab.events();
        let [Event::Reopen(open, old)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(**old, before);
        assert_eq!((open.incarnation, open.state, open.tcp_flags), (1, FlowState::New, 0x02));
        let after = tcp.entry();
        assert_eq!((after.incarnation, after.state, after.midstream), (1, FlowState::New, false));
        assert_eq!((after.rtt_us, after.resets), (None, before.resets));
        assert_eq!(after.first_ns, open.seen.time_ns);
        assert!(after.first_ns > before.first_ns);
        let counted = tcp.of_client().points[0].counters;
        let length = from_client("S", 900_000, 0, 0).build().len() as u64;
        let base = before.directions[open.source.index()].points[0].counters;
        assert_eq!((counted.since(base).packets, counted.since(base).bytes), (1, length));
        assert_eq!((tcp.of_client().tcp_flags, tcp.of_server().tcp_flags), (0x02, 0));
        assert_eq!(tcp.of_client().retransmits, 1, "a new sequence is no retransmission");

        tcp.server("SA", 1000, 900_001, 0);
        tcp.client("A", 900_001, 1001, 0);
        assert!(tcp.entry().rtt_us.is_some());
        tcp.server("R", 1001, 0, 0);
        let told = closes(tcp.lab);
        assert_eq!((told.len(), told[0].incarnation), (1, 1));
        tcp.forget();
    });
}

/// A container that was started again has another veth.
#[test]
fn root_the_new_connection_may_be_at_other_hooks() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        let syn = Frame::between(A, B).tcp(40000, 80, "S").build();
        for at in [FIRST, SECOND] {
            tcp.lab.run(at, &syn);
        }
        tcp.server("RA", 0, 1001, 0);
        for at in [BACK_SECOND, SECOND] {
            tcp.lab.run(at, &syn);
        }
        let hooks: Vec<_> = tcp.of_client().points.iter().map(|point| point.hook.unwrap()).collect();
        assert_eq!(hooks, [tcp.lab.hook(BACK_SECOND), tcp.lab.hook(SECOND)]);
        assert_eq!(tcp.entry().incarnation, 1);
        assert!(tcp.lab.tallies().is_empty());
    });
}

/// Only a SYN begins a connection: neither stragglers nor a SYN among the living do.
#[test]
fn root_nothing_else_begins_again() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        tcp.client("S", 77_000, 0, 0);
        assert_eq!((tcp.entry().incarnation, tcp.state()), (0, FlowState::Established));
        tcp.server("R", 1001, 0, 0);
        for flags in ["A", "SA", "FA", "R", "PA"] {
            tcp.client(flags, 1001, 1001, 0);
            tcp.server(flags, 1001, 1001, 0);
        }
        assert_eq!((tcp.entry().incarnation, tcp.state()), (0, FlowState::Reset));
    });
}
