//! Coming late, and what is missing.

use super::*;

/// References to what was said before are not known; what is said since is.
#[test]
fn a_connection_joined_late_begins_with_what_is_sure() {
    let again = vec![0x82, 0x86, 0xbf, 0xbe];
    let mut played = Played::late(&PROTOCOL);
    played
        .data(TO_CLIENT, b"the rest of a body, which is no frame")
        .data(TO_SERVER, &headers(7, LAST, std::slice::from_ref(&again)))
        .data(TO_CLIENT, &[data(5, LAST, b"and its end"), headers(7, LAST, &[vec![0x88, 0xbe]])].concat())
        .data(TO_SERVER, &get(9, "/9"))
        .data(TO_CLIENT, &ok(9, "404", b""))
        .data(TO_SERVER, &headers(11, LAST, std::slice::from_ref(&again)))
        .data(TO_CLIENT, &headers(11, LAST, &[vec![0xbe]]))
        .finish(End::Fin);
    assert_eq!(
        lines(&played.exchanges),
        ["GET - 200 -/0 midstream", "GET /9 404 -/0 complete", "GET /9 404 -/0 complete"]
    );
}

#[test]
fn a_late_join_by_the_answer() {
    let mut played = Played::late(&PROTOCOL);
    played
        .data(TO_CLIENT, &ok(7, "404", b"gone"))
        .data(TO_SERVER, &get(9, "/9"))
        .data(TO_CLIENT, &ok(9, "201", b""))
        .finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["? - 404 -/4 midstream", "GET /9 201 -/0 complete"]);
    // With the first words, nothing was missed.
    let mut played = Played::late(&PROTOCOL);
    played.turns(&dialogue([ask(get(1, "/1")), answer(ok(1, "200", b""))])).finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["GET /1 200 -/0 complete"]);
}

/// A hole inside of a frame: the next one begins where it would have.
#[test]
fn a_hole_in_content_keeps_everything() {
    let answered = [ok(1, "200", &[b'x'; 1_000]), ok(3, "404", b"")].concat();
    for (hole, first) in [(60..400, "gap"), (60..1_056, "gap")] {
        let mut played = Played::new(&PROTOCOL);
        played
            .turns(&dialogue([ask([get(1, "/1"), get(3, "/2")].concat())]))
            .data(TO_CLIENT, &answered[..hole.start])
            .gap(TO_CLIENT, hole.len() as u64, Gap::Lost)
            .data(TO_CLIENT, &answered[hole.end..])
            .finish(End::Fin);
        let expected = [format!("GET /1 200 -/1000 {first}"), "GET /2 404 -/0 complete".to_owned()];
        assert_eq!(lines(&played.exchanges), expected, "{hole:?}");
    }
}

/// What was not copied of one frame only adds to its length. Over several, nobody knows
/// whose content is missing, and so no size.
#[test]
fn sizes_are_told_as_whole_only_where_what_was_cut_is_of_one_frame() {
    let content = [data(1, 0, &[b'x'; 1_000]), data(1, 0, &[b'x'; 1_000]), data(1, LAST, b"end")].concat();
    let head = headers(1, 0, &[added(":status", "200")]);
    for (cut, expected) in [(100..900, "GET /1 200 -/2003 truncated"), (100..1_100, "GET /1 200 -/1000 gap")]
    {
        let mut played = Played::new(&PROTOCOL);
        played
            .turns(&dialogue([ask(get(1, "/1"))]))
            .data(TO_CLIENT, &[&head[..], &content[..cut.start]].concat())
            .gap(TO_CLIENT, cut.len() as u64, Gap::Cut)
            .data(TO_CLIENT, &content[cut.end..])
            .finish(End::Fin);
        assert_eq!(lines(&played.exchanges), [expected], "{cut:?}");
    }
}

#[test]
fn a_hole_in_fields_costs_what_was_said_before() {
    let asked = [get(1, "/1"), headers(3, LAST, &[vec![0x82, 0x86, 0xbf, 0xbe]]), get(5, "/5")].concat();
    let third = asked.len() - get(5, "/5").len();
    let mut played = Played::new(&PROTOCOL);
    played
        .data(TO_SERVER, &preface())
        .data(TO_SERVER, &asked[..20])
        .gap(TO_SERVER, 5, Gap::Lost)
        .data(TO_SERVER, &asked[25..third])
        .data(TO_CLIENT, &[greeting(), ok(1, "201", b""), ok(3, "203", b""), ok(5, "205", b"")].concat())
        .data(TO_SERVER, &asked[third..])
        .finish(End::Fin);
    assert_eq!(
        lines(&played.exchanges),
        ["GET - 201 -/0 gap", "GET - 203 -/0 gap", "? - 205 -/0 gap", "GET /5 - -/- complete"]
    );
}

#[test]
fn after_a_hole_over_several_frames_the_next_head_is_found() {
    let body = [b'x'; 5_000];
    let answered = [ok(1, "201", &body), ok(3, "202", &body), ok(5, "203", b"")].concat();
    let second = ok(1, "201", &body).len();
    let hole = 100..second + 100;
    let mut played = Played::new(&PROTOCOL);
    played
        .turns(&dialogue([ask([get(1, "/1"), get(3, "/2"), get(5, "/3")].concat())]))
        .data(TO_CLIENT, &answered[..hole.start])
        .gap(TO_CLIENT, hole.len() as u64, Gap::Lost)
        .data(TO_CLIENT, &answered[hole.end..])
        .finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["GET /1 201 -/5000 gap", "GET /3 203 -/0 gap", "GET /2 - -/- gap"]);
}

/// In a long download there is no head: frames are found by each other.
#[test]
fn after_a_hole_in_a_long_body_it_is_counted_on() {
    let frames = data(1, 0, &[b'x'; 4_000]).repeat(600);
    let mut played = Played::new(&PROTOCOL);
    played.turns(&dialogue([ask(get(1, "/1")), answer(headers(1, 0, &[vec![0x88]]))])).gap(
        TO_CLIENT,
        10_000,
        Gap::Lost,
    );
    for piece in frames[10_000..].chunks(1_448) {
        played.data(TO_CLIENT, piece);
    }
    played.data(TO_CLIENT, &data(1, LAST, b"")).finish(End::Fin);
    // Two frames and the one that the hole ends in are missing.
    assert_eq!(lines(&played.exchanges), ["GET /1 200 -/2388000 gap"]);
}

/// Also where its head is in the hole; and numbers in somebody's data are no frames.
#[test]
fn frames_of_a_stream_that_nobody_knows_are_passed_over() {
    let upload = [get(1, "/1"), data(3, 0, &[b'x'; 4_000]).repeat(600), data(3, LAST, b""), get(5, "/2")];
    let mut played = Played::new(&PROTOCOL);
    played.data(TO_SERVER, &preface()).data(TO_SERVER, &upload[0]).gap(TO_SERVER, 100, Gap::Lost);
    played.data(TO_SERVER, &upload[1..].concat());
    played.data(TO_CLIENT, &[greeting(), ok(5, "404", b"")].concat()).finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["GET /2 404 -/0 complete", "GET /1 - -/- gap"]);
    let numbers: Vec<u8> = (0..30_000u64).flat_map(|_| 1u64.to_be_bytes()).collect();
    let resync = sync::Search::default().go_on(TO_CLIENT, &numbers, &|_| sync::Is::Unknown);
    assert!(matches!(resync, Resync::Keep(0..10)), "{resync:?}");
}

/// gRPC agrees upon frames of megabytes.
#[test]
fn a_long_frame_is_searched_through() {
    let long = [&[0x30, 0, 0, frame::DATA, 0, 0, 0, 0, 1][..], &vec![b'x'; 0x30_0000]].concat();
    let mut played = Played::new(&PROTOCOL);
    played.turns(&dialogue([ask([get(1, "/1"), get(3, "/2")].concat())])).data(TO_CLIENT, &long[..4]);
    played.gap(TO_CLIENT, 50, Gap::Lost);
    for piece in long[54..].chunks(20_000) {
        played.data(TO_CLIENT, piece);
    }
    played.data(TO_CLIENT, &ok(3, "404", b"")).finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["GET /2 404 -/0 gap", "GET /1 - -/- gap"]);
}

#[test]
fn a_connection_that_breaks_off_is_not_complete() {
    let head = headers(1, 0, &[vec![0x88]]);
    let turns = dialogue([ask(get(1, "/1")), answer([head, data(1, 0, b"half")].concat())]);
    assert_lines(&turns, &["GET /1 200 -/4 truncated"]);
    let turns = dialogue([ask(headers(1, 0, &[vec![0x83, 0x86, 0x84]]))]);
    assert_lines(&turns, &["POST / - -/- truncated"]);
}
