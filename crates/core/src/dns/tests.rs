use proptest::prelude::*;

use super::*;

fn header(flags: u16, questions: u16, answers: u16) -> Vec<u8> {
    [0x1234, flags, questions, answers, 0, 0].iter().flat_map(|number: &u16| number.to_be_bytes()).collect()
}

fn name(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

fn question(labels: &[&[u8]]) -> Vec<u8> {
    [name(labels), vec![0, 1, 0, 1]].concat()
}

fn record(owner: &[u8], kind: u16, class: u16, ttl_s: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&class.to_be_bytes());
    bytes.extend_from_slice(&ttl_s.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

const POINTER: &[u8] = &[0xc0, 12];

/// www.Example.com: an alias, then an A and an AAAA record of its target.
fn example() -> Vec<u8> {
    [
        header(0x8180, 1, 3),
        question(&[b"www", b"Example", b"com"]),
        record(POINTER, 5, 1, 60, &name(&[b"edge", b"example", b"net"])),
        record(&name(&[b"edge", b"example", b"net"]), 1, 1, 300, &[192, 0, 2, 7]),
        record(POINTER, 28, 1, 20, &"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()),
    ]
    .concat()
}

fn example_addresses() -> Vec<AnsweredAddress> {
    vec![
        AnsweredAddress { ip: "192.0.2.7".parse().unwrap(), ttl_s: 300 },
        AnsweredAddress { ip: "2001:db8::7".parse().unwrap(), ttl_s: 20 },
    ]
}

#[test]
fn addresses_belong_to_the_name_that_was_asked_for() {
    let answer = parse(&example()).unwrap();
    assert_eq!(answer.name, "www.example.com");
    assert_eq!(answer.addresses, example_addresses());
}

#[test]
fn only_successful_answers_to_one_question_count() {
    let rest = |message: &[u8]| message[HEADER_BYTES..].to_vec();
    for (flags, questions, why) in [
        (0x0100, 1, "a query"),
        (0x8183, 1, "NXDOMAIN"),
        (0x8182, 1, "SERVFAIL"),
        (0xa180, 1, "another opcode"),
        (0x8180, 0, "no question"),
        (0x8180, 2, "two questions"),
    ] {
        assert_eq!(parse(&[header(flags, questions, 3), rest(&example())].concat()), None, "{why}");
    }
    let chaos = [header(0x8180, 1, 1), name(&[b"a"]), vec![0, 1, 0, 3]].concat();
    assert_eq!(parse(&[chaos, record(POINTER, 1, 1, 1, &[192, 0, 2, 1])].concat()), None);
    let root = [header(0x8180, 1, 1), question(&[])].concat();
    assert_eq!(parse(&[root, record(POINTER, 1, 1, 1, &[192, 0, 2, 1])].concat()), None);
    assert_eq!(parse(&[header(0x8180, 1, 0), question(&[b"a"])].concat()), None, "no address");
}

#[test]
fn strange_records_are_stepped_over() {
    let message = [
        header(0x8180, 1, 6),
        question(&[b"a"]),
        record(POINTER, 1, 1, 1, &[192, 0, 2]),
        record(POINTER, 28, 1, 1, &[0; 4]),
        record(POINTER, 1, 3, 1, &[192, 0, 2, 1]),
        record(POINTER, 16, 1, 1, b"text"),
        record(POINTER, 28, 1, 1, &"::ffff:192.0.2.9".parse::<Ipv6Addr>().unwrap().octets()),
        record(&[0xff, 0xff], 1, 1, 0x8000_0001, &[192, 0, 2, 8]),
    ]
    .concat();
    let addresses = parse(&message).unwrap().addresses;
    assert_eq!(
        addresses,
        [
            AnsweredAddress { ip: "192.0.2.9".parse().unwrap(), ttl_s: 1 },
            AnsweredAddress { ip: "192.0.2.8".parse().unwrap(), ttl_s: 0 },
        ]
    );
}

#[test]
fn hostile_names_are_bounded_and_escaped() {
    let with = |question_name: Vec<u8>| {
        let head = [header(0x8180, 1, 1), question_name, vec![0, 1, 0, 1]].concat();
        parse(&[head, record(POINTER, 1, 1, 1, &[192, 0, 2, 1])].concat()).map(|answer| answer.name)
    };
    assert_eq!(with(name(&[b"_dmarc", b"x--1"])).as_deref(), Some("_dmarc.x--1"));
    assert_eq!(
        with(name(&[b"a.b\x1b[2J", "\u{fc}".as_bytes(), b"\\"])).as_deref(),
        Some("a\\046b\\027\\0912j.\\195\\188.\\092")
    );
    assert_eq!(with(vec![0xc0, 12]), None, "points at itself");
    assert_eq!(with(vec![1, b'a', 0xc0, 12]), None, "points back at itself");
    assert_eq!(with(vec![0x40, b'a', 0]), None, "a label of an unknown kind");
    let label: &[u8] = &[b'a'; 63];
    assert_eq!(with(name(&[label; 3])).map(|name| name.len()), Some(191));
    assert!(with(name(&[label, label, label, &label[..61]])).is_some(), "255 bytes");
    assert_eq!(with(name(&[label, label, label, &label[..62]])), None, "256 bytes");
}

#[test]
fn every_truncation_yields_what_is_whole() {
    let message = example();
    for length in 0..message.len() {
        let answer = parse(&message[..length]);
        // The last record is 28 bytes long; before it stands the only other address.
        let whole = usize::from(length >= message.len() - 28);
        let got = answer.map_or(Vec::new(), |answer| {
            assert_eq!(answer.name, "www.example.com");
            answer.addresses
        });
        assert!(got == example_addresses()[..whole], "{length}: {got:?}");
    }
}

#[test]
fn every_flipped_bit_is_survived() {
    let message = example();
    for bit in 0..message.len() * 8 {
        let mut flipped = message.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Some(answer) = parse(&flipped) {
            assert!(answer.name.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(answer.addresses.len() <= 3);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(tail in prop::collection::vec(any::<u8>(), 0..600), whole in any::<bool>()) {
        let message = if whole { [header(0x8180, 1, 0xffff), tail].concat() } else { tail };
        if let Some(answer) = parse(&message) {
            prop_assert!(answer.name.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(answer.name.len() <= 4 * NAME_BYTES_MAX);
            prop_assert!(answer.addresses.len() <= message.len() / 14);
        }
    }
}
