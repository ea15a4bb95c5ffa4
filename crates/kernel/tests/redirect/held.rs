//! Names that a server holds after it ended a connection (TIME_WAIT): a connection that was
//! asked for otherwise gets another port.

use std::time::Duration;

use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::lab::{API, CLIENT, FAR, Lab, NEXT, Rule, WEB};

const PORT: u16 = 40000;
/// Whom clients ask: the server itself, and what is redirected to it.
const DIRECT: (&str, u16) = (API.ipv4, 80);
const REDIRECTED: (&str, u16) = (WEB.ipv4, 8080);

fn to_api() -> Rule {
    Rule::port(REDIRECTED, DIRECT)
}

fn source_port(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[34], frame[35]])
}

fn asks(lab: &Lab, asked: (&str, u16), flags: &str, seq: u32, ack: u32) -> Vec<u8> {
    let frame = Frame::between(CLIENT.ipv4, asked.0).macs(CLIENT.mac, WEB.mac);
    let (verdict, frame) = lab.sends(CLIENT, &frame.tcp(PORT, asked.1, flags).seq(seq).ack(ack));
    assert_eq!(verdict, NEXT);
    frame
}

fn answers(lab: &Lab, port: u16, flags: &str, seq: u32, ack: u32) {
    let frame = Frame::between(API.ipv4, CLIENT.ipv4).macs(API.mac, CLIENT.mac);
    lab.gets(CLIENT, &frame.tcp(80, port, flags).seq(seq).ack(ack));
}

/// A whole connection, and the port from which its server sees it come.
#[track_caller]
fn connection(lab: &Lab, asked: (&str, u16), server_ends_it: bool) -> u16 {
    let port = source_port(&asks(lab, asked, "S", 1000, 0));
    answers(lab, port, "SA", 5000, 1001);
    asks(lab, asked, "A", 1001, 5001);
    if server_ends_it {
        answers(lab, port, "FA", 5001, 1001);
        asks(lab, asked, "FA", 1001, 5002);
        answers(lab, port, "A", 5002, 1002);
    } else {
        asks(lab, asked, "FA", 1001, 5001);
        answers(lab, port, "FA", 5001, 1002);
        asks(lab, asked, "A", 1002, 5002);
    }
    port
}

#[test]
fn root_what_a_server_holds_for_another_is_left_alone() {
    require_root!();
    for (first, second) in [(DIRECT, REDIRECTED), (REDIRECTED, DIRECT)] {
        // Right after the end, and when user space has taken it out of the table.
        for taken_out in [false, true] {
            let what = format!("{first:?}, then {second:?}, taken out: {taken_out}");
            Lab::with_table_of(64, &[to_api()], |lab| {
                let end = || {
                    if taken_out {
                        lab.clear();
                    }
                };
                assert_eq!(connection(lab, first, true), PORT, "{what}");
                end();
                let moved = connection(lab, second, true);
                assert!((32768..61000).contains(&moved) && moved != PORT, "{what}: {moved}");
                end();
                // Each finds its own again.
                for _ in 0..2 {
                    assert_eq!(connection(lab, first, true), PORT, "{what}");
                    end();
                    assert_eq!(connection(lab, second, true), moved, "{what}");
                    end();
                }
            });
        }
    }
}

#[test]
fn root_a_name_is_held_for_a_minute() {
    require_root!();
    const MINUTE: Duration = Duration::from_secs(60);
    // However slow the machine: less than this until the second connection.
    const SOON: Duration = Duration::from_secs(20);
    for (first, second) in [(DIRECT, REDIRECTED), (REDIRECTED, DIRECT)] {
        for (ago, held) in [(MINUTE - SOON, true), (MINUTE, false)] {
            Lab::with_table_of(64, &[to_api()], |lab| {
                assert_eq!(connection(lab, first, true), PORT);
                lab.clear();
                lab.names_are_held_since(ago);
                let port = source_port(&asks(lab, second, "S", 1000, 0));
                assert_eq!(port != PORT, held, "{first:?}, then {second:?}, {ago:?} later: {port}");
            });
        }
    }
}

/// A direct connection that got another port is translated both ways, and counted for no rule.
#[test]
fn root_a_direct_connection_with_another_port() {
    require_root!();
    Lab::with_table_of(64, &[to_api()], |lab| {
        connection(lab, REDIRECTED, true);
        let direct = |flags| {
            Frame::between(CLIENT.ipv4, API.ipv4).macs(CLIENT.mac, API.mac).tcp(PORT, DIRECT.1, flags)
        };
        let (_, seen) = lab.sends(CLIENT, &direct("S"));
        let port = source_port(&seen);
        let expected = Frame::between(CLIENT.ipv4, API.ipv4).macs(CLIENT.mac, API.mac).tcp(port, 80, "S");
        assert_eq!(seen, expected.build());
        let answer =
            |port| Frame::between(API.ipv4, CLIENT.ipv4).macs(API.mac, CLIENT.mac).tcp(80, port, "SA");
        assert_eq!(lab.gets(CLIENT, &answer(port)), (NEXT, answer(PORT).build()));
        assert_eq!(source_port(&lab.sends(CLIENT, &direct("A")).1), port);
        assert_eq!(lab.counters(0).hits, 1);
        // Its name is another connection's now; nobody has to do with the rule's own.
        assert_eq!(source_port(&asks(lab, REDIRECTED, "S", 1000, 0)), PORT);
        assert_eq!(source_port(&lab.sends(CLIENT, &direct("A")).1), port);
    });
}

#[test]
fn root_what_no_server_holds_is_free() {
    require_root!();
    Lab::with_table_of(64, &[to_api()], |lab| {
        // Whoever ends a connection first holds its name: the client, under its own.
        assert_eq!(connection(lab, DIRECT, false), PORT);
        assert_eq!(connection(lab, REDIRECTED, false), PORT);
        // A reset leaves nothing.
        asks(lab, DIRECT, "S", 1000, 0);
        answers(lab, PORT, "SA", 5000, 1001);
        asks(lab, DIRECT, "R", 1001, 0);
        assert_eq!(connection(lab, REDIRECTED, false), PORT);
        // Another server knows nothing of it.
        connection(lab, DIRECT, true);
        lab.set(&[Rule::port(REDIRECTED, (FAR.ipv4, 80))]);
        assert_eq!(source_port(&asks(lab, REDIRECTED, "S", 1000, 0)), PORT);
    });
}

/// A rule goes before the search for another port.
#[test]
fn root_a_held_name_that_is_redirected_itself() {
    require_root!();
    Lab::with_table_of(64, &[to_api(), Rule::port(DIRECT, (FAR.ipv4, 81))], |lab| {
        connection(lab, REDIRECTED, true);
        let seen = asks(lab, DIRECT, "S", 1000, 0);
        let to = Frame::between(CLIENT.ipv4, FAR.ipv4).tcp(PORT, 81, "S").build();
        assert_eq!((&seen[30..34], source_port(&seen)), (&to[30..34], PORT));
    });
}

#[test]
fn root_with_every_port_held_one_is_taken() {
    require_root!();
    Lab::with_table_of(8192, &[to_api()], |lab| {
        // Of connections that began unseen: three packets are enough for an end.
        for port in 32768..=60999 {
            let there = Frame::between(CLIENT.ipv4, API.ipv4).macs(CLIENT.mac, API.mac);
            answers(lab, port, "FA", 5001, 1001);
            lab.sends(CLIENT, &there.tcp(port, 80, "FA").seq(1001).ack(5002));
            answers(lab, port, "A", 5002, 1002);
            if port % 8000 == 0 {
                lab.clear();
            }
        }
        assert_ne!(source_port(&asks(lab, REDIRECTED, "S", 1000, 0)), PORT);
        assert_eq!((lab.counters(0).hits, lab.counters(0).refused_no_port), (1, 0));
    });
}
