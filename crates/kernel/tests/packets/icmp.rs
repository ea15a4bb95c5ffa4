//! ICMP errors are told to the flow that they quote.

use weir_core::flow::{FlowEntry, FlowKey};
use weir_testkit::packet::{Frame, protocol};
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6, icmp_key, key};
use crate::lab::{BACK_FIRST, BACK_SECOND, FIRST, Lab};

/// The bytes of IP and 8 more: all that RFC 792 asks a router to quote.
const SHORT_QUOTE: usize = 20 + 8;
const SHORT_QUOTE_6: usize = 40 + 8;
const ALL: usize = usize::MAX;

struct Row {
    what: &'static str,
    /// Of whom the error tells, and the flow that it belongs to.
    sent: Frame,
    key: FlowKey,
    /// ICMP type and code, and the bytes quoted.
    error: (u8, u8),
    quoted_bytes: usize,
    told: u32,
}

fn row(
    what: &'static str,
    sent: Frame,
    key: FlowKey,
    error: (u8, u8),
    quoted_bytes: usize,
    told: u32,
) -> Row {
    Row { what, sent, key, error, quoted_bytes, told }
}

fn rows() -> Vec<Row> {
    let tcp = Frame::between(A, B).tcp(40000, 80, "S").payload(&[7; 40]);
    let udp = Frame::between(A, B).udp(5000, 6000).payload(&[7; 40]);
    let udp6 = Frame::between(A6, B6).udp(5000, 6000).payload(&[7; 40]);
    let tcp6 = Frame::between(A6, B6).tcp(40000, 80, "S").payload(&[7; 40]);
    let options = Frame::between(A6, B6).extension(protocol::DESTINATION_OPTIONS, &[0; 6]).udp(5000, 6000);
    let (tcp_key, udp_key) = (key(6, (A, 40000), (B, 80)).0, key(17, (A, 5000), (B, 6000)).0);
    let (tcp6_key, udp6_key) = (key(6, (A6, 40000), (B6, 80)).0, key(17, (A6, 5000), (B6, 6000)).0);
    vec![
        row("port unreachable, UDP", udp.clone(), udp_key, (3, 3), ALL, 1),
        row("8 bytes of UDP", udp.clone(), udp_key, (3, 3), SHORT_QUOTE, 1),
        row("8 bytes of TCP", tcp.clone(), tcp_key, (3, 1), SHORT_QUOTE, 1),
        row("time exceeded", tcp.clone(), tcp_key, (11, 0), SHORT_QUOTE, 1),
        row("parameter problem", tcp.clone(), tcp_key, (12, 0), SHORT_QUOTE, 1),
        row("behind IP options", udp.clone().ipv4_options(&[1; 8]), udp_key, (3, 3), 28 + 8, 1),
        row("a tagged packet", udp.clone().vlan(7), udp_key, (3, 3), ALL, 1),
        row("4 bytes: the ports", udp.clone(), udp_key, (3, 3), 24, 1),
        row("3 bytes: not even the ports", udp.clone(), udp_key, (3, 3), 23, 0),
        row("half an IP header", udp.clone(), udp_key, (3, 3), 10, 0),
        row("nothing", udp.clone(), udp_key, (3, 3), 0, 0),
        row("no error, though it looks like one", udp, udp_key, (9, 0), ALL, 0),
        row("a ping", Frame::between(A, B).echo_request(77, 1), icmp_key(8, 77, A, B).0, (3, 1), ALL, 1),
        row("IPv6: port unreachable", udp6.clone(), udp6_key, (1, 4), ALL, 1),
        row("IPv6: 8 bytes of TCP", tcp6, tcp6_key, (1, 0), SHORT_QUOTE_6, 1),
        row("IPv6: packet too big", udp6.clone(), udp6_key, (2, 0), SHORT_QUOTE_6, 1),
        row("IPv6: behind an extension header", options, udp6_key, (1, 4), SHORT_QUOTE_6 + 8, 1),
        row("IPv6: half a header", udp6, udp6_key, (1, 4), 20, 0),
    ]
}

#[test]
fn root_errors_are_told_to_the_flow_that_they_quote() {
    require_root!();
    Lab::plain(|lab| {
        for row in rows() {
            lab.run(FIRST, &row.sent.build());
            let ends = if row.what.starts_with("IPv6") { (B6, A6) } else { (B, A) };
            let error = Frame::between(ends.0, ends.1)
                .icmp_error(row.error.0, row.error.1, &row.sent, row.quoted_bytes)
                .build();
            // Both hooks see it; it is one error.
            lab.run(BACK_FIRST, &error);
            lab.run(BACK_SECOND, &error);
            assert_eq!(lab.flow(&row.key).icmp_errors, row.told, "{}", row.what);
            let own = icmp_key(row.error.0, u16::from(row.error.1), ends.0, ends.1).0;
            assert_eq!(lab.flow(&own).icmp_errors, 0, "{}", row.what);
            assert_eq!(lab.flows().len(), 2, "{}", row.what);
            lab.clear();
        }
        assert!(lab.tallies().is_empty(), "{:?}", lab.tallies());
    });
}

/// From a router that is no end of the flow; about a flow that weir does not know.
#[test]
fn root_errors_open_no_flow_but_their_own() {
    require_root!();
    let lost = Frame::between(A, B).udp(5000, 6000);
    Lab::plain(|lab| {
        lab.run(BACK_FIRST, &Frame::between("192.0.2.1", A).icmp_error(11, 0, &lost, ALL).build());
        let flows: Vec<(FlowKey, FlowEntry)> = lab.flows();
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].0, icmp_key(11, 0, "192.0.2.1", A).0);
    });
}

/// What an error quotes of a datagram in pieces says nothing about pieces on the wire.
#[test]
fn root_a_quoted_fragment_is_found_but_not_remembered() {
    require_root!();
    let first = Frame::between(A, B).udp(5000, 6000).payload(&[7; 64]).fragment(5, 0, true);
    let later = Frame::between(A, B).udp(5000, 6000).payload(&[7; 64]).fragment(5, 72, false);
    let key = key(17, (A, 5000), (B, 6000)).0;
    let error = |quoted: &Frame| Frame::between(B, A).icmp_error(3, 3, quoted, ALL).build();
    Lab::plain(|lab| {
        lab.run(BACK_FIRST, &error(&first));
        lab.run(FIRST, &later.build());
        assert_eq!(lab.flows().len(), 1, "the later piece was not joined");
        lab.run(FIRST, &first.build());
        lab.run(BACK_FIRST, &error(&later));
        assert_eq!(lab.flow(&key).icmp_errors, 1);
    });
}
