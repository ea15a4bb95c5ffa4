//! Frames that end too early: wherever one is cut, it is counted once.

use weir_core::loss::TallyReason;
use weir_testkit::packet::{Frame, protocol};
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6};
use crate::lab::{FIRST, Lab, runs};
use crate::rows::{Outcome, rows};

/// A frame cut at each byte, wherever the kernel takes it.
fn cuts(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..frame.len()).map(|length| &frame[..length]).filter(|frame| runs(frame))
}

/// [`Lab::run_all`] asserts that each is counted exactly once.
#[test]
fn root_every_frame_cut_at_every_byte_is_counted() {
    require_root!();
    Lab::plain(|lab| {
        for row in rows() {
            lab.run_all(FIRST, true, cuts(&row.frame));
            lab.clear();
        }
    });
}

/// What the IP header promises is missing: never a flow, whatever is left of it.
#[test]
fn root_a_cut_ip_packet_is_truncated() {
    require_root!();
    let frames = [
        Frame::between(A, B)
            .vlan(1)
            .ipv4_options(&[1; 12])
            .tcp(40000, 80, "S")
            .tcp_options(&[1; 20])
            .payload(&[7; 30]),
        Frame::between(A, B).service_vlan(1).vlan(2).udp(5000, 6000).payload(&[7; 30]),
        Frame::between(A6, B6)
            .vlan(1)
            .extension(protocol::HOP_BY_HOP, &[0; 6])
            .extension(protocol::AUTHENTICATION, &[0; 22])
            .sctp(7, 8)
            .payload(&[7; 30]),
        Frame::between(A6, B6).vlan(2).echo_request(1, 2).payload(&[7; 30]),
    ];
    Lab::plain(|lab| {
        let mut cut = 0;
        for frame in frames.map(|frame| frame.build()) {
            lab.run_all(FIRST, true, cuts(&frame));
            cut += cuts(&frame).count() as u64;
            assert!(lab.flows().is_empty(), "{:?}", lab.flows());
            assert_eq!(lab.tally(FIRST, TallyReason::Truncated).packets, cut);
        }
        assert_eq!(lab.tallies().len(), 1);
    });
}

/// The table of rows has at least one flow and one refusal for each test above.
#[test]
fn the_rows_are_worth_cutting() {
    let rows = rows();
    let flows = rows.iter().filter(|row| matches!(row.outcome, Outcome::Flow(..))).count();
    assert!(flows > 40 && rows.len() - flows > 30, "{flows} of {}", rows.len());
}
