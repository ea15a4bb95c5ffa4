//! HTTP/1.1, and what it can be upgraded to.

use super::Dialogue;

pub(super) fn dialogues() -> Vec<Dialogue> {
    let small = |name, body| http(name, SMALL_REQUEST, &small_response(body), body);
    vec![
        small("HTTP/1.1, small heads, 612 bytes of body", 612),
        http(
            "HTTP/1.1, heads of a browser, 16 kB of body",
            BROWSER_REQUEST,
            &browser_response(16_384),
            16_384,
        ),
        Dialogue { is_compared: false, ..small("HTTP/1.1, small heads, 1 MB of body", 1 << 20) },
        chunked(),
        Dialogue {
            reconnects: true,
            is_compared: false,
            ..small("HTTP/1.1, 612 bytes of body, a connection each", 612)
        },
        websocket("WebSocket, messages of 40 bytes", 40),
        websocket("WebSocket, messages of 64 kB", 64 << 10),
    ]
}

const SMALL_REQUEST: &str = "GET /orders/17 HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// As nginx answers.
fn small_response(body: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: text/html\r\n\
         Content-Length: {body}\r\nLast-Modified: Sun, 01 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\n\
         ETag: \"6905f3c0-264\"\r\nAccept-Ranges: bytes\r\n\r\n"
    )
}

const BROWSER_REQUEST: &str = "GET /catalogue/winter/boots?size=42&colour=brown&sort=price HTTP/1.1\r\n\
    Host: shop.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.test/catalogue/winter\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; consent=yes; basket=3a7f; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Priority: u=0, i\r\n\r\n";

fn browser_response(body: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Length: {body}\r\nConnection: keep-alive\r\n\
         Cache-Control: private, max-age=0, must-revalidate\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n\
         Strict-Transport-Security: max-age=63072000; includeSubDomains\r\nX-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: SAMEORIGIN\r\nSet-Cookie: basket=3a80; Path=/; HttpOnly; SameSite=Lax\r\n\
         X-Request-Id: 6d0f1c2a-7b7e-4a51-9b0e-0d7c9f0a1b2c\r\n\r\n"
    )
}

fn http(name: &'static str, request: &str, response: &str, body: usize) -> Dialogue {
    let whole = [response.as_bytes(), &vec![b'x'; body]].concat();
    Dialogue {
        name,
        protocol: "http",
        port: 80,
        turns: vec![(true, request.into()), (false, whole)],
        tshark_field: "http.request.method",
        requests: 1,
        heads: vec![request.into(), response.into()],
        is_compared: true,
        ..Dialogue::default()
    }
}

/// As a program answers that does not know the length before: 16 chunks of 1 kB.
fn chunked() -> Dialogue {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"400\r\n".as_slice(), &[b'x'; 1024], b"\r\n"].concat();
    let answer = [head.as_bytes(), &chunk.repeat(16), b"0\r\n\r\n"].concat();
    Dialogue {
        name: "HTTP/1.1, small heads, 16 chunks of 1 kB",
        turns: vec![(true, SMALL_REQUEST.into()), (false, answer)],
        heads: vec![SMALL_REQUEST.into(), head.into()],
        is_compared: false,
        ..http("", "", "", 0)
    }
}

/// A message there and one back.
fn websocket(name: &'static str, bytes: usize) -> Dialogue {
    let asked = "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answered = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let frame = |mask: u8| {
        // Text, whole.
        let mut frame = vec![0x81];
        match u16::try_from(bytes) {
            Ok(length @ 0..126) => frame.push(mask | length as u8),
            Ok(length) => frame.extend([&[mask | 126][..], &length.to_be_bytes()].concat()),
            Err(_) => frame.extend([&[mask | 127][..], &(bytes as u64).to_be_bytes()].concat()),
        }
        if mask > 0 {
            frame.extend_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        }
        frame.resize(frame.len() + bytes, b'x');
        frame
    };
    Dialogue {
        name,
        protocol: "websocket",
        port: 80,
        opening: vec![(true, asked.into()), (false, answered.into())],
        turns: vec![(true, frame(0x80)), (false, frame(0))],
        requests: 2,
        is_counted_only: true,
        tshark_field: "websocket.opcode",
        ..Dialogue::default()
    }
}
