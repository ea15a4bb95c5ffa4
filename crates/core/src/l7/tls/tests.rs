use super::*;
use crate::l7::harness::{self, Played, Turn, answer, ask, play};
use crate::record::AttributeValue;

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), vector16(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector16(&[&[0], vector16(name).as_slice()].concat()))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|one| [&[one.len() as u8], *one].concat()).collect();
    extension(16, &vector16(&list))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

fn client_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 4, 0x0a, 0x0a, 0x13, 0x01],
        &[1, 0],
        &vector16(&extensions.concat()),
    ];
    message(1, &body.concat())
}

fn server_hello(random: [u8; 32], cipher: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [&[3, 3][..], &random, &[0], &cipher.to_be_bytes(), &[0], &vector16(&extensions.concat())];
    message(2, &body.concat())
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &vector16(content)].concat()
}

/// In records that hold so many bytes each.
fn records(content: &[u8], size: usize) -> Vec<u8> {
    content.chunks(size).flat_map(|chunk| record(HANDSHAKE, chunk)).collect()
}

fn hello() -> Vec<u8> {
    client_hello(&[
        extension(0x2a2a, &[0]),
        server_name(b"Shop.Example"),
        alpn(&[&[0x4a, 0x4a], b"h2", b"http/1.1"]),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(51, &[9; 1_300]),
    ])
}

/// Of TLS 1.2, for Shop.Example.
pub(in crate::l7) fn old_handshake() -> Vec<Turn> {
    let certificate = message(11, &[5; 900]);
    let chosen = server_hello([1; 32], 0xc02f, &[alpn(&[b"h2"])]);
    vec![
        ask(record(HANDSHAKE, &hello())),
        answer([record(HANDSHAKE, &chosen), record(HANDSHAKE, &certificate)].concat()),
        ask([record(HANDSHAKE, &message(16, &[1; 60])), record(20, &[1]), record(22, &[8; 40])].concat()),
        answer([record(20, &[1]), record(22, &[8; 40])].concat()),
        ask(record(23, &[6; 300])),
        answer(record(23, &[6; 700])),
    ]
}

fn new_handshake() -> Vec<Turn> {
    let version = || extension(43, &[3, 4]);
    vec![
        // Records that split the message's header, too.
        ask([records(&hello()[..12], 3), records(&hello()[12..], 500)].concat()),
        answer([record(HANDSHAKE, &server_hello(RETRY, 0x1302, &[version()])), record(20, &[1])].concat()),
        ask([record(20, &[1]), record(HANDSHAKE, &hello())].concat()),
        answer(
            [record(HANDSHAKE, &server_hello([1; 32], 0x1302, &[version()])), record(23, &[4; 800])].concat(),
        ),
        ask(record(23, &[6; 300])),
    ]
}

/// What it is in a hello that asks for another.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

fn refused() -> Vec<Turn> {
    vec![ask(record(HANDSHAKE, &hello())), answer(record(ALERT, &[2, 40]))]
}

fn ssl2_hello() -> Vec<u8> {
    let body = [&[1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 5, 1, 0, 0x80][..], &[7; 16]].concat();
    [&[0x80, body.len() as u8][..], &body].concat()
}

fn only(turns: &[Turn]) -> Exchange {
    let mut found = play(&PROTOCOL, turns);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn text(exchange: &Exchange, attribute: Attribute) -> String {
    match exchange.attributes.get(attribute) {
        Some(AttributeValue::Text(text)) => text.to_string(),
        Some(AttributeValue::Texts(all)) => all.join(" "),
        _ => "-".to_owned(),
    }
}

#[test]
fn properties() {
    for turns in [old_handshake(), new_handshake(), refused()] {
        harness::check(&PROTOCOL, &turns);
    }
}

#[test]
fn time_is_linear() {
    harness::check_linear(&PROTOCOL, |length| {
        let hello = client_hello(&[extension(51, &vec![9; length.min(60_000)])]);
        vec![ask(records(&hello, 100)), answer(record(ALERT, &[2, 40]))]
    });
}

#[test]
fn both_hellos_are_told() {
    let old = only(&old_handshake());
    assert_eq!((old.operation.as_str(), old.target.as_deref()), ("hello", Some("shop.example")));
    assert_eq!((old.status.as_deref(), old.ok), (Some("TLSv1.2"), Some(true)));
    assert_eq!(text(&old, Attribute::TlsCipher), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
    assert_eq!(text(&old, Attribute::TlsNextProtocol), "h2");
    assert_eq!(text(&old, Attribute::TlsOfferedProtocols), "h2 http/1.1", "without GREASE");
    assert_eq!(old.request.unwrap().bytes, hello().len() as u64 + 5);

    let new = only(&new_handshake());
    assert_eq!((new.status.as_deref(), new.ok), (Some("TLSv1.3"), Some(true)), "once, though asked twice");
    assert_eq!(text(&new, Attribute::TlsCipher), "TLS_AES_256_GCM_SHA384");
    assert_eq!(text(&new, Attribute::TlsProtocolVersion), "1.3");
}

#[test]
fn failures_are_told() {
    let [first, second, ..] = &old_handshake()[..] else { panic!() };
    let unknown_ca = ask(record(ALERT, &[2, 48]));
    let unrecognized_name = answer(record(ALERT, &[1, 112]));
    let cases = [
        (refused(), Some("handshake_failure"), Some(false)),
        (vec![first.clone(), second.clone(), unknown_ca.clone()], Some("unknown_ca"), Some(false)),
        (vec![first.clone(), unknown_ca], Some("unknown_ca"), Some(false)),
        (vec![first.clone(), answer("HTTP/1.1 400 Bad Request\r\n\r\n")], Some("not_tls"), Some(false)),
        (vec![first.clone(), unrecognized_name, second.clone()], Some("TLSv1.2"), None),
        (vec![first.clone()], None, None),
    ];
    for (turns, status, ok) in cases {
        let found = only(&turns);
        assert_eq!((found.status.as_deref(), found.ok), (status, ok), "{turns:?}");
        assert_eq!(found.error.is_some(), ok == Some(false));
        assert_eq!(found.target.as_deref(), Some("shop.example"));
    }
}

#[test]
fn a_hello_of_ssl_2_is_one() {
    let [_, second, third, fourth, ..] = &old_handshake()[..] else { panic!() };
    let found = only(&[ask(ssl2_hello()), second.clone(), third.clone(), fourth.clone()]);
    assert_eq!((found.status.as_deref(), found.ok), (Some("TLSv1.2"), Some(true)));
    assert_eq!(found.target, None);
}

#[test]
fn an_encrypted_hello_is_noted() {
    let hello = client_hello(&[server_name(b"outer.example"), extension(0xfe0d, &[0; 200])]);
    let found = only(&[ask(record(HANDSHAKE, &hello))]);
    assert_eq!(text(&found, Attribute::TlsEncryptedHello), "offered");
}

#[test]
fn lengths_that_lie_hide_nothing_else() {
    for name in [vec![b'a'; 256], Vec::new()] {
        let found = only(&[ask(record(HANDSHAKE, &client_hello(&[server_name(&name), alpn(&[b"h2"])])))]);
        assert_eq!(
            (found.target.as_deref(), text(&found, Attribute::TlsOfferedProtocols).as_str()),
            (None, "h2")
        );
    }
    let cut = only(&[ask(record(HANDSHAKE, &message(1, &[3, 3, 1, 2])))]);
    assert_eq!(text(&cut, Attribute::Anomalies), "malformed hello");
}

#[test]
fn an_answer_without_its_question_stands_alone() {
    let mut played = Played::late(&PROTOCOL);
    played.data(Direction::ToClient, new_handshake()[3].bytes()).finish(End::Fin);
    let [found] = &played.exchanges[..] else { panic!("{:?}", played.exchanges) };
    assert!(found.request.is_none() && found.response.is_some());
    assert_eq!(found.capture, Capture::Midstream);
}
