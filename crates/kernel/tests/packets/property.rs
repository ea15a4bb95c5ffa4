//! Frames that nobody thought of: none is lost, none is changed ([`Lab::run`]
//! asserts it), and those that another parser understands are in the flow that
//! it names.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::flow::{FlowKey, Side};
use weir_core::loss::TallyReason;
use weir_testkit::packet::{Frame, protocol};
use weir_testkit::require_root;

use crate::expect::ends;
use crate::lab::{FIRST, Lab, runs};
use crate::rows::rows;

fn runner(cases: u32) -> TestRunner {
    // Not to files: a failing case is printed, and belongs into a table of rows.
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// Runs one frame on an empty table.
fn run(lab: &Lab, frame: &[u8]) -> Vec<(FlowKey, Side)> {
    lab.run(FIRST, frame);
    let flows = lab.flows().into_iter().map(|(key, entry)| (key, entry.points().next().unwrap().0)).collect();
    lab.clear();
    flows
}

/// The flow that `etherparse` sees, if it sees one of those that it knows.
fn reference(frame: &[u8]) -> Option<(FlowKey, Side)> {
    // It takes 0x9100 for a VLAN tag, which neither IEEE 802.1 nor Linux does.
    if [12, 16, 20].into_iter().any(|at| frame.get(at..at + 2) == Some(&[0x91, 0x00])) {
        return None;
    }
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (protocol, source, destination) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            // It looks behind it, weir does not.
            if header.protocol().0 == protocol::AUTHENTICATION {
                return None;
            }
            let mapped = Ipv4Addr::to_ipv6_mapped;
            (header.protocol(), mapped(&header.source_addr()), mapped(&header.destination_addr()))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            // A packet without payload, or of any length, to it.
            if header.payload_length() == 0 {
                return None;
            }
            (ip.payload().ip_number, header.source_addr(), header.destination_addr())
        }
        NetSlice::Arp(_) => return None,
    };
    let ports = match packet.transport.as_ref()? {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        _ => return None,
    };
    Some(ends(protocol.0, 0, (source, ports.0), (destination, ports.1)))
}

#[test]
fn root_random_bytes_are_counted() {
    require_root!();
    let bytes = (
        prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x1234]),
        prop::collection::vec(any::<u8>(), 0..200),
    )
        .prop_map(|(ethertype, bytes)| {
            let mut frame = vec![2; 12];
            frame.extend(ethertype.to_be_bytes());
            frame.extend(bytes);
            frame
        });
    Lab::plain(|lab| {
        runner(4000)
            .run(&bytes, |frame| {
                if runs(&frame) {
                    run(lab, &frame);
                }
                Ok(())
            })
            .unwrap();
    });
}

/// Valid frames with bytes changed, cut or added.
#[test]
fn root_spoilt_frames_are_counted_where_the_reference_sees_them() {
    require_root!();
    let frames: Vec<Vec<u8>> = rows().into_iter().map(|row| row.frame).collect();
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let spoilt = (
        prop::sample::select(frames),
        prop::collection::vec(change, 0..4),
        prop::option::of(any::<prop::sample::Index>()),
        0..80usize,
    )
        .prop_map(|(mut frame, changes, cut, padding)| {
            for (index, value) in changes {
                let index = index.index(frame.len());
                frame[index] = value;
            }
            match cut {
                Some(index) => frame.truncate(index.index(frame.len()).max(14)),
                None => frame.resize(frame.len() + padding, 0),
            }
            frame
        });
    Lab::plain(|lab| {
        let agreed = Cell::new(0);
        runner(6000)
            .run(&spoilt, |frame| {
                if !runs(&frame) {
                    return Ok(());
                }
                let before = lab.tally(FIRST, TallyReason::HeadersTooDeep).packets;
                let flows = run(lab, &frame);
                let too_deep = lab.tally(FIRST, TallyReason::HeadersTooDeep).packets > before;
                // The reference walks as many extension headers as there are.
                if let (Some(expected), false) = (reference(&frame), too_deep) {
                    prop_assert_eq!(flows, vec![expected]);
                    agreed.set(agreed.get() + 1);
                }
                Ok(())
            })
            .unwrap();
        assert!(agreed.get() > 500, "the reference understood {} frames", agreed.get());
    });
}

/// Whatever the ends are, both directions meet in one entry, in the reference's order.
#[test]
fn root_any_two_ends_have_one_key() {
    require_root!();
    let port = any::<u16>();
    let v4 = any::<(u32, u32)>().prop_map(|(a, b)| {
        (Ipv4Addr::from(a).to_string(), Ipv4Addr::from(if b % 8 == 0 { a } else { b }).to_string())
    });
    let v6 = any::<(u128, u128)>().prop_map(|(a, b)| {
        // Addresses that differ in a few bits only are the ones that are sorted wrongly.
        let near = if b % 2 == 0 { a ^ (1 << ((b >> 1) % 128)) } else { b };
        (Ipv6Addr::from(a).to_string(), Ipv6Addr::from(near).to_string())
    });
    let ends = (prop_oneof![v4, v6], port, port, any::<bool>());
    Lab::plain(|lab| {
        runner(1500)
            .run(&ends, |((a, b), from, to, tcp)| {
                let frame = |a: &str, b: &str, from, to| {
                    let frame = Frame::between(a, b);
                    if tcp { frame.tcp(from, to, "A") } else { frame.udp(from, to) }.build()
                };
                let (there, back) = (frame(&a, &b, from, to), frame(&b, &a, to, from));
                prop_assert_eq!(run(lab, &there), vec![reference(&there).unwrap()]);
                lab.run(FIRST, &there);
                lab.run(FIRST, &back);
                prop_assert_eq!(lab.flows().len(), 1);
                let number = if tcp { protocol::TCP } else { protocol::UDP };
                prop_assert_eq!(lab.flows()[0].0.protocol.0, number);
                lab.clear();
                Ok(())
            })
            .unwrap();
    });
}
