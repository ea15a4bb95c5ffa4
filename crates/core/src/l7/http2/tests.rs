use super::*;
use crate::l7::harness::{self, Played, Turn, answer, ask, play};
use crate::l7::{Attribute, http};
use crate::record::AttributeValue;
use crate::reveal::Class;

mod calls;
mod connections;
mod loss;

const TO_SERVER: Direction = Direction::ToServer;
const TO_CLIENT: Direction = Direction::ToClient;

const LAST: u8 = frame::END_STREAM;
const WHOLE: u8 = frame::END_HEADERS;

/// A field that is not added to the table, and one that is.
fn plain(name: &str, value: &str) -> Vec<u8> {
    literal(0x00, name, value)
}

fn added(name: &str, value: &str) -> Vec<u8> {
    literal(0x40, name, value)
}

fn literal(head: u8, name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| match text.len() {
        0..127 => [&[text.len() as u8], text.as_bytes()].concat(),
        _ => {
            let mut bytes = vec![127];
            let mut rest = text.len() - 127;
            while rest >= 128 {
                bytes.push(rest as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
            [&bytes, text.as_bytes()].concat()
        }
    };
    [&[head][..], &text(name), &text(value)].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    frame(frame::HEADERS, flags | WHOLE, stream, &fields.concat())
}

fn data(stream: u32, flags: u8, content: &[u8]) -> Vec<u8> {
    frame(frame::DATA, flags, stream, content)
}

/// A request without a body.
fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, LAST, &[vec![0x82, 0x86], added(":path", path), added(":authority", "shop:8080")])
}

/// An answer with a body.
fn ok(stream: u32, status: &str, body: &[u8]) -> Vec<u8> {
    let head = headers(stream, 0, &[added(":status", status), plain("content-type", "text/plain")]);
    [head, data(stream, LAST, body)].concat()
}

fn preface() -> Vec<u8> {
    let settings = [0, 3, 0, 0, 0, 100, 0, 1, 0, 1, 0, 0];
    [PREFACE.to_vec(), frame(frame::SETTINGS, 0, 0, &settings), frame(8, 0, 0, &[0, 1, 0, 0])].concat()
}

fn greeting() -> Vec<u8> {
    [frame(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), frame(frame::SETTINGS, frame::ACK, 0, &[])].concat()
}

/// The first words of both ends and this.
fn dialogue(turns: impl IntoIterator<Item = Turn>) -> Vec<Turn> {
    [ask(preface()), answer(greeting())].into_iter().chain(turns).collect()
}

fn number(exchange: &Exchange, attribute: Attribute) -> String {
    match exchange.attributes.get(attribute) {
        Some(AttributeValue::Number(number)) => number.to_string(),
        _ => "-".into(),
    }
}

fn text(exchange: &Exchange, attribute: Attribute) -> &str {
    match exchange.attributes.get(attribute) {
        Some(AttributeValue::Text(text)) => text,
        _ => "-",
    }
}

/// Protocol, what was asked, how it went, bodies, what was seen, what is wrong.
fn lines(exchanges: &[Exchange]) -> Vec<String> {
    exchanges
        .iter()
        .map(|one| {
            let anomalies = match one.attributes.get(Attribute::Anomalies) {
                Some(AttributeValue::Texts(all)) => format!(" ({})", all.join(", ")),
                _ => String::new(),
            };
            format!(
                "{}{} {} {} {}/{} {}{anomalies}",
                one.protocol.map(|name| format!("{name} ")).unwrap_or_default(),
                if one.request.is_some() { one.operation.as_str() } else { "?" },
                one.target.as_deref().unwrap_or("-"),
                one.status.as_deref().unwrap_or("-"),
                number(one, Attribute::HttpRequestBodySize),
                number(one, Attribute::HttpResponseBodySize),
                one.capture.name(),
            )
        })
        .collect()
}

#[track_caller]
fn assert_lines(turns: &[Turn], expected: &[&str]) {
    assert_eq!(lines(&play(&PROTOCOL, turns)), expected);
}

/// Bodies, trailers, padding, priorities, blocks in many frames, announcements.
fn many_kinds() -> Vec<Turn> {
    let padded = [&[3, 0, 0, 0, 0, 16][..], &[0x82, 0x87], &plain(":path", "/padded"), &[0; 3]].concat();
    let post = [&[0x83, 0x86][..], &plain(":path", "/form?token=x&a=b")].concat();
    let (one, two) = post.split_at(9);
    dialogue([
        ask([get(1, "/1"), get(3, "/2")].concat()),
        answer([ok(3, "404", b"gone"), frame(6, 0, 0, &[0; 8]), ok(1, "201", b"hello")].concat()),
        ask([
            frame(frame::HEADERS, LAST | frame::PADDED | 0x20 | WHOLE, 5, &padded),
            frame(frame::HEADERS, 0, 7, one),
            frame(frame::CONTINUATION, 0, 7, &[]),
            frame(frame::CONTINUATION, WHOLE, 7, two),
            data(7, 0, b"first"),
            data(7, frame::PADDED, b"\x04second\0\0\0\0"),
        ]
        .concat()),
        answer([headers(5, 0, &[vec![0x88]]), data(5, 0, &[b'x'; 900]), data(5, 0, b"")].concat()),
        ask([data(7, LAST, b""), headers(9, LAST, &[vec![0x82, 0x86, 0xc1, 0xbe]])].concat()),
        answer(
            [
                data(5, LAST, b"end"),
                headers(7, 0, &[plain(":status", "103"), plain("link", "x")]),
                headers(7, 0, &[plain(":status", "202")]),
                data(7, 0, b"soon"),
                headers(7, LAST, &[added("checksum", "1234")]),
                headers(9, LAST, &[vec![0x8b]]),
            ]
            .concat(),
        ),
    ])
}

#[test]
fn every_answer_finds_its_request_by_its_stream() {
    assert_lines(
        &many_kinds(),
        &[
            "GET /2 404 -/4 complete",
            "GET /1 201 -/5 complete",
            "GET /padded 200 -/903 complete",
            "POST /form?token=REDACTED&a=b 202 11/4 complete",
            "GET /1 304 -/0 complete",
        ],
    );
}

#[test]
fn every_property_holds() {
    // What was asked twice would not show a wrong pair.
    let mut turns = many_kinds();
    turns.pop();
    harness::check(&PROTOCOL, &turns);
    harness::check(&PROTOCOL, &many_kinds());
}

#[test]
fn time_grows_with_the_length_only() {
    let asked = || dialogue([ask(get(1, "/"))]);
    harness::check_linear(&PROTOCOL, |length| {
        let small = data(1, 0, b"xx").repeat(length / 11);
        [asked(), vec![answer([headers(1, 0, &[vec![0x88]]), small].concat())]].concat()
    });
    harness::check_linear(&PROTOCOL, |length| {
        let mut flood = vec![frame(frame::HEADERS, 0, 1, &[0x88])];
        flood.resize(length / 12, frame(frame::CONTINUATION, 0, 1, &[0x40, 1, 65]));
        [asked(), vec![answer(flood.concat())]].concat()
    });
    harness::check_linear(&PROTOCOL, |length| {
        let fields = plain("some-name", "of usual length").repeat(length / 28);
        let blocks: Vec<u8> =
            fields.chunks(9_000).map(|part| headers(1, 0, &[part.to_vec()])).collect::<Vec<_>>().concat();
        [asked(), vec![answer(blocks)]].concat()
    });
    harness::check_linear(&PROTOCOL, |length| {
        [asked(), vec![answer(b"nothing that begins a frame \0\0\x04\x00".repeat(length / 32))]].concat()
    });
}

#[test]
fn sizes_and_times_are_of_whole_messages() {
    let mut played = Played::new(&PROTOCOL);
    played.at(5).data(TO_SERVER, &preface());
    let request = [headers(1, 0, &[vec![0x83, 0x86, 0x84]]), data(1, LAST, b"body")].concat();
    played.at(10).data(TO_SERVER, &request[..5]).at(20).data(TO_SERVER, &request[5..]);
    let interim = headers(1, 0, &[plain(":status", "103")]);
    played.at(30).data(TO_CLIENT, &interim);
    let response = ok(1, "200", b"hello");
    played.at(50).data(TO_CLIENT, &response[..20]).at(80).data(TO_CLIENT, &response[20..]);
    let exchange = &played.exchanges[0];
    assert_eq!(exchange.request.unwrap(), Part { first_ns: 10, last_ns: 20, bytes: request.len() as u64 });
    let bytes = (interim.len() + response.len()) as u64;
    assert_eq!(exchange.response.unwrap(), Part { first_ns: 50, last_ns: 80, bytes });
}

#[test]
fn attributes_are_those_of_opentelemetry() {
    let fields = [
        plain(":method", "LINK"),
        plain(":scheme", "http"),
        plain(":path", "/a/b?q=1&token=t"),
        plain(":authority", "bob:x@[::1]:8080"),
        plain("user-agent", "curl/8"),
    ];
    let exchange =
        &play(&PROTOCOL, &dialogue([ask(headers(1, LAST, &fields)), answer(ok(1, "500", b""))]))[0];
    for (attribute, expected) in [
        (Attribute::HttpRequestMethod, "_OTHER"),
        (Attribute::HttpRequestMethodOriginal, "LINK"),
        (Attribute::UrlPath, "/a/b"),
        (Attribute::UrlQuery, "q=1&token=REDACTED"),
        (Attribute::UserAgentOriginal, "curl/8"),
        (Attribute::NetworkProtocolVersion, "2"),
        (Attribute::ErrorType, "500"),
    ] {
        assert_eq!(text(exchange, attribute), expected, "{attribute:?}");
    }
    assert_eq!(number(exchange, Attribute::HttpResponseStatusCode), "500");
    assert_eq!(number(exchange, Attribute::ServerPort), "8080");
    assert_eq!((exchange.ok, exchange.protocol), (Some(false), None));
}

/// Whole, in pieces, and cut off: no secret is in what comes out.
#[test]
fn secrets_do_not_leave_the_parser() {
    let fields = [
        vec![0x83, 0x86],
        added(":path", "/login;jsessionid=hunter2?password=hunter2&x=1"),
        added(":authority", "bob:hunter2@shop"),
        added("authorization", "Basic hunter2"),
        literal(0x10, "user-agent", "hunter2"),
        plain("cookie", "id=hunter2"),
    ];
    let request = [preface(), headers(1, 0, &fields), data(1, LAST, b"password=hunter2")].concat();
    let response = headers(1, LAST, &[vec![0x88], plain("set-cookie", "id=hunter2")]);
    for length in 1..request.len() {
        let (first, second) = request.split_at(length);
        let mut played = Played::new(&PROTOCOL);
        played.data(TO_SERVER, first).data(TO_SERVER, second).data(TO_CLIENT, &response).finish(End::Fin);
        assert_eq!(played.exchanges.len(), 1);
        assert!(!format!("{:?}", played.exchanges).contains("hunter"), "{length}");
        let mut cut = Played::new(&PROTOCOL);
        cut.data(TO_SERVER, first).gap(TO_SERVER, 99, Gap::Cut).data(TO_CLIENT, &response).finish(End::Reset);
        assert!(!format!("{:?}", cut.exchanges).contains("hunter"), "cut after {length}");
    }
    // What may be shown is, and no password.
    let mut played = Played::new(&PROTOCOL).revealing(Class::ALL.into_iter().collect());
    played.data(TO_SERVER, &[preface(), get(1, "/?key=shown&password=hunter2")].concat()).finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["GET /?key=shown&password=REDACTED - -/- complete"]);
    assert!(played.exchanges[0].revealed.has(Class::QueryStrings));
    let path = literal(0x10, ":path", "/hunter2");
    assert_lines(
        &dialogue([ask(headers(1, LAST, &[vec![0x82, 0x86], path])), answer(response)]),
        &["GET REDACTED 200 -/0 complete"],
    );
}

#[test]
fn other_protocols_are_not_http2() {
    for (asked, answered) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], &b""[..]),
        (b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"SSH-2.0-OpenSSH\r\n", b"SSH-2.0-OpenSSH\r\n"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", b""),
        (b"", b"\x4a\x00\x00\x00\x0a8.0.33\x00\x0b\x00\x00\x00abcdefgh"),
        (b"\x00\x1d\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example", b""),
        (b"\x00\x00\x00\x1d\x00\x12\x00\x00\x00\x00\x00\x01\x00\x04test", b""),
        (&[0; 40], &[0; 40]),
    ] {
        let heads = Heads { to_server: asked, to_client: answered, transport: Transport::Tcp };
        assert_eq!(probe(&heads), Guess::No, "{asked:?}");
    }
    let heads = Heads { to_server: &PREFACE[..7], to_client: b"", transport: Transport::Tcp };
    assert_eq!(probe(&heads), Guess::More);
}
