use super::*;
use crate::flow::{FlowKey, Protocol as IpProtocol, Side};
use crate::l7::harness::{self, Played, Turn, ask, play};
use crate::l7::{Engine, Found, Limits};

fn message(id: u16, flags: u16, labels: &[&str], kind: u16, answers: u16) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [id, flags, 1, answers, 0, 0].iter().flat_map(|number: &u16| number.to_be_bytes()).collect();
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1u16.to_be_bytes());
    for host in 0..answers {
        bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, host as u8]);
    }
    bytes
}

fn over_tcp(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn dialogue() -> Vec<Turn> {
    let question = |id, name: &str, kind| over_tcp(&message(id, 0x0100, &[name, "example"], kind, 0));
    let reply = |id, flags, name: &str, kind, answers| {
        harness::answer(over_tcp(&message(id, flags, &[name, "example"], kind, answers)))
    };
    vec![
        ask(question(1, "a", 1)),
        reply(1, 0x8180, "a", 1, 2),
        // Answered out of order.
        ask([question(2, "b", 28), question(3, "c", 16)].concat()),
        reply(3, 0x8183, "c", 16, 0),
        reply(2, 0x8180, "b", 28, 0),
        ask(question(4, "d", 65)),
        reply(4, 0x8182, "d", 65, 0),
    ]
}

fn shown(exchange: &Exchange) -> String {
    format!(
        "{} {} {} {}/{}",
        exchange.operation,
        exchange.target.as_deref().unwrap_or("-"),
        exchange.status.as_deref().unwrap_or("-"),
        exchange.request.map_or(0, |part| part.bytes),
        exchange.response.map_or(0, |part| part.bytes),
    )
}

#[test]
fn every_property_holds() {
    harness::check(&PROTOCOL, &dialogue());
}

#[test]
fn time_grows_with_the_length_only() {
    harness::check_linear(&PROTOCOL, |length| {
        let all = (0..length / 29).map(|id| over_tcp(&message(id as u16, 0x0100, &["a", "example"], 1, 0)));
        vec![ask(all.collect::<Vec<_>>().concat())]
    });
}

#[test]
fn latency_is_from_the_last_byte_asked_to_the_first_answered() {
    let turns = dialogue();
    let mut played = Played::new(&PROTOCOL);
    let question = turns[0].bytes();
    played.at(10).data(Direction::ToServer, &question[..9]);
    played
        .at(30)
        .data(Direction::ToServer, &question[9..])
        .at(70)
        .data(Direction::ToClient, turns[1].bytes());
    let exchange = &played.exchanges[0];
    assert_eq!(exchange.request.unwrap(), Part { first_ns: 10, last_ns: 30, bytes: 29 });
    assert_eq!(exchange.response.unwrap(), Part { first_ns: 70, last_ns: 70, bytes: 61 });
}

#[test]
fn numbers_and_names_pair_over_tcp() {
    let exchanges = play(&PROTOCOL, &dialogue());
    let lines: Vec<_> = exchanges.iter().map(shown).collect();
    let expected = [
        "A a.example NOERROR 29/61",
        "TXT c.example NXDOMAIN 29/29",
        "AAAA b.example NOERROR 29/29",
        "HTTPS d.example SERVFAIL 29/29",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        exchanges.iter().map(|one| one.ok).collect::<Vec<_>>(),
        [Some(true), Some(false), Some(true), Some(false)]
    );
}

/// Datagrams between one client and one server; `true`: the client's.
fn datagrams(messages: &[(bool, Vec<u8>)]) -> Vec<Found> {
    let server = "192.0.2.53:53".parse().unwrap();
    let client = "10.0.0.2:43122".parse().unwrap();
    let (key, from_client) = FlowKey::between(client, server, IpProtocol::UDP);
    let mut engine = Engine::new(Limits::default());
    let mut found = Vec::new();
    for (index, (asks, bytes)) in messages.iter().enumerate() {
        let from: Side = if *asks { from_client } else { from_client.other() };
        let time_ns = index as u64 * 1_000;
        engine.datagram(key, from, bytes, bytes.len() as u32, time_ns, &mut |one| found.push(one));
    }
    engine.finish(&mut |one| found.push(one));
    assert!(found.iter().all(|one| one.client == from_client), "by what they say, not by who came first");
    found
}

#[test]
fn datagrams_pair_and_what_is_not_answered_is_told() {
    let question = |id, name| (true, message(id, 0x0100, &[name], 1, 0));
    let reply = |id, name| (false, message(id, 0x8180, &[name], 1, 1));
    let found = datagrams(&[
        question(1, "a"),
        question(2, "b"),
        reply(2, "b"),
        reply(1, "forged"),
        (true, vec![0xff; 40]),
        question(1, "a"),
        reply(1, "a"),
        question(9, "never"),
    ]);
    let lines: Vec<_> = found.iter().map(|one| shown(&one.exchange)).collect();
    let expected =
        ["A b NOERROR 19/35", "A forged NOERROR 0/40", "A a - 19/0", "A a NOERROR 19/35", "A never - 23/0"];
    assert_eq!(lines, expected);
    assert_eq!(found[0].exchange.response.unwrap().first_ns, 2_000);
}

#[test]
fn an_answer_may_be_what_is_seen_first() {
    let found = datagrams(&[
        (false, message(1, 0x8180, &["a"], 1, 1)),
        (true, message(2, 0x0100, &["b"], 1, 0)),
        (false, message(2, 0x8180, &["b"], 1, 1)),
    ]);
    let lines: Vec<_> = found.iter().map(|one| shown(&one.exchange)).collect();
    assert_eq!(lines, ["A a NOERROR 0/35", "A b NOERROR 19/35"]);
}

#[test]
fn junk_before_the_first_message_hides_nothing() {
    let found = datagrams(&[
        (true, b"junk".to_vec()),
        (true, message(2, 0x0100, &["b"], 1, 0)),
        (false, message(2, 0x8180, &["b"], 1, 1)),
    ]);
    let lines: Vec<_> = found.iter().map(|one| shown(&one.exchange)).collect();
    assert_eq!(lines, ["A b NOERROR 19/35"]);
}

#[test]
fn kinds_and_codes_have_names() {
    for (flags, kind, operation, status) in [
        (0x8180, 1, "A", "NOERROR"),
        (0xa180, 6, "NOTIFY SOA", "NOERROR"),
        (0xa985, 6, "UPDATE SOA", "REFUSED"),
        (0x818f, 65_280, "TYPE65280", "RCODE15"),
    ] {
        let found = datagrams(&[(false, message(7, flags, &["x"], kind, 0))]);
        assert_eq!(found[0].exchange.operation, operation);
        assert_eq!(found[0].exchange.status.as_deref(), Some(status));
    }
}

#[test]
fn other_datagrams_are_not_dns() {
    for bytes in [vec![0; 12], b"M-SEARCH * HTTP/1.1\r\nHOST: a\r\n\r\n".to_vec(), vec![0x80; 300]] {
        let heads = Heads { to_server: &bytes, to_client: &[], transport: Transport::Udp };
        assert_ne!(probe(&heads), Guess::Sure);
    }
}
