//! DNS.

use super::Dialogue;

pub(super) fn dialogues() -> Vec<Dialogue> {
    vec![
        dns("DNS over UDP, an address", 1, true),
        dns("DNS over UDP, 25 addresses", 25, true),
        dns("DNS over TCP, an address", 1, false),
        dns("DNS over TCP, 1,000 addresses", 1_000, false),
    ]
}

fn dns(name: &'static str, addresses: u16, udp: bool) -> Dialogue {
    const QUESTION: &[u8] = b"\x04shop\x04test\x00\x00\x01\x00\x01";
    let [high, low] = addresses.to_be_bytes();
    let asked = [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], QUESTION].concat();
    // The name of the question, which stands at byte 12.
    let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 7];
    let answered =
        [&[0x12, 0x34, 0x81, 0x80, 0, 1, high, low, 0, 0, 0, 0], QUESTION, &address.repeat(addresses.into())]
            .concat();
    let sent = |message: Vec<u8>| {
        if udp { message } else { [&(message.len() as u16).to_be_bytes()[..], &message].concat() }
    };
    Dialogue {
        name,
        protocol: "dns",
        port: 53,
        udp,
        turns: vec![(true, sent(asked)), (false, sent(answered))],
        requests: 1,
        tshark_field: "dns.qry.name",
        ..Dialogue::default()
    }
}
