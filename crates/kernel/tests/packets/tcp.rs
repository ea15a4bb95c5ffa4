//! TCP while it lives: how a connection begins, and what its segments say of the way.

use weir_core::event::Event;
use weir_core::flow::{DirectionEntry, FlowEntry, FlowKey, FlowState, Side};
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, B, key};
use crate::lab::{BACK_FIRST, FIRST, Lab};

/// A connection from `A` to `B`; each end's first hook is the one that counts it.
pub(crate) struct Connection<'lab> {
    pub(crate) lab: &'lab mut Lab,
    key: FlowKey,
    client: Side,
}

impl<'lab> Connection<'lab> {
    pub(crate) fn new(lab: &'lab mut Lab) -> Self {
        let (key, client) = key(6, (A, 40000), (B, 80));
        Self { lab, key, client }
    }

    /// The client sends `length` bytes. Both ends begin at sequence number 1000.
    #[track_caller]
    pub(crate) fn client(&self, flags: &str, seq: u32, ack: u32, length: usize) {
        self.lab.run(FIRST, &from_client(flags, seq, ack, length).build());
    }

    #[track_caller]
    pub(crate) fn server(&self, flags: &str, seq: u32, ack: u32, length: usize) {
        self.lab.run(BACK_FIRST, &from_server(flags, seq, ack, length).build());
    }

    /// Until both may send.
    #[track_caller]
    pub(crate) fn open(&self) {
        self.client("S", 1000, 0, 0);
        self.server("SA", 1000, 1001, 0);
        self.client("A", 1001, 1001, 0);
    }

    #[track_caller]
    pub(crate) fn entry(&self) -> FlowEntry {
        self.lab.flow(&self.key)
    }

    #[track_caller]
    pub(crate) fn state(&self) -> FlowState {
        self.entry().state
    }

    #[track_caller]
    pub(crate) fn of_client(&self) -> DirectionEntry {
        self.entry().directions[self.client.index()]
    }

    #[track_caller]
    pub(crate) fn of_server(&self) -> DirectionEntry {
        self.entry().directions[self.client.other().index()]
    }

    /// Takes it out of the table, as if it had never been.
    pub(crate) fn forget(&mut self) {
        self.lab.clear();
        self.lab.events();
    }
}

pub(crate) fn from_client(flags: &str, seq: u32, ack: u32, length: usize) -> Frame {
    Frame::between(A, B).tcp(40000, 80, flags).seq(seq).ack(ack).payload(&vec![7; length])
}

pub(crate) fn from_server(flags: &str, seq: u32, ack: u32, length: usize) -> Frame {
    Frame::between(B, A).tcp(80, 40000, flags).seq(seq).ack(ack).payload(&vec![7; length])
}

#[test]
fn root_a_handshake_gives_a_round_trip() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.client("S", 1000, 0, 0);
        assert_eq!(tcp.state(), FlowState::New);
        tcp.server("SA", 1000, 1001, 0);
        assert_eq!((tcp.state(), tcp.entry().rtt_us), (FlowState::New, None));
        tcp.client("A", 1001, 1001, 0);
        let entry = tcp.entry();
        assert_eq!(entry.state, FlowState::Established);
        assert_eq!((entry.initiator, entry.midstream), (tcp.client, false));
        // Three runs of a program, and looks at the table between them.
        let rtt_us = entry.rtt_us.unwrap();
        assert!(rtt_us > 0 && rtt_us < 10_000_000, "{rtt_us}");
        assert_eq!((tcp.of_client().tcp_flags, tcp.of_server().tcp_flags), (0x12, 0x12));

        // What follows changes nothing of it.
        tcp.client("PA", 1001, 1001, 100);
        tcp.server("A", 1001, 1101, 500);
        assert_eq!((tcp.entry().rtt_us, tcp.state()), (Some(rtt_us), FlowState::Established));
        let events = tcp.lab.events();
        let [Event::Open(open)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((open.state, open.initiator, open.source), (FlowState::New, tcp.client, tcp.client));
        assert_eq!((open.tcp_flags, open.midstream), (0x02, false));
    });
}

/// Karn: which of two was answered cannot be told.
#[test]
fn root_a_repeated_handshake_gives_none() {
    require_root!();
    Lab::plain(|lab| {
        let mut tcp = Connection::new(lab);
        tcp.client("S", 1000, 0, 0);
        tcp.client("S", 1000, 0, 0);
        tcp.server("SA", 1000, 1001, 0);
        tcp.client("A", 1001, 1001, 0);
        assert_eq!((tcp.entry().rtt_us, tcp.state()), (None, FlowState::Established));
        assert_eq!(tcp.of_client().retransmits, 1);

        tcp.forget();
        tcp.client("S", 1000, 0, 0);
        tcp.server("SA", 1000, 1001, 0);
        tcp.server("SA", 1000, 1001, 0);
        tcp.client("A", 1001, 1001, 0);
        assert_eq!((tcp.entry().rtt_us, tcp.state()), (None, FlowState::Established));
        assert_eq!(tcp.of_server().retransmits, 1);
    });
}

/// Both open at once (RFC 9293, 3.5): one connection, and no round trip that means anything.
#[test]
fn root_a_simultaneous_open() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.client("S", 1000, 0, 0);
        tcp.server("S", 1000, 0, 0);
        tcp.client("SA", 1000, 1001, 0);
        tcp.server("SA", 1000, 1001, 0);
        tcp.client("A", 1001, 1001, 10);
        assert_eq!((tcp.state(), tcp.entry().rtt_us), (FlowState::Established, None));
        assert_eq!(tcp.entry().initiator, tcp.client);
        assert_eq!(tcp.lab.events().len(), 1);
    });
}

#[test]
fn root_a_connection_that_is_under_way() {
    require_root!();
    Lab::plain(|lab| {
        let mut tcp = Connection::new(lab);
        // Whoever is seen first: the lower port listens.
        for server_first in [false, true] {
            if server_first {
                tcp.server("A", 1000, 1000, 100);
            } else {
                tcp.client("A", 1000, 1000, 100);
            }
            let entry = tcp.entry();
            assert_eq!((entry.state, entry.midstream), (FlowState::Established, true));
            assert_eq!((entry.initiator, entry.rtt_us), (tcp.client, None));
            tcp.forget();
        }
        // Its second segment tells who opened it, whatever the ports.
        tcp.lab.run(FIRST, &Frame::between(A, B).tcp(80, 40000, "SA").build());
        tcp.lab.run(BACK_FIRST, &Frame::between(B, A).tcp(40000, 80, "A").seq(1001).build());
        let (key, from_a) = key(6, (A, 80), (B, 40000));
        let entry = tcp.lab.flow(&key);
        assert_eq!((entry.state, entry.midstream), (FlowState::Established, true));
        assert_eq!((entry.initiator, entry.rtt_us), (from_a.other(), None));
    });
}

#[test]
fn root_segments_that_come_again() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        tcp.client("A", 1001, 1001, 100);
        tcp.client("A", 1101, 1001, 100);
        assert_eq!(tcp.of_client().retransmits, 0);
        tcp.client("A", 1001, 1001, 100); // again
        tcp.client("A", 1150, 1001, 50); // a part of one, again
        assert_eq!(tcp.of_client().retransmits, 2);
        tcp.client("A", 1150, 1001, 100); // half of it is new
        tcp.client("A", 1300, 1001, 100); // one was lost, or is late
        assert_eq!(tcp.of_client().retransmits, 2);
        tcp.client("A", 1250, 1001, 50); // here it comes
        assert_eq!(tcp.of_client().retransmits, 3);
        tcp.client("A", 1399, 1001, 0); // a keepalive without data
        tcp.client("A", 1400, 1001, 0);
        assert_eq!(tcp.of_client().retransmits, 3);
        assert_eq!(tcp.of_server().retransmits, 0);
    });
}

#[test]
fn root_sequence_numbers_wrap() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        let start = u32::MAX - 50;
        tcp.client("S", start, 0, 0);
        tcp.server("SA", 1000, start.wrapping_add(1), 0);
        tcp.client("A", start.wrapping_add(1), 1001, 100);
        tcp.client("A", start.wrapping_add(101), 1001, 100);
        assert_eq!(tcp.of_client().retransmits, 0);
        tcp.client("A", start.wrapping_add(1), 1001, 100);
        assert_eq!(tcp.of_client().retransmits, 1);
        // The end is found beyond the wrap as well.
        tcp.server("A", 1001, start.wrapping_add(201), 0);
        tcp.client("FA", start.wrapping_add(201), 1001, 0);
        tcp.server("FA", 1001, start.wrapping_add(202), 0);
        tcp.client("A", start.wrapping_add(202), 1002, 0);
        assert_eq!(tcp.state(), FlowState::Closed);
    });
}

#[test]
fn root_closed_windows_are_counted() {
    require_root!();
    Lab::plain(|lab| {
        let tcp = Connection::new(lab);
        tcp.open();
        for window in [0, 0, 1, 65535] {
            tcp.lab.run(BACK_FIRST, &from_server("A", 1001, 1001, 0).window(window).build());
        }
        assert_eq!((tcp.of_server().zero_windows, tcp.of_client().zero_windows), (2, 0));
        // A RST or a SYN has no window to speak of.
        tcp.lab.run(BACK_FIRST, &from_server("R", 1001, 0, 0).window(0).build());
        assert_eq!((tcp.of_server().zero_windows, tcp.entry().resets), (2, 1));
    });
}

#[test]
fn root_packet_events_tell_tcp() {
    require_root!();
    Lab::with_packet_events(|lab| {
        let tcp = Connection::new(lab);
        tcp.client("S", 7, 0, 0);
        tcp.lab.run(BACK_FIRST, &from_server("PA", u32::MAX, 8, 9).window(512).build());
        let events = tcp.lab.events();
        let [Event::Open(_), Event::Packet(syn), Event::Packet(data)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!((syn.tcp_seq, syn.tcp_ack, syn.tcp_flags, syn.payload_bytes), (7, 0, 0x02, 0));
        assert_eq!((data.tcp_seq, data.tcp_ack, data.tcp_flags, data.payload_bytes), (u32::MAX, 8, 0x18, 9));
        assert_eq!((data.tcp_window, data.source), (512, tcp.client.other()));
        assert!(data.seen.time_ns >= syn.seen.time_ns);
    });
}
