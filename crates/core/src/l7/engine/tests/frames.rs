//! Frames of HTTP/2 whose contents the kernel side leaves out.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::Range;

use super::live::{DATA, FIN, FIRST_NS, Kernel, RST};
use super::*;

const HEADER_BYTES: usize = 9;
/// As the kernel side does.
const HEAD_BYTES: usize = 64;
const LONG_BYTES: usize = 4096;
const FIRST_SEQ: u32 = 1000;
const CHAIN: NonZeroU32 = NonZeroU32::MIN;

const KIND_DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    [&[high, middle, low, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A literal field that is not added to the table, by the number of its name.
fn field(name: u8, value: &str) -> Vec<u8> {
    [&[name, value.len() as u8], value.as_bytes()].concat()
}

fn get(stream: u8, path: &str) -> Vec<u8> {
    let fields = [vec![0x82, 0x86], field(0x04, path)].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields)
}

/// What a server sends, and how the kernel side tells of it.
struct Server {
    bytes: Vec<u8>,
    frames: Vec<Range<usize>>,
    /// By frame: its content is left out.
    left_out: Vec<bool>,
    /// It knows where frames begin.
    follows: bool,
    believed: bool,
    /// Records that are not read yet.
    ring: VecDeque<Record>,
}

struct Record {
    flags: u8,
    bytes: Range<usize>,
    left_out: usize,
    chain: Option<NonZeroU32>,
}

impl Server {
    fn new(frames: &[Vec<u8>]) -> Self {
        let mut end = 0;
        let ranges = frames.iter().map(|frame| {
            end += frame.len();
            end - frame.len()..end
        });
        Self {
            frames: ranges.collect(),
            left_out: vec![false; frames.len()],
            bytes: frames.concat(),
            follows: true,
            believed: false,
            ring: VecDeque::new(),
        }
    }

    /// One download, in frames of 16 kB, and an answer after it.
    fn download(length: usize) -> Self {
        let mut frames = vec![frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &[0x88])];
        let body = vec![b'x'; length];
        frames.extend(body.chunks(16_384).map(|chunk| frame(KIND_DATA, 0, 1, chunk)));
        frames.push(frame(KIND_DATA, END_STREAM, 1, &[]));
        frames.push(frame(HEADERS, END_STREAM | END_HEADERS, 3, &[0x89]));
        Self::new(&frames)
    }

    /// A packet passes: bpf/frames.h in short.
    fn pass(&mut self, packet: Range<usize>, flags: u8) {
        let mut told = packet.start;
        let mut presumed = false;
        let mut inside = false;
        let mut tell = |told: &mut usize, end: usize, left_out: usize, chain: Option<NonZeroU32>| {
            let flags = if end == packet.end && left_out == 0 { flags } else { DATA };
            self.ring.push_back(Record { flags, bytes: *told..end, left_out, chain });
            *told = end;
        };
        let mut chain = None;
        for (frame, left_out) in self.frames.iter().zip(&mut self.left_out) {
            if !self.follows || frame.end <= packet.start || frame.start >= packet.end {
                continue;
            }
            if packet.contains(&frame.start) {
                let is_long = frame.len() >= HEADER_BYTES + LONG_BYTES;
                *left_out = self.believed && self.bytes[frame.start + 3] == KIND_DATA && is_long;
                if !self.believed && !presumed {
                    if frame.start > told {
                        tell(&mut told, frame.start, 0, None);
                    }
                    presumed = true;
                    chain = Some(CHAIN);
                }
            }
            inside = *left_out && frame.end > packet.end;
            if *left_out {
                let kept = frame.start + HEAD_BYTES;
                if kept > told {
                    if kept > packet.end {
                        inside = false;
                        break;
                    }
                    tell(&mut told, kept, frame.end - kept, chain.take());
                }
                told = frame.end.min(packet.end);
            }
        }
        if told < packet.end || !inside || flags != DATA {
            tell(&mut told, packet.end, 0, chain);
        }
    }

    /// One record is read, and what user space wants reaches the kernel side.
    fn read(&mut self, kernel: &mut Kernel) {
        let Some(record) = self.ring.pop_front() else { return };
        let Record { flags, bytes, left_out, chain } = record;
        let seq = FIRST_SEQ + bytes.start as u32;
        let (left_out, length) = (left_out as u32, bytes.len() as u32);
        kernel.tell_framed(false, flags, seq, &self.bytes[bytes], length, left_out, chain);
        let told = kernel.wanted.last().and_then(|wanted| wanted.frames[server().index()]);
        if let Some(frames) = told {
            // Whatever it is told is true.
            let at = (frames.seq - FIRST_SEQ) as usize;
            assert!(at == self.bytes.len() || self.frames.iter().any(|frame| frame.start == at), "{at}");
            self.believed |= frames.chain == Some(CHAIN);
        }
    }

    /// Everything passes in packets of this length; reading is that many packets behind.
    fn run(&mut self, kernel: &mut Kernel, from: usize, packet_bytes: usize, behind: usize) {
        let mut at = from;
        while at < self.bytes.len() {
            let end = (at + packet_bytes).min(self.bytes.len());
            self.pass(at..end, DATA);
            at = end;
            while self.ring.len() > behind {
                self.read(kernel);
            }
        }
        while !self.ring.is_empty() {
            self.read(kernel);
        }
    }
}

fn server() -> Side {
    key(1).1.other()
}

/// A client that has asked for two things.
fn asked() -> Kernel {
    let mut kernel = Kernel::new();
    let words = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    let asks = [words, get(1, "/big"), get(3, "/next")].concat();
    kernel.tell(true, DATA, &asks, asks.len() as u32);
    kernel
}

fn losses(kernel: &Kernel) -> u64 {
    kernel.engine.tally().losses().iter().map(|(_, count)| count).sum()
}

/// Of the answer on the first stream.
fn answer_bytes(body: usize) -> usize {
    (HEADER_BYTES + 1) + body + HEADER_BYTES * (body.div_ceil(16_384) + 1)
}

#[test]
fn contents_are_left_out_and_counted() {
    const BODY: usize = 5_000_000;
    for packet_bytes in [1_448, 16_393, 65_160] {
        for behind in [0, 1, 7, 30] {
            let mut kernel = asked();
            let asked_bytes = kernel.engine.tally().captured_bytes;
            let mut server = Server::download(BODY);
            server.run(&mut kernel, 0, packet_bytes, behind);
            let what = format!("packets of {packet_bytes}, {behind} behind");
            let first = format!("/big 200 {}", answer_bytes(BODY));
            assert_eq!(kernel.lines(), [first, format!("/next 204 {}", HEADER_BYTES + 1)], "{what}");
            assert_eq!(losses(&kernel), 0, "{what}");
            let tally = kernel.engine.tally();
            let copied = tally.captured_bytes - asked_bytes;
            assert_eq!(copied + tally.left_out_bytes, server.bytes.len() as u64, "{what}");
            let at_first = (1 << 20) + 3 * (behind as u64 + 2) * packet_bytes.max(16_393) as u64;
            assert!(copied < at_first + BODY as u64 / 100, "{what}: {copied}");
            assert!(kernel.wanted.len() < 10, "{what}: {}", kernel.wanted.len());
        }
    }
}

/// A frame's content is under way when something else happens.
fn in_a_frame() -> (Kernel, Server, usize) {
    let mut kernel = asked();
    let mut server = Server::download(3_000_000);
    let middle = server.frames[150].start + 5_000;
    let bytes = server.bytes.clone();
    server.bytes.truncate(middle);
    server.run(&mut kernel, 0, 3_000, 2);
    assert!(server.believed);
    server.bytes = bytes;
    (kernel, server, middle)
}

#[test]
fn the_client_may_say_something_in_the_middle_of_a_frame() {
    let (mut kernel, mut server, middle) = in_a_frame();
    // It has all that passed so far, which was not told yet.
    kernel.at[1] = FIRST_SEQ + middle as u32;
    let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0x40, 0]);
    kernel.tell(true, DATA, &update, update.len() as u32);
    server.run(&mut kernel, middle, 3_000, 0);
    assert_eq!(kernel.lines()[0], format!("/big 200 {}", answer_bytes(3_000_000)));
    assert_eq!((kernel.lines().len(), losses(&kernel)), (2, 0));
}

#[test]
fn a_frame_that_is_broken_off_counts_so_far() {
    let sent = |server: &Server, middle: usize| middle - server.frames[1].start;
    for flags in [RST, FIN] {
        let (mut kernel, server, middle) = in_a_frame();
        kernel.at[1] = FIRST_SEQ + middle as u32;
        kernel.tell(false, flags, b"", 0);
        kernel.tell(true, flags, b"", 0);
        let expected = format!("/big 200 {} (in part)", sent(&server, middle));
        assert_eq!((&kernel.lines()[0], losses(&kernel)), (&expected, 0), "{flags}");
    }
    // And so it does when weir ends.
    let (mut kernel, server, middle) = in_a_frame();
    let mut next_seq = [kernel.at[0], FIRST_SEQ + middle as u32];
    if super::frames::server() == Side::Low {
        next_seq.swap(0, 1);
    }
    let Kernel { engine, found, .. } = &mut kernel;
    engine.flow_came_to(&key(1).0, FIRST_NS, next_seq, &mut |one| found.push(one));
    engine.finish(&mut |one| found.push(one));
    let expected = format!("/big 200 {} (in part)", sent(&server, middle));
    assert_eq!((&kernel.lines()[0], losses(&kernel)), (&expected, 0));
}

/// Records find no room: what is missing then is lost, and not left out.
#[test]
fn lost_records_are_lost_also_between_frames_that_are_left_out() {
    let mut found_both = 0;
    for lost in 100..160 {
        let mut kernel = asked();
        let mut server = Server::download(5_000_000);
        let mut told = 0;
        for start in (0..server.bytes.len()).step_by(20_000) {
            server.pass(start..(start + 20_000).min(server.bytes.len()), DATA);
            while !server.ring.is_empty() {
                told += 1;
                if (lost..lost + 2).contains(&told) {
                    server.ring.pop_front();
                } else {
                    server.read(&mut kernel);
                }
            }
        }
        let Kernel { engine, found, .. } = &mut kernel;
        engine.finish(&mut |one| found.push(one));
        assert_ne!(losses(&kernel), 0, "{lost}");
        let lines = kernel.lines();
        let wrong = |line: &&String| !line.starts_with("/big 200") && !line.starts_with("/next 204");
        assert_eq!(lines.iter().find(wrong), None, "{lost}");
        found_both += usize::from(lines.len() == 2);
    }
    assert!(found_both > 30, "{found_both}");
}

/// The kernel side does not know where frames begin: it is told from time to time.
#[test]
fn where_frames_begin_is_told_while_they_are_copied() {
    let mut kernel = asked();
    let mut server = Server::download(3_000_000);
    server.follows = false;
    server.run(&mut kernel, 0, 10_000, 3);
    let frames: Vec<_> =
        kernel.wanted.iter().map(|wanted| wanted.frames[super::frames::server().index()]).collect();
    assert!(frames.iter().all(|frames| frames.is_some_and(|one| one.chain.is_none())), "{frames:?}");
    let lengths: Vec<_> = frames.iter().flatten().map(|one| one.bytes).collect();
    assert_eq!(lengths, [16_393; 7], "every 256 kB, after the first MiB");
    assert_eq!(kernel.engine.tally().left_out_bytes, 0);
}

/// Short frames are copied anyway: nobody needs to know of them.
#[test]
fn short_frames_are_nothing_to_tell_of() {
    let mut frames = vec![frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &[0x88])];
    frames.extend((0..2_000).map(|_| frame(KIND_DATA, 0, 1, &[b'x'; 1_000])));
    frames.push(frame(KIND_DATA, END_STREAM, 1, &[]));
    let mut kernel = asked();
    Server::new(&frames).run(&mut kernel, 0, 10_000, 0);
    assert_eq!(kernel.wanted, []);
    assert_eq!(kernel.lines(), [format!("/big 200 {}", 10 + 2_000 * 1_009 + 9)]);
}

/// Where messages begin in what was left out is not known; nothing else is missing.
#[test]
fn of_a_long_call_messages_are_counted_where_that_can_be() {
    const ALIGNED: usize = 16_384;
    for (message_bytes, counted) in [(4 * ALIGNED - 5, true), (ALIGNED - 5, true), (10_000, false)] {
        let head = [&[0x88][..], &field(0x0f, "")[..1], &[0x10, 16], b"application/grpc"].concat();
        let trailers = [&[0][..], &[11], b"grpc-status", &[1], b"0"].concat();
        let one = [&[0][..], &(message_bytes as u32).to_be_bytes(), &vec![0x55; message_bytes]].concat();
        let messages = one.repeat(3_000_000 / message_bytes);
        let mut frames = vec![frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &head)];
        frames.extend(messages.chunks(ALIGNED).map(|chunk| frame(KIND_DATA, 0, 1, chunk)));
        frames.push(frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers));
        let mut kernel = asked();
        let mut server = Server::new(&frames);
        server.run(&mut kernel, 0, 30_000, 1);
        assert!(kernel.engine.tally().left_out_bytes > 1_500_000);
        let exchange = &kernel.found[0].exchange;
        assert_eq!((kernel.found[0].protocol, exchange.status.as_deref()), ("grpc", Some("OK")));
        assert_eq!(exchange.capture, crate::record::Capture::Complete);
        let all = server.bytes.len() - server.frames[0].len();
        assert_eq!(exchange.response.unwrap().bytes, all as u64);
        let count = exchange.attributes.get(crate::l7::Attribute::RpcReceivedMessages);
        assert_eq!(count.is_some(), counted, "{message_bytes}");
        assert_eq!(losses(&kernel), 0);
    }
}
