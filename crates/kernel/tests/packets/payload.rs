//! Payload for audit: which flows it is copied of, what of it, and what is told
//! of the rest.

use weir_core::flow::{CaptureState, FlowKey, Side};
use weir_testkit::packet::Frame;
use weir_testkit::require_root;

use crate::expect::{A, A6, B, B6, key};
use crate::lab::{BACK_FIRST, BACK_SECOND, FIRST, Lab, PAYLOAD_RING_BYTES, Piece, SECOND, TURN_BYTES_MAX};

const FIN: u8 = 1;
const RST: u8 = 4;

/// A connection from `A` to `B`, whose ends both begin at sequence number 1000.
pub(crate) struct Talk<'lab> {
    pub(crate) lab: &'lab mut Lab,
    ends: [&'static str; 2],
    port: u16,
    pub(crate) key: FlowKey,
    pub(crate) client: Side,
}

impl<'lab> Talk<'lab> {
    pub(crate) fn new(lab: &'lab mut Lab, ends: [&'static str; 2], port: u16) -> Self {
        let (key, client) = key(6, (ends[0], port), (ends[1], 80));
        Self { lab, ends, port, key, client }
    }

    pub(crate) fn opened(lab: &'lab mut Lab) -> Self {
        let talk = Self::new(lab, [A, B], 40000);
        talk.open();
        talk
    }

    fn open(&self) {
        self.client("S", 1000, 0, b"");
        self.server("SA", 1000, 1001, b"");
        self.client("A", 1001, 1001, b"");
    }

    pub(crate) fn client(&self, flags: &str, seq: u32, ack: u32, payload: &[u8]) {
        let frame = Frame::between(self.ends[0], self.ends[1]).tcp(self.port, 80, flags);
        self.lab.run(FIRST, &frame.seq(seq).ack(ack).payload(payload).build());
    }

    pub(crate) fn server(&self, flags: &str, seq: u32, ack: u32, payload: &[u8]) {
        let frame = Frame::between(self.ends[1], self.ends[0]).tcp(80, self.port, flags);
        self.lab.run(BACK_FIRST, &frame.seq(seq).ack(ack).payload(payload).build());
    }

    fn capture(&self) -> CaptureState {
        self.lab.flow(&self.key).capture
    }

    pub(crate) fn pieces(&mut self) -> Vec<Piece> {
        self.lab.payloads()
    }

    /// What the client need not be heard of, before `client`; and the server.
    fn skip(&self, client: Option<u32>, server: Option<u32>) {
        let mut until = [client, server];
        if self.client == Side::High {
            until.swap(0, 1);
        }
        self.lab.want(&self.key, until, false);
    }
}

/// Numbers that show where they stood.
pub(crate) fn counting(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// A request, so long.
fn request(length: usize) -> Vec<u8> {
    let mut request = b"GET / HTTP/1.1\r\n".to_vec();
    request.extend(counting(length.saturating_sub(request.len())));
    request.truncate(length);
    request
}

#[test]
fn root_every_length_is_copied_exactly_and_once() {
    require_root!();
    Lab::with_payload(|lab| {
        for (ends, port) in [([A, B], 40000), ([A6, B6], 40001)] {
            let mut talk = Talk::new(lab, ends, port);
            talk.open();
            let mut seq = 1001;
            for length in [1, 2, 63, 64, 65, 255, 256, 257, 1024, 1025, 1448, 1536, 1537, 3000] {
                let payload = request(length);
                talk.client("PA", seq, 1001, &payload);
                // At its second hook it is not taken again.
                let frame = Frame::between(ends[0], ends[1]).tcp(port, 80, "PA").seq(seq).ack(1001);
                talk.lab.run(SECOND, &frame.payload(&payload).build());
                let expected = Piece {
                    hook: talk.lab.hook(FIRST),
                    key: talk.key,
                    from: talk.client,
                    client: Some(talk.client),
                    first_seq: [Some(1001); 2],
                    seq,
                    ack: 1001,
                    peer_next_seq: 1001,
                    tcp_flags: 0x18,
                    payload_bytes: length as u32,
                    payload,
                    left_out_bytes: 0,
                    frame_chain: None,
                };
                assert_eq!(talk.pieces(), [expected], "{length}");
                seq += length as u32;
            }
            assert_eq!(talk.capture(), CaptureState::On);
        }
    });
}

#[test]
fn root_silent_packets_cost_nothing_and_ends_are_told() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::opened(lab);
        talk.client("A", 1001, 1001, b"");
        assert_eq!((talk.pieces(), talk.capture()), (Vec::new(), CaptureState::Undecided));
        talk.client("PA", 1001, 1001, b"GET / HTTP/1.0\r\n\r\n");
        talk.server("A", 1001, 1019, b"");
        talk.server("FPA", 1001, 1019, b"HTTP/1.0 200 OK\r\n\r\n");
        talk.client("A", 1019, 1021, b"");
        talk.client("FA", 1019, 1021, b"");
        talk.server("R", 1021, 0, b"");
        let told: Vec<_> = talk
            .pieces()
            .iter()
            .map(|piece| {
                (piece.from == talk.client, piece.seq, piece.payload_bytes, piece.tcp_flags & (FIN | RST))
            })
            .collect();
        let expected =
            [(true, 1001, 18, 0), (false, 1001, 19, FIN), (true, 1019, 0, FIN), (false, 1021, 0, RST)];
        assert_eq!(told, expected);
    });
}

/// What begins messages of the protocols that weir reads, at either end.
#[test]
fn root_beginnings_of_known_protocols_are_plausible() {
    require_root!();
    let beginnings: [&[u8]; 22] = [
        b"GET / HTTP/1.1\r\n",
        b"\r\nPOST / HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
        b"\0\0\x1d\x01\x05\0\0\0\x05\x88",
        b"*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
        b"+OK\r\n",
        b"-ERR\r\n",
        b"%1\r\n",
        b"\x4a\0\0\0\x0a8.0.36",
        b"\x10\0\0\0\xffj\x04Too many",
        b"\x21\0\0\x01\x85\xa6\xff\0\0\0\0\x01",
        b"\x09\0\0\0\x03SELECT 1",
        b"\x01\0\0\x01\x01\x17\0\0\x02",
        b"\0\0\0\x29\0\x03\0\0user\0me\0",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"N",
        b"1\0\0\0\x04t\0\0\0\x0a",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www",
    ];
    Lab::with_payload(|lab| {
        for (index, beginning) in beginnings.iter().enumerate() {
            for server in [false, true] {
                let port = 41000 + 2 * index as u16 + u16::from(server);
                let mut talk = Talk::new(lab, [A, B], port);
                talk.open();
                let send = if server { Talk::server } else { Talk::client };
                send(&talk, "PA", 1001, 1001, beginning);
                assert_eq!(talk.capture(), CaptureState::On, "{}", beginning.escape_ascii());
                assert_eq!(talk.pieces()[0].payload, *beginning);
                talk.lab.clear();
            }
        }
    });
}

/// Kafka, NFS, encrypted data of TLS.
const FOREIGN: [&[u8]; 3] = [
    b"\0\0\0\x2f\0\x12\0\x03\0\0\0\x01",
    b"\x80\0\0\x28\x1c\x2a\x11\x07\0\0\0\0",
    b"\x17\x03\x03\x04\x05abcdefgh",
];

#[test]
fn root_what_no_protocol_begins_with_is_not_copied() {
    require_root!();
    Lab::with_payload(|lab| {
        for (index, bytes) in FOREIGN.iter().enumerate() {
            let mut talk = Talk::new(lab, [A, B], 40000 + index as u16);
            talk.open();
            talk.client("PA", 1001, 1001, bytes);
            assert_eq!(talk.capture(), CaptureState::Undecided, "the server may say more");
            assert!(talk.lab.flow(&talk.key).is_not_understood());
            // In the middle of a turn nobody looks.
            talk.client("PA", 1001 + bytes.len() as u32, 1001, b"GET / HTTP/1.1\r\n");
            talk.server("PA", 1001, 1029, bytes);
            assert_eq!(talk.capture(), CaptureState::NotUnderstood);
            talk.client("PA", 1101, 1101, b"GET / HTTP/1.1\r\n");
            talk.client("FA", 1117, 1101, b"");
            assert_eq!(talk.pieces(), []);
        }
    });
}

#[test]
fn root_a_connection_joined_late_is_looked_at_in_later_turns() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::new(lab, [A, B], 40000);
        for turn in 0..20 {
            talk.server("A", 5000 + 100 * turn, 7000 + 10 * turn, &[0x80; 100]);
            talk.client("A", 7000 + 10 * turn, 5100 + 100 * turn, &[0x80; 10]);
        }
        assert_eq!((talk.pieces(), talk.capture()), (Vec::new(), CaptureState::Undecided));
        talk.server("A", 8000, 9000, &[0x80; 100]);
        talk.client("A", 9000, 8100, b"GET /late HTTP/1.1\r\n\r\n");
        let pieces = talk.pieces();
        assert_eq!(pieces.len(), 1);
        assert_eq!((pieces[0].client, pieces[0].first_seq), (None, [None, None]));
        assert_eq!((pieces[0].seq, pieces[0].payload.len()), (9000, 22));
    });
}

#[test]
fn root_a_connection_joined_late_is_given_up_in_the_end() {
    require_root!();
    Lab::with_payload(|lab| {
        let talk = Talk::new(lab, [A, B], 40000);
        for turn in 0..63 {
            talk.server("A", 5000 + 100 * turn, 7000 + 10 * turn, &[0x80; 100]);
            talk.client("A", 7000 + 10 * turn, 5100 + 100 * turn, &[0x80; 10]);
        }
        assert_eq!(talk.capture(), CaptureState::Undecided);
        talk.server("A", 15000, 17000, &[0x80; 100]);
        talk.client("A", 17000, 15100, &[0x80; 10]);
        assert_eq!(talk.capture(), CaptureState::NotUnderstood);
    });
}

#[test]
fn root_what_is_skipped_is_not_copied() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::opened(lab);
        talk.server("A", 1001, 1001, b"HTTP/1.1 200 OK\r\n\r\n");
        talk.pieces();
        talk.skip(None, Some(4020));
        talk.server("A", 1020, 1001, &counting(1000));
        talk.server("A", 2020, 1001, &counting(1000));
        assert_eq!(talk.pieces(), [], "inside of it nothing is told");
        // The other end is not meant.
        talk.client("PA", 1001, 1020, b"GET /next HTTP/1.1\r\n\r\n");
        assert_eq!(talk.pieces()[0].payload.len(), 22);

        // Its last packet brings what follows too.
        talk.server("A", 3020, 1001, &counting(1010));
        let [piece] = &talk.pieces()[..] else { panic!() };
        assert_eq!((piece.seq, piece.payload_bytes), (4020, 10));
        assert_eq!(piece.payload, counting(1010)[1000..]);
        talk.server("A", 4030, 1001, &counting(7));
        assert_eq!(talk.pieces()[0].payload, counting(7));
    });
}

#[test]
fn root_a_skipped_stream_tells_where_it_is() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::opened(lab);
        talk.server("A", 1001, 1001, b"HTTP/1.1 200 OK\r\n\r\n");
        talk.pieces();
        let told = |talk: &mut Talk<'_>| -> Vec<_> {
            talk.pieces()
                .iter()
                .map(|piece| (piece.seq, piece.payload_bytes, piece.tcp_flags & (FIN | RST)))
                .collect()
        };
        // Where it ends ...
        talk.skip(None, Some(2020));
        talk.server("A", 1020, 1001, &counting(1000));
        assert_eq!(told(&mut talk), [(2020, 0, 0)]);
        // ... every 256 MiB ...
        let mark = 0x1000_0000;
        talk.skip(None, Some(mark + 100_000));
        talk.server("A", mark - 1500, 1001, &counting(1000));
        assert_eq!(told(&mut talk), []);
        talk.server("A", mark - 500, 1001, &counting(1000));
        assert_eq!(told(&mut talk), [(mark + 500, 0, 0)]);
        // ... and where the stream ends before.
        talk.server("FA", mark + 500, 1001, &counting(100));
        assert_eq!(told(&mut talk), [(mark + 600, 0, FIN)]);
        talk.client("R", 1001, 0, b"");
        let pieces = talk.pieces();
        assert_eq!((pieces[0].tcp_flags & RST, pieces[0].peer_next_seq), (RST, mark + 601));
    });
}

/// Numbers come round: what was skipped once is not skipped for ever.
#[test]
fn root_an_old_skip_is_not_taken_for_a_new_one() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::opened(lab);
        talk.server("A", 1001, 1001, b"HTTP/1.1 200 OK\r\n\r\n");
        talk.pieces();
        talk.skip(None, Some(2000));
        for far in [1u32 << 30, 1 << 31, 3 << 30] {
            let seq = 2000u32.wrapping_add(far).wrapping_sub(1);
            talk.server("A", seq, 1001, &counting(10));
            let copied = talk.pieces()[0].payload.len();
            assert_eq!(copied, 10, "{far}");
        }
        // And one that crosses the end of the numbers holds.
        talk.skip(None, Some(500));
        talk.server("A", 0xffff_ff00, 1001, &counting(300));
        let pieces = talk.pieces();
        assert_eq!((pieces.len(), pieces[0].seq, pieces[0].payload_bytes), (1, 44, 0), "a 256 MiB mark");
    });
}

#[test]
fn root_what_is_wanted_is_of_one_connection() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::opened(lab);
        talk.client("PA", 1001, 1001, &request(50));
        talk.lab.want(&talk.key, [None, None], true);
        assert_eq!(talk.pieces().len(), 1);
        talk.client("PA", 1051, 1001, &request(50));
        talk.server("PA", 1001, 1101, &request(50));
        talk.client("FA", 1101, 1051, b"");
        assert_eq!((talk.pieces(), talk.capture()), (Vec::new(), CaptureState::OffAsked));
        // It ends, and its numbers are used again.
        talk.server("R", 1051, 0, b"");
        talk.open();
        assert_eq!(talk.capture(), CaptureState::Undecided);
        talk.client("PA", 1001, 1001, &request(60));
        assert_eq!(talk.pieces()[0].payload.len(), 60);
        talk.lab.forget_wanted(&talk.key);
        talk.lab.forget_wanted(&talk.key);
    });
}

#[test]
fn root_of_a_long_turn_the_lengths_are_told() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::opened(lab);
        let (mut sent, mut copied, mut told) = (0u32, 0u32, 0u32);
        let mut count = |talk: &mut Talk<'_>| {
            for piece in talk.pieces() {
                assert_eq!(piece.seq, 1001 + told);
                told += piece.payload_bytes;
                copied += piece.payload.len() as u32;
            }
            (told, copied)
        };
        while sent < TURN_BYTES_MAX + 5000 {
            talk.client("A", 1001 + sent, 1001, &request(3000));
            sent += 3000;
            assert_eq!(count(&mut talk), (sent, sent.min(TURN_BYTES_MAX)));
        }
        // What the other end says meanwhile it has not heard yet.
        talk.server("A", 1001, 1001, &counting(10));
        talk.pieces();
        talk.client("A", 1001 + sent, 1001, &request(3000));
        assert_eq!(talk.pieces()[0].payload.len(), 0);
        // The next turn is another one.
        talk.client("A", 4001 + sent, 1011, &request(3000));
        assert_eq!(talk.pieces()[0].payload.len(), 3000);
    });
}

/// Nobody reads: bodies go first, then new flows, and what is lost is counted.
#[test]
fn root_under_overload_bodies_go_first_and_new_flows_last() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut talk = Talk::opened(lab);
        talk.server("A", 1001, 1001, b"HTTP/1.1 200 OK\r\n\r\n");
        let mut sent = 19;
        while talk.lab.lost("payload_shed_bytes") == 0 {
            talk.server("A", 1001 + sent, 1001, &counting(3000));
            sent += 3000;
            assert!(sent < PAYLOAD_RING_BYTES);
        }
        // 3,000 bytes take a record for 4,096.
        assert!(sent > PAYLOAD_RING_BYTES * 3 / 8, "{sent}");
        // The head of a turn is copied all the same, and so are new flows, until
        // three quarters are full.
        let mut port = 50000;
        while talk.lab.lost("payload_shed_bytes") == 3000 {
            let other = Talk::new(talk.lab, [A, B], port);
            other.open();
            other.client("PA", 1001, 1001, &request(3000));
            if other.capture() == CaptureState::Overload {
                break;
            }
            assert_eq!(other.capture(), CaptureState::On);
            port += 1;
            assert!(port < 50040);
        }
        assert!(port > 50005, "{port}");
        // What is let in already goes on until there is no room at all.
        let mut seq = 1001;
        while talk.lab.lost("payload_ring_full") == 0 {
            talk.client("PA", seq, 1001 + sent, &request(2000));
            talk.server("PA", 1001 + sent, seq + 2000, &counting(10));
            (seq, sent) = (seq + 2000, sent + 10);
            assert!(seq < 1001 + 2 * PAYLOAD_RING_BYTES);
        }
        let lost = talk.lab.lost("payload_ring_full");
        let pieces = talk.pieces();
        let of_talk = |piece: &&Piece| piece.key == talk.key;
        let left_out: u32 =
            pieces.iter().filter(of_talk).map(|piece| piece.payload_bytes - piece.payload.len() as u32).sum();
        assert_eq!(u64::from(left_out), talk.lab.lost("payload_shed_bytes"));
        let told = pieces.iter().filter(of_talk).count() as u64;
        let turns = u64::from((seq - 1001) / 2000);
        assert_eq!(told + lost, 1 + u64::from(sent - 19 - 10 * turns as u32) / 3000 + 2 * turns);
    });
}

#[test]
fn root_dns_is_copied_both_ways() {
    require_root!();
    Lab::with_payload(|lab| {
        for (a, b) in [(A, B), (A6, B6)] {
            for port in [53, 5353] {
                let (key, side) = key(17, (a, 5000), (b, port));
                lab.run(FIRST, &Frame::between(a, b).udp(5000, port).payload(&counting(30)).build());
                lab.run(BACK_FIRST, &Frame::between(b, a).udp(port, 5000).payload(&counting(700)).build());
                lab.run(BACK_SECOND, &Frame::between(b, a).udp(port, 5000).payload(&counting(700)).build());
                let told: Vec<_> = lab
                    .payloads()
                    .into_iter()
                    .map(|piece| (piece.key, piece.from, piece.payload_bytes, piece.payload))
                    .collect();
                let expected = [(key, side, 30, counting(30)), (key, side.other(), 700, counting(700))];
                assert_eq!(told, expected);
            }
            lab.run(FIRST, &Frame::between(a, b).udp(5000, 54).payload(&counting(30)).build());
            assert_eq!(lab.payloads(), []);
        }
    });
}

/// Without audit nothing of all this happens.
#[test]
fn root_nothing_is_copied_unasked() {
    require_root!();
    Lab::plain(|lab| {
        let mut talk = Talk::opened(lab);
        talk.client("PA", 1001, 1001, &request(50));
        talk.lab.run(FIRST, &Frame::between(A, B).udp(5000, 53).payload(&counting(30)).build());
        assert_eq!((talk.pieces(), talk.capture()), (Vec::new(), CaptureState::Undecided));
    });
}

#[test]
fn root_nothing_is_copied_while_nobody_reads() {
    require_root!();
    Lab::with_payload(|lab| {
        lab.copy_payload(false);
        let mut talk = Talk::opened(lab);
        talk.client("PA", 1001, 1001, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(talk.pieces(), []);
        assert_eq!(talk.capture(), CaptureState::Undecided, "who comes later may want it");
    });
}

#[test]
fn root_a_flow_from_before_the_reader_is_joined_late() {
    require_root!();
    Lab::with_payload(|lab| {
        lab.copy_payload(false);
        Talk::opened(lab).client("PA", 1001, 1001, b"GET / HTTP/1.1\r\n\r\n");
        lab.copy_payload(true);
        let mut talk = Talk::new(lab, [A, B], 40000);
        // The middle of a body first: one look is not enough to turn it down.
        talk.server("PA", 1001, 1020, &[0xff; 100]);
        assert_eq!(talk.capture(), CaptureState::Undecided);
        talk.client("PA", 1020, 1101, b"GET /2 HTTP/1.1\r\n\r\n");
        let pieces = talk.pieces();
        assert_eq!(pieces.iter().map(|piece| piece.first_seq).collect::<Vec<_>>(), [[None; 2]]);
        assert_eq!(talk.capture(), CaptureState::On);
    });
}
