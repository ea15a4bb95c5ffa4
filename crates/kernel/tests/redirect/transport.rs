//! First packets and answers of every transport protocol.

use weir_testkit::packet::Frame;

/// Sender and receiver.
pub(crate) type Macs = ([u8; 6], [u8; 6]);
/// Address and port.
pub(crate) type End = (&'static str, u16);

/// A transport protocol as the tables speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Echo,
    Sctp,
    Other,
}

impl Transport {
    /// A first packet or an answer, with odd and even lengths of payload.
    pub(crate) fn packet(self, from: End, to: End, answer: bool, macs: Macs) -> Frame {
        let frame = Frame::between(from.0, to.0).macs(macs.0, macs.1);
        match self {
            Self::Tcp => frame
                .tcp(from.1, to.1, if answer { "SA" } else { "S" })
                .tcp_options(&[2, 4, 5, 180, 1, 1, 4, 2]),
            Self::Udp => frame.udp(from.1, to.1).payload(b"odd"),
            Self::Echo if answer => frame.echo_reply(to.1, 1).payload(b"the answer"),
            Self::Echo => frame.echo_request(from.1, 1).payload(b"ping!"),
            Self::Sctp => frame.sctp_complete(from.1, to.1).payload(&[1, 0, 0, 4]),
            Self::Other => frame.raw(47).payload(b"\0\0\x88\x0bsome"),
        }
    }
}
