//! A flow that had packets while its programs were replaced: some were counted by the former's, some by this
//! version's.

use crate::abi::{self, flow, flow_direction, flow_point};

/// The flow as it is together. `now`: as this version's programs have it; `copied`: as they found it; `last`: as the
/// former's left it. `None`: one of them is no flow.
pub(super) fn flow(now: &[u8], copied: &[u8], last: &[u8]) -> Option<Vec<u8>> {
    let (mut now, copied, last): (flow, flow, flow) =
        (abi::from_bytes(now)?, abi::from_bytes(copied)?, abi::from_bytes(last)?);
    if last.incarnation != copied.incarnation || last.first_ns != copied.first_ns {
        // Another connection with the same name. This version's programs know nothing of its beginning.
        return Some(abi::as_bytes(&last).to_vec());
    }
    now.last_ns = now.last_ns.max(last.last_ns);
    now.state = now.state.max(last.state);
    now.rtt_us = now.rtt_us.max(last.rtt_us);
    now.resets = sum(now.resets, copied.resets, last.resets);
    now.icmp_errors = sum(now.icmp_errors, copied.icmp_errors, last.icmp_errors);
    each(&mut now.retransmits, &copied.retransmits, &last.retransmits);
    each(&mut now.zero_windows, &copied.zero_windows, &last.zero_windows);
    let directions = copied.direction.iter().zip(&last.direction);
    for (now, (copied, last)) in now.direction.iter_mut().zip(directions) {
        direction(now, copied, last);
    }
    Some(abi::as_bytes(&now).to_vec())
}

fn direction(now: &mut flow_direction, copied: &flow_direction, last: &flow_direction) {
    for (now, (copied, last)) in now.point.iter_mut().zip(copied.point.iter().zip(&last.point)) {
        point(now, copied, last);
    }
    // Sequence numbers come round.
    if last.next_seq.wrapping_sub(now.next_seq).cast_signed() > 0 {
        now.next_seq = last.next_seq;
    }
    now.tcp_flags |= last.tcp_flags;
    now.fin_acked |= last.fin_acked;
}

fn point(now: &mut flow_point, copied: &flow_point, last: &flow_point) {
    if now.owner == 0 {
        now.owner = last.owner;
    }
    now.packets += last.packets.saturating_sub(copied.packets);
    now.bytes += last.bytes.saturating_sub(copied.bytes);
}

fn each(now: &mut [u32; 2], copied: &[u32; 2], last: &[u32; 2]) {
    for (now, (copied, last)) in now.iter_mut().zip(copied.iter().zip(last)) {
        *now = sum(*now, *copied, *last);
    }
}

fn sum(now: u32, copied: u32, last: u32) -> u32 {
    now.saturating_add(last.saturating_sub(copied))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(packets: u64, next_seq: u32, tcp_flags: u8, state: u8) -> flow {
        let mut flow = flow { first_ns: 7, state, ..flow::default() };
        flow.direction[0].point[0] = flow_point { packets, bytes: packets * 100, owner: 3 };
        flow.direction[0].next_seq = next_seq;
        flow.direction[0].tcp_flags = tcp_flags;
        flow
    }

    fn settled(now: &flow, copied: &flow, last: &flow) -> flow {
        let bytes = super::flow(abi::as_bytes(now), abi::as_bytes(copied), abi::as_bytes(last));
        abi::from_bytes(&bytes.unwrap()).unwrap()
    }

    #[test]
    fn what_both_counted_is_added() {
        let (copied, last) = (of(10, u32::MAX, 2, 0), of(12, 50, 0x12, 1));
        let mut now = of(15, 40, 2, 0);
        now.direction[1].point[0] = flow_point { packets: 1, bytes: 60, owner: 4 };
        let both = settled(&now, &copied, &last);
        let point = both.direction[0].point[0];
        assert_eq!((point.packets, point.bytes, point.owner), (17, 1700, 3));
        assert_eq!((both.direction[0].next_seq, both.direction[0].tcp_flags, both.state), (50, 0x12, 1));
        assert_eq!(both.direction[1].point[0].packets, 1);
    }

    #[test]
    fn another_connection_is_taken_as_it_is() {
        let (now, copied) = (of(15, 40, 2, 0), of(10, 1, 2, 0));
        let last = flow { incarnation: 1, ..of(3, 9, 2, 0) };
        assert_eq!(abi::as_bytes(&settled(&now, &copied, &last)), abi::as_bytes(&last));
        assert_eq!(super::flow(&[1, 2], abi::as_bytes(&copied), abi::as_bytes(&last)), None);
    }
}
