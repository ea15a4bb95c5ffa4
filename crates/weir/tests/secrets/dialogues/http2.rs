//! HTTP/2 and gRPC: frames, with header fields in all their forms.

use super::{Turn, answer, ask, planted};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const LAST: u8 = 1;
const WHOLE: u8 = 4;

/// How a field is written: to be remembered, as it is, and never to be.
const ADDED: u8 = 0x40;
const PLAIN: u8 = 0;
const NEVER: u8 = 0x10;

fn length(bytes: usize) -> Vec<u8> {
    match bytes {
        0..127 => vec![bytes as u8],
        _ => {
            let mut rest = bytes - 127;
            let mut length = vec![127];
            while rest >= 128 {
                length.push(rest as u8 | 128);
                rest /= 128;
            }
            length.push(rest as u8);
            length
        }
    }
}

/// `name: value`.
fn field(form: u8, line: &str) -> Vec<u8> {
    let (name, value) = line.split_once(": ").unwrap();
    let value = planted(value);
    [&[form][..], &length(name.len()), name.as_bytes(), &length(value.len()), &value].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(flags: u8, stream: u32, fields: &[Vec<u8>]) -> Vec<u8> {
    frame(HEADERS, flags | WHOLE, stream, &fields.concat())
}

fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])].concat()
}

fn greeting() -> Vec<u8> {
    [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat()
}

pub(super) fn requests() -> Vec<Turn> {
    let asked = [
        vec![0x83, 0x86],
        field(ADDED, ":path: /login?user=bob&password={never}&key={query}"),
        field(ADDED, ":authority: bob:{never}@shop:80"),
        field(ADDED, "authorization: Basic {never}"),
        field(ADDED, "cookie: a=b; sid={never}"),
        field(NEVER, "x-api-key: {never}"),
        field(NEVER, "user-agent: {never}"),
        field(PLAIN, "referer: http://shop/?token={never}"),
    ];
    let answered = [
        vec![0x8b],
        field(ADDED, "set-cookie: sid={never}"),
        field(PLAIN, "location: /cb?code={never}"),
        field(PLAIN, "www-authenticate: Digest nonce={never}"),
    ];
    // The newest entries are the cookie, the authorization, the authority and the path.
    let again = [vec![0x82, 0x86, 0xc1, 0xc0, 0xbf, 0xbe], field(NEVER, "x: {never}")].concat();
    let (first, second) = again.split_at(9);
    let long = "a".repeat(9_000);
    let odd = [vec![0x82, 0x86], field(PLAIN, &format!(":path: http://{{never}}{long}:{{never}}@shop/"))];
    vec![
        (true, [preface(), headers(0, 1, &asked)].concat()),
        (true, frame(DATA, LAST, 1, &planted("password={never}"))),
        (false, [greeting(), headers(LAST, 1, &answered)].concat()),
        (true, [frame(HEADERS, LAST, 3, first), frame(CONTINUATION, WHOLE, 3, second)].concat()),
        (false, [headers(0, 3, &[vec![0x88, 0xbe]]), frame(DATA, LAST, 3, &planted("{never}"))].concat()),
        (true, headers(LAST, 5, &odd)),
        (false, headers(LAST, 5, &[field(PLAIN, ":status: 400"), field(PLAIN, "x: {never}")])),
        (true, frame(7, 0, 0, &[&[0; 8][..], &planted("{never}")].concat())),
    ]
}

pub(super) fn calls() -> Vec<Turn> {
    let call = |stream: u32| {
        let fields = [
            vec![0x83, 0x86],
            field(ADDED, ":path: /shop.Users/Get"),
            field(PLAIN, "content-type: application/grpc"),
            field(ADDED, "authorization: Bearer {never}"),
            field(ADDED, "x-secret-bin: {never}"),
        ];
        let content = [&[0, 0, 0, 0, 16][..], &planted("{never}")].concat();
        (true, [headers(0, stream, &fields), frame(DATA, LAST, stream, &content)].concat())
    };
    let failed = |stream: u32, message: &str| {
        let head = [vec![0x88], field(PLAIN, "content-type: application/grpc")];
        let trailers = [
            field(PLAIN, "grpc-status: 5"),
            field(ADDED, &format!("grpc-message: {message}")),
            field(ADDED, "grpc-status-details-bin: {never}"),
        ];
        (false, [headers(0, stream, &head), headers(LAST, stream, &trailers)].concat())
    };
    vec![
        (true, preface()),
        (false, greeting()),
        call(1),
        failed(1, "no user '{error}'%21"),
        call(3),
        failed(3, "no token={never} of '{never}'"),
        call(5),
        failed(5, "no p%61ssword=%27{never}%27"),
    ]
}

/// HTTP/1.1 that becomes HTTP/2.
pub(super) fn upgrade() -> Vec<Turn> {
    vec![
        ask("GET /?password={never} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: {never}\r\nCookie: {never}\r\n\r\n"),
        answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nSet-Cookie: {never}\r\n\r\n"),
        (false, [greeting(), headers(LAST, 1, &[vec![0x88], field(ADDED, "set-cookie: {never}")])].concat()),
        (true, preface()),
        (true, headers(LAST, 3, &[vec![0x82, 0x86], field(ADDED, ":path: /?code={query}&pwd={never}")])),
        (false, headers(LAST, 3, &[vec![0x88, 0xbe]])),
    ]
}
