//! What happens to streams and connections.

use super::*;

#[test]
fn streams_that_are_reset_say_by_whom() {
    let reset = |stream, code| frame(frame::RST_STREAM, 0, stream, &[0, 0, 0, code]);
    let turns = dialogue([
        ask([get(1, "/1"), get(3, "/2"), headers(5, 0, &[vec![0x83, 0x86], plain(":path", "/3")])].concat()),
        answer(reset(3, 7)),
        ask([reset(1, 8), data(5, 0, b"body")].concat()),
        // It had not heard of the end when it sent this.
        answer([ok(1, "200", b"late"), ok(5, "413", b""), reset(5, 0)].concat()),
    ]);
    let exchanges = play(&PROTOCOL, &turns);
    assert_eq!(
        lines(&exchanges),
        ["GET /2 REFUSED_STREAM -/- complete", "GET /1 CANCEL -/- complete", "POST /3 413 4/0 complete"]
    );
    let told = |index: usize| (exchanges[index].ok, exchanges[index].error.as_deref());
    assert_eq!(told(0), (Some(false), Some("reset by the server")));
    assert_eq!(told(1), (Some(false), Some("reset by the client")));
    assert_eq!(told(2), (Some(false), None));
    assert!(exchanges[0].response.is_some() && exchanges[1].response.is_none());
    assert_eq!(text(&exchanges[0], Attribute::ErrorType), "REFUSED_STREAM");
}

#[test]
fn what_the_server_does_not_answer_before_it_leaves() {
    let goaway = |code| frame(frame::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, code, b'w', b'h', b'y']);
    for (code, first, second) in [(0, "-", "GOAWAY"), (11, "ENHANCE_YOUR_CALM", "ENHANCE_YOUR_CALM")] {
        let turns = dialogue([ask([get(1, "/1"), get(3, "/2")].concat()), answer(goaway(code))]);
        let expected = [format!("GET /1 {first} -/- complete"), format!("GET /2 {second} -/- complete")];
        assert_eq!(lines(&play(&PROTOCOL, &turns)), expected);
    }
    let turns = dialogue([
        ask([get(1, "/1"), get(3, "/2")].concat()),
        answer([goaway(0), ok(1, "200", b"still")].concat()),
    ]);
    assert_lines(&turns, &["GET /1 200 -/5 complete", "GET /2 GOAWAY -/- complete"]);
}

#[test]
fn what_is_pushed_is_a_request_of_its_own() {
    let promised = [&[0, 0, 0, 2][..], &[0x82, 0x86], &added(":path", "/style.css")].concat();
    let turns = dialogue([
        ask(get(1, "/")),
        answer(
            [
                frame(frame::PUSH_PROMISE, WHOLE, 1, &promised),
                ok(1, "200", b"<html>"),
                headers(2, 0, &[vec![0x88]]),
                data(2, LAST, b"css"),
            ]
            .concat(),
        ),
    ]);
    assert_lines(&turns, &["GET / 200 -/6 complete", "GET /style.css 200 -/3 complete"]);
    harness::check(&PROTOCOL, &turns);
}

/// RFC 8441: WebSocket on a stream.
#[test]
fn a_tunnel_is_one_exchange() {
    let connect = [
        plain(":method", "CONNECT"),
        plain(":protocol", "websocket"),
        vec![0x86],
        plain(":path", "/chat?token=hunter2"),
        plain(":authority", "shop"),
    ];
    let turns = dialogue([
        ask(headers(1, 0, &connect)),
        answer(headers(1, 0, &[vec![0x88]])),
        ask(data(1, 0, b"\x81\x85\0\0\0\0hello")),
        answer([data(1, 0, b"\x81\x03yes"), data(1, LAST, b"")].concat()),
        ask([
            data(1, LAST, b""),
            headers(3, 0, &[plain(":method", "CONNECT"), plain(":authority", "db:80")]),
        ]
        .concat()),
        answer(headers(3, LAST, &[plain(":status", "502")])),
        ask(data(3, LAST, b"")),
    ]);
    assert_lines(
        &turns,
        &["CONNECT /chat?token=REDACTED 200 11/5 complete", "CONNECT db:80 502 -/0 complete"],
    );
    harness::check(&PROTOCOL, &turns);
}

/// The first request is asked in HTTP/1.1, and answered on stream 1.
fn upgrade() -> Vec<Turn> {
    vec![
        ask("GET /1?key=hunter2 HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
        answer(
            [
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_vec(),
                greeting(),
                ok(1, "200", b"first"),
            ]
            .concat(),
        ),
        ask([preface(), get(3, "/2")].concat()),
        answer(ok(3, "404", b"")),
    ]
}

#[test]
fn http_1_may_become_http_2() {
    let exchanges = play(&http::PROTOCOL, &upgrade());
    assert_eq!(lines(&exchanges), ["GET /1?key=REDACTED 200 -/5 complete", "GET /2 404 -/0 complete"]);
    assert_eq!(text(&exchanges[0], Attribute::NetworkProtocolVersion), "2");
    let upgrade = upgrade();
    let sent = upgrade[0].bytes().len() as u64;
    assert_eq!(exchanges[0].request.unwrap().bytes, sent);
    assert_eq!(exchanges[0].response.unwrap().bytes, (upgrade[1].bytes().len() - greeting().len()) as u64);
    harness::check(&http::PROTOCOL, &upgrade);
}

#[test]
fn a_server_may_go_on_in_http_1() {
    let turns = [upgrade()[0].clone(), answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")];
    assert_eq!(lines(&play(&http::PROTOCOL, &turns)), ["GET /1?key=REDACTED 200 -/2 complete"]);
}

#[test]
fn what_the_rules_do_not_allow_is_read_and_named() {
    let long = vec![b'x'; 70_000];
    let flood: Vec<u8> =
        long.chunks(10_000).flat_map(|part| frame(frame::CONTINUATION, 0, 1, part)).collect();
    let bomb = [vec![0x82, 0x86, 0x84], added("cookie", &"x".repeat(4_000)), vec![0xbe; 9_000]];
    let hosts = [vec![0x82, 0x86, 0x84], plain(":authority", "a"), plain("host", "b")];
    for (asked, expected) in [
        (
            [
                frame(frame::HEADERS, LAST, 1, &[0x82, 0x86, 0x84]),
                flood,
                frame(frame::CONTINUATION, WHOLE, 1, b""),
            ]
            .concat(),
            "GET / 204 -/0 truncated (header list too long)",
        ),
        (
            frame(frame::HEADERS, LAST | WHOLE, 1, &[&[0x82, 0x86, 0x84], &long[..]].concat()),
            "GET / 204 -/0 truncated (header list too long)",
        ),
        (headers(1, LAST, &bomb), "GET / 204 -/0 complete (header list too long)"),
        (headers(1, LAST, &[vec![0x82, 0x86, 0x84, 0xff, 0x00]]), "GET / 204 -/0 truncated (malformed head)"),
        (headers(1, LAST, &hosts), "GET / 204 -/0 complete (several hosts)"),
        // Padding that is longer than the frame.
        (
            [headers(1, 0, &[vec![0x82, 0x86, 0x84]]), data(1, LAST | frame::PADDED, b"\xffab")].concat(),
            "GET / 204 -/0 complete",
        ),
        // Frames that nobody knows.
        ([frame(0xab, 0xff, 77, b"grease"), get(1, "/")].concat(), "GET / 204 -/0 complete"),
    ] {
        let turns = dialogue([ask(asked), answer(headers(1, LAST, &[vec![0x89]]))]);
        assert_lines(&turns, &[expected]);
    }
}

#[test]
fn more_streams_than_are_kept_are_told_and_memory_stays_bounded() {
    let mut turns = dialogue([]);
    let many = STREAMS_MAX as u32 + 10;
    turns.extend((0..many).map(|number| ask(get(2 * number + 1, "/"))));
    turns.push(answer(ok(2 * many - 1, "200", b"")));
    let exchanges = play(&PROTOCOL, &turns);
    assert_eq!(exchanges.len(), many as usize);
    assert_eq!(exchanges.iter().filter(|one| one.response.is_some()).count(), 1);
    assert_eq!(exchanges.iter().filter(|one| one.capture == Capture::Truncated).count(), 10);
}

/// As gRPC's does, and with a setting that only gRPC has.
#[test]
fn a_server_may_speak_first() {
    let settings = [0, 4, 0, 0, 64, 0, 0, 5, 0, 0, 64, 0, 0xfe, 3, 0, 0, 0, 1];
    let window = frame(8, 0, 0, &[0, 63, 0, 1]);
    for greeting in [frame(frame::SETTINGS, 0, 0, &settings), frame(frame::SETTINGS, 0, 0, &[])] {
        let first = [greeting, window.clone()].concat();
        assert_lines(
            &[answer(first), ask([preface(), get(1, "/1")].concat()), answer(ok(1, "200", b""))],
            &["GET /1 200 -/0 complete"],
        );
    }
}
