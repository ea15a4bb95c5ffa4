//! The table against a source that stands for the kernel.

use std::convert::Infallible;

use super::*;
use crate::event::{Hook, HookId, Seen};
use crate::flow::{CaptureState, Counters, DirectionEntry, Point, Protocol, Side};

const SECOND_NS: u64 = 1_000_000_000;

#[derive(Default)]
struct Kernel(HashMap<FlowKey, FlowEntry>);

impl EntrySource for Kernel {
    type Error = Infallible;

    fn read(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Infallible> {
        Ok(self.0.get(key).copied())
    }

    fn remove(&mut self, key: &FlowKey) -> Result<Option<FlowEntry>, Infallible> {
        Ok(self.0.remove(key))
    }

    fn visit(&mut self, visit: &mut dyn FnMut(FlowKey, FlowEntry)) -> Result<(), Infallible> {
        for (key, entry) in &self.0 {
            visit(*key, *entry);
        }
        Ok(())
    }
}

fn key(port: u16) -> FlowKey {
    FlowKey {
        addresses: ["::ffff:10.0.0.1".parse().unwrap(), "::ffff:10.0.0.2".parse().unwrap()],
        ports: [port, 80],
        protocol: Protocol::TCP,
        icmp_type: 0,
    }
}

fn hook(ifindex: u32) -> HookId {
    HookId { ifindex, hook: Hook::Ingress }
}

fn entry(first_ns: u64, state: FlowState, packets: u64) -> FlowEntry {
    let sent = DirectionEntry {
        points: [
            Point { hook: Some(hook(7)), counters: Counters { packets, bytes: packets * 100 } },
            Point::default(),
        ],
        ..DirectionEntry::default()
    };
    FlowEntry {
        incarnation: 0,
        first_ns,
        last_ns: first_ns,
        rtt_us: None,
        resets: 0,
        icmp_errors: 0,
        state,
        initiator: Side::Low,
        midstream: false,
        capture: CaptureState::Undecided,
        translation: None,
        directions: [sent, DirectionEntry::default()],
    }
}

fn open(key: FlowKey, time_ns: u64, incarnation: u32) -> FlowOpened {
    FlowOpened {
        seen: Seen { time_ns, hook: hook(7), key },
        incarnation,
        length_bytes: 60,
        state: FlowState::New,
        initiator: Side::Low,
        source: Side::Low,
        midstream: false,
        tcp_flags: 2,
    }
}

fn close(key: FlowKey, time_ns: u64, incarnation: u32) -> FlowClosed {
    FlowClosed { seen: Seen { time_ns, hook: hook(7), key }, incarnation, state: FlowState::Closed }
}

/// Runs one step and gives what it reported: event, state, packets.
fn reports(step: impl FnOnce(&mut dyn FnMut(Report<'_>))) -> Vec<(FlowEvent, State, u64)> {
    let mut seen = Vec::new();
    step(&mut |report: Report<'_>| {
        let packets = report.entry.directions[0].points[0].counters.packets;
        seen.push((report.event, report.state, packets));
    });
    seen
}

#[test]
fn a_connection_opens_and_closes() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(1000, FlowState::New, 1));
    let opened = reports(|r| table.opened(&open(key(1), 1000, 0), &mut kernel, &mut { r }).unwrap());
    assert_eq!(opened, [(FlowEvent::Open, State::New, 1)]);

    table.closed(&close(key(1), 2000, 0));
    kernel.0.insert(key(1), entry(1000, FlowState::Closed, 9));
    assert_eq!(table.next_end_ns(), Some(2000 + LINGER_NS));
    assert!(reports(|r| table.end_closed(2000, &mut kernel, &mut { r }).unwrap()).is_empty());
    let ended = reports(|r| table.end_closed(2000 + LINGER_NS, &mut kernel, &mut { r }).unwrap());
    assert_eq!(ended, [(FlowEvent::Close, State::Closed, 9)]);
    assert!(table.is_empty() && kernel.0.is_empty());
    assert_eq!(table.totals().counted, Counters { packets: 9, bytes: 900 });
    assert_eq!(table.totals().hooks[&hook(7)], Counters { packets: 9, bytes: 900 });
}

#[test]
fn an_opening_does_not_tell_the_end() {
    for (state, rtt_us, shown) in [
        (FlowState::New, None, State::New),
        (FlowState::Reset, None, State::New),
        (FlowState::Established, Some(9), State::Established),
        (FlowState::Closed, Some(9), State::Established),
    ] {
        let (mut table, mut kernel) = (Table::default(), Kernel::default());
        kernel.0.insert(key(1), FlowEntry { rtt_us, ..entry(1000, state, 1) });
        let opened = reports(|r| table.opened(&open(key(1), 1000, 0), &mut kernel, &mut { r }).unwrap());
        assert_eq!(opened, [(FlowEvent::Open, shown, 1)], "{state:?}");
    }
}

#[test]
fn a_connection_that_still_speaks_is_waited_for() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(1000, FlowState::Closed, 1));
    table.opened(&open(key(1), 1000, 0), &mut kernel, &mut |_| ()).unwrap();
    table.closed(&close(key(1), 1000, 0));
    let late = FlowEntry { last_ns: 1000 + LINGER_NS, ..entry(1000, FlowState::Closed, 2) };
    kernel.0.insert(key(1), late);
    assert!(reports(|r| table.end_closed(1000 + LINGER_NS, &mut kernel, &mut { r }).unwrap()).is_empty());
    let ended = reports(|r| table.end_closed(1000 + 2 * LINGER_NS, &mut kernel, &mut { r }).unwrap());
    assert_eq!(ended, [(FlowEvent::Close, State::Closed, 2)]);
}

#[test]
fn a_key_that_is_used_again_is_two_connections() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(1000, FlowState::New, 1));
    table.opened(&open(key(1), 1000, 0), &mut kernel, &mut |_| ()).unwrap();
    table.closed(&close(key(1), 2000, 0));

    // The kernel's counters go on from 10: one packet is the new connection's.
    let before = entry(1000, FlowState::Closed, 10);
    kernel.0.insert(key(1), FlowEntry { incarnation: 1, ..entry(3000, FlowState::New, 11) });
    let reopened =
        reports(|r| table.reopened(&open(key(1), 3000, 1), &before, &mut kernel, &mut { r }).unwrap());
    assert_eq!(reopened, [(FlowEvent::Close, State::Closed, 10), (FlowEvent::Open, State::New, 1)]);

    // The first connection's end is not the second one's.
    assert!(reports(|r| table.end_closed(SECOND_NS, &mut kernel, &mut { r }).unwrap()).is_empty());
    let mut totals = Totals::default();
    let left = reports(|r| totals = table.tell_all(SECOND_NS, &mut kernel, &mut { r }).unwrap());
    assert_eq!(left, [(FlowEvent::Update, State::New, 1)]);
    assert_eq!((totals.flows, totals.counted.packets), (2, 11));
    assert_eq!(table.sums(&mut kernel).unwrap(), totals);
}

#[test]
fn a_reuse_whose_first_opening_was_lost_counts_both() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), FlowEntry { incarnation: 1, ..entry(3000, FlowState::New, 11) });
    let before = entry(1000, FlowState::Closed, 10);
    table.reopened(&open(key(1), 3000, 1), &before, &mut kernel, &mut |_| ()).unwrap();
    let totals = table.tell_all(4000, &mut kernel, &mut |_| ()).unwrap();
    assert_eq!((totals.flows, totals.counted.packets), (2, 11));
}

#[test]
fn a_flow_whose_events_were_lost_is_found_and_ended() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(SECOND_NS, FlowState::Reset, 3));
    let too_early = SECOND_NS + SECOND_NS / 2;
    assert!(reports(|r| table.sweep(too_early, 100, false, &mut kernel, &mut { r }).unwrap()).is_empty());
    let swept = reports(|r| table.sweep(3 * SECOND_NS, 100, false, &mut kernel, &mut { r }).unwrap());
    assert_eq!(swept, [(FlowEvent::Open, State::New, 3), (FlowEvent::Close, State::Reset, 3)]);
    // Its event comes after all: nothing is reported twice.
    assert!(
        reports(|r| table.opened(&open(key(1), SECOND_NS, 0), &mut kernel, &mut { r }).unwrap()).is_empty()
    );
    assert_eq!(table.totals().flows, 1);
}

#[test]
fn an_event_after_its_flow_was_found_says_nothing_new() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(SECOND_NS, FlowState::New, 3));
    table.sweep(3 * SECOND_NS, 100, false, &mut kernel, &mut |_| ()).unwrap();
    assert!(
        reports(|r| table.opened(&open(key(1), SECOND_NS, 0), &mut kernel, &mut { r }).unwrap()).is_empty()
    );
}

#[test]
fn idle_flows_end_and_unanswered_ones_early_when_room_is_short() {
    for (table_size, quiet_s, ends) in [(100, 59, false), (100, 60, true), (1, 3, true)] {
        let (mut table, mut kernel) = (Table::default(), Kernel::default());
        kernel.0.insert(key(1), entry(0, FlowState::New, 1));
        table.opened(&open(key(1), 0, 0), &mut kernel, &mut |_| ()).unwrap();
        table.sweep(1, table_size, false, &mut kernel, &mut |_| ()).unwrap();
        let swept = reports(|r| {
            table.sweep(quiet_s * SECOND_NS, table_size, false, &mut kernel, &mut { r }).unwrap();
        });
        let expected: &[_] = if ends { &[(FlowEvent::Close, State::Idle, 1)] } else { &[] };
        assert_eq!(swept, expected, "table of {table_size}, quiet for {quiet_s} s");
    }
}

#[test]
fn updates_tell_news_only() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(1000, FlowState::New, 1));
    table.opened(&open(key(1), 1000, 0), &mut kernel, &mut |_| ()).unwrap();
    assert!(reports(|r| table.sweep(2000, 100, true, &mut kernel, &mut { r }).unwrap()).is_empty());
    kernel.0.insert(key(1), entry(1000, FlowState::Established, 4));
    let swept = reports(|r| table.sweep(3000, 100, true, &mut kernel, &mut { r }).unwrap());
    assert_eq!(swept, [(FlowEvent::Update, State::Established, 4)]);
    assert!(reports(|r| table.sweep(4000, 100, true, &mut kernel, &mut { r }).unwrap()).is_empty());
}

#[test]
fn flows_end_with_their_interface() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(1000, FlowState::Established, 1));
    table.opened(&open(key(1), 1000, 0), &mut kernel, &mut |_| ()).unwrap();
    assert!(reports(|r| table.interfaces_gone(&[8], 2000, &mut kernel, &mut { r }).unwrap()).is_empty());
    let ended = reports(|r| table.interfaces_gone(&[7], 2000, &mut kernel, &mut { r }).unwrap());
    assert_eq!(ended, [(FlowEvent::Close, State::Idle, 1)]);
}

#[test]
fn a_container_that_is_gone_keeps_its_name() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(1000, FlowState::New, 1));
    table
        .opened(&open(key(1), 1000, 0), &mut kernel, &mut |report| report.ends[0] = Some(Identity::Host))
        .unwrap();
    let mut kept = None;
    table.tell_all(2000, &mut kernel, &mut |report| kept = report.ends[0].clone()).unwrap();
    assert_eq!(kept, Some(Identity::Host));
}

#[test]
fn what_an_earlier_process_counted_is_known_and_not_told() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(SECOND_NS, FlowState::Established, 5));
    kernel.visit(&mut |key, entry| table.adopt(key, &entry)).unwrap();
    let before = table.sums(&mut kernel).unwrap();
    assert_eq!(before.counted.packets, 5);
    let sweep = |table: &mut Table, kernel: &mut Kernel, now_ns| {
        reports(|r| table.sweep(now_ns, 100, true, kernel, &mut { r }).unwrap())
    };
    assert!(sweep(&mut table, &mut kernel, 3 * SECOND_NS).is_empty());
    // What comes later is.
    kernel.0.insert(key(1), entry(SECOND_NS, FlowState::Established, 7));
    let swept = sweep(&mut table, &mut kernel, 4 * SECOND_NS);
    assert_eq!(swept, [(FlowEvent::Update, State::Established, 7)]);
    let since = table.sums(&mut kernel).unwrap().since(&before);
    assert_eq!((since.flows, since.counted.packets, since.hooks[&hook(7)].packets), (0, 2, 2));
}

#[test]
fn telling_all_takes_nothing_from_later_updates() {
    let (mut table, mut kernel) = (Table::default(), Kernel::default());
    kernel.0.insert(key(1), entry(1000, FlowState::New, 1));
    table.opened(&open(key(1), 1000, 0), &mut kernel, &mut |_| ()).unwrap();
    kernel.0.insert(key(1), entry(1000, FlowState::Established, 4));
    table.tell_all(2000, &mut kernel, &mut |_| ()).unwrap();
    let swept = reports(|r| table.sweep(3000, 100, true, &mut kernel, &mut { r }).unwrap());
    assert_eq!(swept, [(FlowEvent::Update, State::Established, 4)]);
}
