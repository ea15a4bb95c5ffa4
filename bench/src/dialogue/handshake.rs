//! TLS.

use super::Dialogue;

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const X25519: u16 = 0x001d;
/// A hybrid with a key that a quantum computer does not find.
const X25519_MLKEM768: u16 = 0x11ec;

pub(super) fn dialogues() -> Vec<Dialogue> {
    vec![
        tls("TLS 1.3, a connection each", &[(X25519, 32)]),
        tls("TLS 1.3, post-quantum keys, a connection each", &[(X25519_MLKEM768, 1_216), (X25519, 32)]),
    ]
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(body)].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &sized(body)].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (body.len() as u32).to_be_bytes();
    record(HANDSHAKE, &[&[kind], length.as_slice(), body].concat())
}

/// Both hellos, and the first encrypted record of each end.
fn tls(name: &'static str, keys: &[(u16, usize)]) -> Dialogue {
    let share = |(group, bytes): &(u16, usize)| [&group.to_be_bytes()[..], &sized(&vec![7; *bytes])].concat();
    let groups: Vec<u8> = keys.iter().flat_map(|(group, _)| group.to_be_bytes()).collect();
    let shares: Vec<u8> = keys.iter().flat_map(share).collect();
    let offered = [
        extension(0, &sized(&[&[0][..], &sized(b"shop.test")].concat())),
        extension(10, &sized(&groups)),
        extension(13, &sized(&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1])),
        extension(16, &sized(b"\x02h2\x08http/1.1")),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(45, &[1, 1]),
        extension(51, &sized(&shares)),
    ]
    .concat();
    let (version, random, session) = ([3, 3], [7; 32], [9; 32]);
    let suites = sized(&[0x13, 1, 0x13, 3, 0x13, 2, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30]);
    let asked = [&version[..], &random, &[32], &session, &suites, &[1, 0], &sized(&offered)].concat();
    let chosen = keys.first().map(share).unwrap_or_default();
    let agreed = [extension(43, &[3, 4]), extension(51, &chosen)].concat();
    let answered = [&version[..], &random, &[32], &session, &[0x13, 1, 0], &sized(&agreed)].concat();
    Dialogue {
        name,
        protocol: "tls",
        port: 443,
        turns: vec![
            (true, message(1, &asked)),
            (false, [message(2, &answered), record(APPLICATION_DATA, &[5; 1_200])].concat()),
            (true, record(APPLICATION_DATA, &[5; 74])),
        ],
        requests: 1,
        tshark_field: "tls.handshake.extensions_server_name",
        reconnects: true,
        ..Dialogue::default()
    }
}
