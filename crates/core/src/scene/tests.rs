use super::*;
use crate::endpoint::Container;
use crate::flow::{CaptureState, ConnectionId, DirectionEntry, FlowState, Point};
use crate::record::{FlowEvent, State};
use crate::redirect::RuleId;

const WEB: u32 = 7;
const DB: u32 = 8;

fn scene() -> Scene {
    let mut directory = Directory::default();
    for (ifindex, name) in [(WEB, "web"), (DB, "db")] {
        let container = Container { name: name.into(), ..Container::default() };
        directory.set_owner(ifindex, Some(Arc::new(container)));
    }
    let device = |name: &str| Device { name: name.into(), container_side: true };
    Scene {
        directory,
        devices: [(WEB, device("veth-web")), (DB, device("veth-db"))].into_iter().collect(),
        rules: HashMap::from([(3, "canary".into())]),
        clock: Clock::new("2026-01-01T00:00:10Z".parse().unwrap(), 10_000_000_000),
    }
}

fn point(ifindex: u32, hook: Hook, packets: u64) -> Point {
    let counters = Counters { packets, bytes: packets * 60 };
    Point { hook: Some(HookId { ifindex, hook }), counters }
}

/// web, on the high side, speaks to db: three packets, of which two arrive.
fn report(ends: &mut [Option<Identity>; 2]) -> Report<'_> {
    let sent = DirectionEntry {
        points: [point(WEB, Hook::Ingress, 3), point(DB, Hook::Egress, 2)],
        retransmits: 1,
        tcp_flags: 0x02,
        ..DirectionEntry::default()
    };
    let received = DirectionEntry {
        points: [point(DB, Hook::Ingress, 1), Point::default()],
        tcp_flags: 0x12,
        ..DirectionEntry::default()
    };
    Report {
        id: ConnectionId(0xabc),
        event: FlowEvent::Update,
        state: State::New,
        time_ns: 9_500_000_000,
        key: FlowKey {
            addresses: ["::ffff:10.0.0.1".parse().unwrap(), "::ffff:10.0.0.2".parse().unwrap()],
            ports: [3306, 43122],
            protocol: Protocol::TCP,
            icmp_type: 0,
        },
        entry: FlowEntry {
            incarnation: 0,
            first_ns: 9_000_000_000,
            last_ns: 9_250_000_000,
            rtt_us: Some(110),
            resets: 0,
            icmp_errors: 0,
            state: FlowState::New,
            initiator: Side::High,
            midstream: false,
            capture: CaptureState::Undecided,
            translation: None,
            directions: [received, sent],
        },
        ends,
    }
}

#[test]
fn a_report_becomes_a_record() {
    let record = scene().flow_record(report(&mut [None, None]));
    assert_eq!(record.id.to_string(), "0000000000000abc");
    assert_eq!(record.client.to_string(), "web:43122");
    assert_eq!(record.server.to_string(), "db:3306");
    assert_eq!(record.time.to_string(), "2026-01-01T00:00:09.5Z");
    assert_eq!(record.start.to_string(), "2026-01-01T00:00:09Z");
    assert_eq!(record.duration_ms, 250.0);
    assert_eq!((record.sent_packets, record.sent_bytes), (3, 180));
    assert_eq!((record.received_packets, record.received_bytes), (1, 60));
    assert_eq!((record.sent_delivered_packets, record.received_delivered_packets), (Some(2), None));
    assert_eq!((record.rtt_us, record.retransmits), (Some(110), 1));
    assert_eq!(record.tcp_flags, Some(["S".into(), "SA".into()]));
    let at = |name: &str, ingress: u64, egress: u64| InterfaceCounters {
        name: name.into(),
        ingress_packets: ingress,
        ingress_bytes: ingress * 60,
        egress_packets: egress,
        egress_bytes: egress * 60,
    };
    assert_eq!(record.interfaces, [at("veth-db", 1, 2), at("veth-web", 3, 0)]);
}

/// web asked 10.9.9.9:80, and db:3306 answers it.
#[test]
fn a_redirected_flow_has_two_names() {
    let redirected = |number: u32| {
        let asked = FlowKey {
            addresses: ["::ffff:10.0.0.2".parse().unwrap(), "::ffff:10.9.9.9".parse().unwrap()],
            ports: [43122, 80],
            protocol: Protocol::TCP,
            icmp_type: 0,
        };
        let rule = RuleId::new(number, 1);
        let mut ends = [None, None];
        let mut report = report(&mut ends);
        report.entry.translation = Some(Translation { rule, asked, client: Side::Low });
        scene().flow_record(report)
    };
    let record = redirected(3);
    assert_eq!(record.client.to_string(), "web:43122");
    assert_eq!(record.server.to_string(), "virtual/10.9.9.9:80");
    let translated = record.translated.unwrap();
    assert_eq!(translated.client.to_string(), "web:43122");
    assert_eq!(translated.server.to_string(), "db:3306");
    assert_eq!((record.verdict, record.rule.as_deref()), (Verdict::Redirected, Some("canary")));
    assert_eq!(redirected(4).rule.as_deref(), Some("4"), "a rule that is gone");
    let other_port = redirected(0);
    assert_eq!((other_port.verdict, other_port.rule), (Verdict::Forwarded, None));
    assert!(other_port.translated.is_some());
}

#[test]
fn an_end_keeps_its_name_when_its_container_is_gone() {
    let mut scene = scene();
    let mut ends = [None, None];
    scene.flow_record(report(&mut ends));
    scene.directory.set_owner(WEB, None);
    assert_eq!(scene.flow_record(report(&mut ends)).client.to_string(), "web:43122");
}

#[test]
fn a_device_that_is_gone_and_was_never_named_is_a_number() {
    let mut scene = scene();
    scene.devices.clear();
    let record = scene.flow_record(report(&mut [None, None]));
    assert_eq!(record.interfaces[0].name, "if7");
    assert_eq!(record.client.to_string(), "world/10.0.0.2:43122");
}
