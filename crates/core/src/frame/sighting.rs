//! Where a frame was seen, as far as its link layer says it.

use super::Link;
use crate::event::Hook;

/// Sent by whoever captured it. What is lower was received (or passed by).
const PACKET_OUTGOING: u16 = 4;

/// Where and on which way a frame was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Index of the device, on the host where it was captured.
    pub ifindex: Option<u32>,
    /// Which way.
    pub hook: Option<Hook>,
}

impl Link {
    /// What a captured frame says of the place where it was seen: Linux's "cooked" frames do,
    /// for their captures may be of many devices at once.
    #[must_use]
    pub fn sighting(self, frame: &[u8]) -> Sighting {
        match (self, frame) {
            (Self::Cooked, [high, low, ..]) => {
                Sighting { ifindex: None, hook: hook(u16::from_be_bytes([*high, *low])) }
            }
            (Self::Cooked2, [_, _, _, _, a, b, c, d, _, _, kind, ..]) => {
                Sighting { ifindex: Some(u32::from_be_bytes([*a, *b, *c, *d])), hook: hook(u16::from(*kind)) }
            }
            _ => Sighting::default(),
        }
    }
}

fn hook(kind: u16) -> Option<Hook> {
    match kind {
        0..PACKET_OUTGOING => Some(Hook::Ingress),
        PACKET_OUTGOING => Some(Hook::Egress),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cooked_frames_say_where_they_were_seen() {
        let mut frame = [0; 20];
        let received = Sighting { ifindex: None, hook: Some(Hook::Ingress) };
        assert_eq!(Link::Cooked.sighting(&frame), received);
        frame[1] = 4;
        assert_eq!(Link::Cooked.sighting(&frame).hook, Some(Hook::Egress));
        frame[1] = 9;
        assert_eq!(Link::Cooked.sighting(&frame).hook, None);
        (frame[7], frame[10]) = (3, 4);
        let sent = Sighting { ifindex: Some(3), hook: Some(Hook::Egress) };
        assert_eq!(Link::Cooked2.sighting(&frame), sent);
        assert_eq!(Link::Cooked2.sighting(&frame[..10]), Sighting::default());
        assert_eq!(Link::Ethernet.sighting(&frame), Sighting::default());
    }
}
