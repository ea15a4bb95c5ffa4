//! Captures of a dialogue.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use weir_bench::{Dialogue, Listener, Place, Talk};
use weir_core::stream::Segment;
use weir_testkit::packet::Frame;

/// As much as a packet on a wire carries.
const SEGMENT_BYTES: usize = 1_448;
/// Time in nanoseconds, little endian.
const MAGIC: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
const FIRST_PACKET_S: u64 = 1_700_000_000;

/// Writes what passes when `dialogue` is said, of which `rounds` rounds.
pub(super) fn write(path: &Path, dialogue: &Dialogue, rounds: u32) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&MAGIC.to_le_bytes())?;
    file.write_all(&[2, 0, 4, 0])?;
    for field in [0, 0, 0x0004_0000, ETHERNET] {
        file.write_all(&field.to_le_bytes())?;
    }
    let mut talk = Talk::new(dialogue, SEGMENT_BYTES, Pcap { file, result: Ok(()) });
    (0..rounds).for_each(|_| talk.round());
    let Pcap { mut file, result } = talk.listener;
    result.and_then(|()| file.flush())
}

struct Pcap {
    file: BufWriter<File>,
    /// What went wrong first.
    result: Result<()>,
}

impl Pcap {
    fn packet(&mut self, place: &Place, frame: &[u8]) {
        let length = frame.len() as u32;
        let second = FIRST_PACKET_S + place.time_ns / 1_000_000_000;
        let nanosecond = place.time_ns % 1_000_000_000;
        let mut packet = Vec::with_capacity(16 + frame.len());
        for field in [second as u32, nanosecond as u32, length, length] {
            packet.extend_from_slice(&field.to_le_bytes());
        }
        packet.extend_from_slice(frame);
        if self.result.is_ok() {
            self.result = self.file.write_all(&packet);
        }
    }
}

impl Listener for Pcap {
    fn segment(&mut self, place: &Place, segment: &Segment<'_>) {
        let (frame, [from, to]) = between(place);
        let flags: String = [(segment.syn, 'S'), (segment.fin, 'F'), (segment.ack.is_some(), 'A')]
            .into_iter()
            .filter_map(|(is_set, letter)| is_set.then_some(letter))
            .collect();
        let frame = frame.tcp(from, to, &flags).seq(segment.seq).ack(segment.ack.unwrap_or(0));
        self.packet(place, &frame.payload(segment.payload).build());
    }

    fn datagram(&mut self, place: &Place, payload: &[u8]) {
        let (frame, [from, to]) = between(place);
        self.packet(place, &frame.udp(from, to).payload(payload).build());
    }
}

fn between(place: &Place) -> (Frame, [u16; 2]) {
    let [client, server] = place.ends;
    let [from, to] = if place.asks { [client, server] } else { [server, client] };
    let [source, destination] = [from.0, to.0].map(|address| Ipv4Addr::from(address).to_string());
    (Frame::between(&source, &destination), [from.1, to.1])
}
