//! HTTP/2, and gRPC over it.

use super::{Dialogue, Turn};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// As much as a frame may hold unless its receiver allows more.
const FRAME_BYTES: usize = 16_384;

pub(super) fn dialogues() -> Vec<Dialogue> {
    vec![
        http2("HTTP/2, small heads, 612 bytes of body", 612),
        http2("HTTP/2, small heads, 1 MB of body", 1 << 20),
        grpc("gRPC, messages of 100 bytes", 100),
        grpc("gRPC, messages of 100 kB", 100_000),
    ]
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A body in as many frames as it takes.
fn body(bytes: &[u8], last_flags: u8) -> Vec<u8> {
    let count = bytes.len().div_ceil(FRAME_BYTES);
    let frames = bytes.chunks(FRAME_BYTES).enumerate();
    frames.flat_map(|(at, part)| frame(DATA, if at + 1 == count { last_flags } else { 0 }, part)).collect()
}

/// A field with its name in full, which is not to be remembered.
fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

fn opening() -> Vec<Turn> {
    let (settings, acknowledged) = (frame(SETTINGS, 0, &[]), frame(SETTINGS, 1, &[]));
    vec![
        (true, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat()),
        (false, [settings.as_slice(), &acknowledged].concat()),
        (true, acknowledged),
    ]
}

/// Writes the number of its stream into every frame.
fn number(bytes: &mut [u8], stream: u32) {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk_mut::<9>() {
        head[5..].copy_from_slice(&stream.to_be_bytes());
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        rest = after.get_mut(length..).unwrap_or_default();
    }
}

fn http2(name: &'static str, body_bytes: usize) -> Dialogue {
    // :method GET, :scheme https, :authority and :path as they are.
    let asked = [&[0x82, 0x87, 0x01, 9], b"shop.test".as_slice(), &[0x04, 10], b"/orders/17"].concat();
    let length = body_bytes.to_string();
    // :status 200, content-length.
    let answered = [&[0x88, 0x0f, 0x0d, length.len() as u8], length.as_bytes()].concat();
    let answer = [frame(HEADERS, END_HEADERS, &answered), body(&vec![b'x'; body_bytes], END_STREAM)].concat();
    Dialogue {
        name,
        protocol: "http2",
        port: 80,
        opening: opening(),
        turns: vec![(true, frame(HEADERS, END_HEADERS | END_STREAM, &asked)), (false, answer)],
        requests: 1,
        tshark_field: "http2.headers.method",
        numbered: Some(number),
        ..Dialogue::default()
    }
}

/// A message there and one back.
fn grpc(name: &'static str, message_bytes: usize) -> Dialogue {
    let message = [&[0][..], &(message_bytes as u32).to_be_bytes(), &vec![b'x'; message_bytes]].concat();
    let kind = field("content-type", "application/grpc");
    // :method POST, :scheme http, :path and :authority as they are.
    let asked = [
        &[0x83, 0x86, 0x04, 16],
        b"/shop.Orders/Get".as_slice(),
        &[0x01, 9],
        b"shop.test",
        &kind,
        &field("te", "trailers"),
    ]
    .concat();
    let answered = [&[0x88][..], &kind].concat();
    let trailers = field("grpc-status", "0");
    let question = [frame(HEADERS, END_HEADERS, &asked), body(&message, END_STREAM)].concat();
    let answer = [
        frame(HEADERS, END_HEADERS, &answered),
        body(&message, 0),
        frame(HEADERS, END_HEADERS | END_STREAM, &trailers),
    ]
    .concat();
    Dialogue { protocol: "grpc", turns: vec![(true, question), (false, answer)], ..http2(name, 0) }
}
