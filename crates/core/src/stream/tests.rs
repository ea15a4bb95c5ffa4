use proptest::prelude::*;

use super::*;

/// What one end sent, as delivered: bytes, `_` for each missing one, then how it ended.
#[derive(Default, Debug, PartialEq, Clone)]
struct Got {
    bytes: [Vec<u8>; 2],
    gaps: [Vec<(u64, Gap)>; 2],
    ends: [Option<End>; 2],
}

#[derive(Default)]
struct Wire {
    connection: Connection,
    got: Got,
}

impl Wire {
    fn send(&mut self, from: Side, segment: Segment<'_>) -> &mut Self {
        let got = &mut self.got;
        self.connection.segment(from, &segment, &mut |side, piece| note(got, side, piece));
        self
    }

    fn finish(&mut self) -> &mut Self {
        let got = &mut self.got;
        self.connection.finish(End::Unseen, &mut |side, piece| note(got, side, piece));
        self
    }

    fn text(&self, side: Side) -> String {
        String::from_utf8_lossy(&self.got.bytes[side.index()]).into_owned()
    }
}

fn note(got: &mut Got, side: Side, piece: Piece<'_>) {
    let index = side.index();
    assert!(got.ends[index].is_none(), "nothing comes after the end");
    match piece {
        Piece::Data(bytes) => got.bytes[index].extend_from_slice(bytes),
        Piece::Gap(length, why) => {
            assert!(length > 0);
            got.bytes[index].extend(std::iter::repeat_n(b'_', usize::try_from(length).unwrap().min(100)));
            got.gaps[index].push((length, why));
        }
        Piece::LeftOut(length) => panic!("{length} bytes that nobody skipped"),
        Piece::End(end) => got.ends[index] = Some(end),
    }
}

fn syn(seq: u32) -> Segment<'static> {
    Segment { seq, syn: true, ..Segment::default() }
}

fn data(seq: u32, payload: &str) -> Segment<'_> {
    Segment { seq, payload: payload.as_bytes(), payload_bytes: payload.len() as u32, ..Segment::default() }
}

fn ack(seq: u32, ack: u32) -> Segment<'static> {
    Segment { seq, ack: Some(ack), ..Segment::default() }
}

const CLIENT: Side = Side::High;
const SERVER: Side = Side::Low;

fn open() -> Wire {
    let mut wire = Wire::default();
    wire.send(CLIENT, syn(99)).send(SERVER, Segment { ack: Some(100), ..syn(499) });
    assert_eq!(wire.connection.client(), Some(CLIENT));
    wire
}

#[test]
fn order_is_restored_and_the_first_copy_counts() {
    let mut wire = open();
    wire.send(CLIENT, data(104, "ef"))
        .send(CLIENT, data(102, "cdXXgh"))
        .send(CLIENT, data(100, "abYYZZ"))
        .send(CLIENT, data(100, "OLDOLD"))
        .send(CLIENT, data(107, "?i"));
    assert_eq!(wire.text(CLIENT), "abcdefghi");
    assert_eq!(wire.got.gaps[CLIENT.index()], []);
}

#[test]
fn sequence_numbers_wrap() {
    let mut wire = Wire::default();
    wire.send(CLIENT, syn(u32::MAX - 2)).send(CLIENT, data(1, "cd")).send(CLIENT, data(u32::MAX - 1, "xab"));
    assert_eq!(wire.text(CLIENT), "xabcd");
}

#[test]
fn an_acknowledged_hole_is_lost() {
    let mut wire = open();
    wire.send(CLIENT, data(100, "ab")).send(CLIENT, data(105, "fg"));
    assert_eq!(wire.text(CLIENT), "ab");
    wire.send(SERVER, ack(500, 107));
    assert_eq!(wire.text(CLIENT), "ab___fg");
    assert_eq!(wire.got.gaps[CLIENT.index()], [(3, Gap::Lost)]);
}

#[test]
fn a_bare_acknowledgement_may_overtake_its_data_but_an_answer_may_not() {
    let mut wire = open();
    wire.send(SERVER, ack(500, 103)).send(CLIENT, data(100, "abc"));
    assert_eq!(wire.text(CLIENT), "abc");
    wire.send(SERVER, Segment { ack: Some(110), ..data(500, "answer") });
    assert_eq!(wire.got.gaps[CLIENT.index()], [(7, Gap::Lost)]);
    assert_eq!(wire.text(SERVER), "answer");
}

/// What is delivered, in its order: who, and what (`_`: a hole).
fn order(segments: &[(Side, Segment<'_>)]) -> String {
    let mut wire = open();
    let mut order = String::new();
    for (from, segment) in segments {
        wire.connection.segment(*from, segment, &mut |side, piece| {
            order.push_str(if side == CLIENT { " c:" } else { " s:" });
            match piece {
                Piece::Data(bytes) => order.push_str(&String::from_utf8_lossy(bytes)),
                Piece::Gap(..) => order.push('_'),
                Piece::LeftOut(_) | Piece::End(_) => order.push('.'),
            }
        });
    }
    order
}

fn says(seq: u32, ack: u32, payload: &str) -> Segment<'_> {
    Segment { ack: Some(ack), ..data(seq, payload) }
}

#[test]
fn a_hole_comes_after_what_was_sent_before_it_was_acknowledged() {
    // The answer to `ab` was lost, and `cd` acknowledges it, but was seen before `ab`.
    let swapped =
        [(CLIENT, says(102, 504, "cd")), (CLIENT, says(100, 500, "ab")), (SERVER, says(504, 104, "CD"))];
    assert_eq!(order(&swapped), " c:ab s:_ c:cd s:CD");
    // `ab` was lost too.
    let both =
        [(CLIENT, says(102, 504, "cd")), (SERVER, says(504, 104, "CD")), (CLIENT, says(104, 506, "ef"))];
    assert_eq!(order(&both), " c:_ s:_ c:cd s:CD c:ef");
    let bare = [(CLIENT, ack(102, 504)), (CLIENT, says(102, 504, "cd")), (SERVER, says(504, 104, "CD"))];
    assert_eq!(order(&bare), " c:_ s:_ c:cd s:CD");
    // Nothing is lost: what is said first comes first.
    let late =
        [(SERVER, says(500, 102, "AB")), (CLIENT, says(102, 502, "cd")), (SERVER, says(502, 104, "CD"))];
    assert_eq!(order(&late), " c:_ s:AB c:cd s:CD");
}

#[test]
fn a_cut_packet_leaves_a_gap_of_known_length() {
    let mut wire = open();
    wire.send(CLIENT, Segment { payload_bytes: 10, ..data(100, "abc") }).send(CLIENT, data(110, "x"));
    assert_eq!(wire.text(CLIENT), "abc_______x");
    assert_eq!(wire.got.gaps[CLIENT.index()], [(7, Gap::Cut)]);
    let held = Segment { payload_bytes: 3, ..data(113, "n") };
    wire.send(CLIENT, held).send(CLIENT, data(111, "lm"));
    assert_eq!(wire.text(CLIENT), "abc_______xlmn__");
}

#[test]
fn what_waits_is_bounded_and_comes_out_with_a_gap() {
    let mut wire = open();
    let kilobyte = "k".repeat(1000);
    for index in 0..2_000 {
        wire.send(CLIENT, data(200 + index * 1000, &kilobyte));
        assert!(wire.connection.memory_bytes() <= (1 << 20) + 2_000);
    }
    assert_eq!(wire.got.gaps[CLIENT.index()], [(100, Gap::NotSeen)]);
    assert_eq!(wire.got.bytes[CLIENT.index()].len(), 100 + 2_000_000);
}

#[test]
fn fin_ends_one_direction_and_reset_both() {
    let mut wire = open();
    wire.send(CLIENT, Segment { fin: true, ..data(102, "c") }).send(CLIENT, data(100, "ab"));
    assert_eq!(wire.got.ends, [None, Some(End::Fin)]);
    wire.send(CLIENT, data(103, "after the end")).send(SERVER, data(500, "still here"));
    assert_eq!((wire.text(CLIENT).as_str(), wire.text(SERVER).as_str()), ("abc", "still here"));
    wire.send(SERVER, Segment { rst: true, ..data(9_000_000, "") });
    assert_eq!(wire.got.ends[SERVER.index()], None, "a reset from nowhere");
    wire.send(SERVER, Segment { rst: true, ..data(510, "") });
    assert_eq!(wire.got.ends, [Some(End::Reset), Some(End::Fin)]);
    assert!(wire.connection.is_over());
}

#[test]
fn data_may_come_with_the_syn() {
    let mut wire = Wire::default();
    wire.send(CLIENT, Segment { syn: true, ..data(99, "early") }).send(CLIENT, data(105, "!"));
    assert_eq!(wire.text(CLIENT), "early!");
    assert!(!wire.connection.is_midstream(CLIENT));
}

#[test]
fn a_stream_joined_late_begins_where_it_is_joined() {
    let mut wire = Wire::default();
    wire.send(CLIENT, data(41, "k"))
        .send(CLIENT, data(42, "GET"))
        .send(CLIENT, data(41, "k"))
        .send(CLIENT, data(30, "before the start"))
        .send(CLIENT, data(46, "!"));
    assert_eq!(wire.text(CLIENT), "GETt!", "of what overlaps the start, the rest is new");
    assert!(wire.connection.is_midstream(CLIENT));
    assert_eq!(wire.connection.client(), None);
}

#[test]
fn ports_are_used_again() {
    let mut wire = open();
    wire.send(CLIENT, data(100, "ab"));
    let again = |wire: &Wire, seq| wire.connection.is_succeeded_by(CLIENT, &syn(seq));
    assert!(!again(&wire, 99), "the same SYN once more");
    assert!(!again(&wire, 4_000), "within the window: a stray one");
    assert!(again(&wire, 90_000_000));
    wire.send(CLIENT, Segment { fin: true, ..data(102, "") });
    assert!(again(&wire, 4_000));
    assert!(!wire.connection.is_succeeded_by(SERVER, &Segment { ack: Some(1), ..syn(7) }));
}

#[test]
fn the_end_of_the_capture_delivers_what_waits() {
    let mut wire = open();
    wire.send(CLIENT, data(103, "d")).finish();
    assert_eq!(wire.text(CLIENT), "___d");
    assert_eq!(wire.got.gaps[CLIENT.index()], [(3, Gap::NotSeen)]);
    assert_eq!(wire.got.ends, [Some(End::Unseen); 2]);
}

proptest! {
    /// Whatever the order, the cuts and the repetitions: the bytes are those
    /// that were sent.
    #[test]
    fn any_order_gives_the_same_stream(
        isn in any::<u32>(),
        segments in prop::collection::vec((0usize..400, 1usize..90), 1..60),
    ) {
        let sent: Vec<u8> = (0..400u32).map(|index| b'a' + (index % 23) as u8).collect();
        let mut wire = Wire::default();
        wire.send(CLIENT, syn(isn));
        let whole = (0..400).step_by(50).map(|start| (start, 50));
        for (start, length) in segments.into_iter().chain(whole) {
            let end = (start + length).min(sent.len());
            let seq = isn.wrapping_add(1).wrapping_add(start as u32);
            let payload = &sent[start..end];
            wire.send(CLIENT, Segment { seq, payload, payload_bytes: payload.len() as u32, ..Segment::default() });
        }
        prop_assert_eq!(&wire.got.bytes[CLIENT.index()], &sent);
        prop_assert_eq!(wire.connection.memory_bytes(), 0);
    }

    #[test]
    fn any_segments_are_survived(
        segments in prop::collection::vec(
            (any::<bool>(), any::<u32>(), any::<Option<u32>>(), any::<[bool; 3]>(), 0usize..40, 0u32..60),
            0..80,
        ),
        near in any::<bool>(),
    ) {
        let bytes = [7u8; 40];
        let mut wire = Wire::default();
        for (low, seq, ack, [syn, fin, rst], length, sent) in segments {
            let seq = if near { seq % 500 } else { seq };
            let segment = Segment { seq, ack, syn, fin: fin && near, rst: rst && !near, payload: &bytes[..length], payload_bytes: sent };
            wire.send(if low { SERVER } else { CLIENT }, segment);
        }
        wire.finish();
        prop_assert!(wire.got.ends.iter().all(Option::is_some));
        prop_assert!(wire.connection.memory_bytes() < 1 << 20);
    }
}
