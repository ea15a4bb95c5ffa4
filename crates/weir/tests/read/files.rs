//! Captures, made byte by byte, and who reads them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

/// A file that is gone when the test is over.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("weir-read-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A frame of raw IPv4 and TCP; `0` asks, `1` answers.
pub(crate) fn frame(from: u8, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) =
        if from == 0 { ([10, 0, 0, 2], [10, 0, 0, 1]) } else { ([10, 0, 0, 1], [10, 0, 0, 2]) };
    let (port, peer): (u16, u16) = if from == 0 { (43_122, 80) } else { (80, 43_122) };
    let total = (40 + payload.len()) as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend_from_slice(&total.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0]);
    bytes.extend_from_slice(&source);
    bytes.extend_from_slice(&destination);
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&peer.to_be_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&ack.to_be_bytes());
    bytes.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) const SYN: u8 = 2;
pub(crate) const SYN_ACK: u8 = 18;
pub(crate) const PSH_ACK: u8 = 24;

/// Two requests, a millisecond between any two packets.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let first = b"GET /orders/17?token=hunter2 HTTP/1.1\r\nHost: shop\r\nCookie: hunter2\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let second = b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n";
    let failed = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let (asked, answered) = (101 + first.len() as u32, 501 + ok.len() as u32);
    vec![
        frame(0, 100, 0, SYN, b""),
        frame(1, 500, 101, SYN_ACK, b""),
        frame(0, 101, 501, PSH_ACK, first),
        frame(1, 501, asked, PSH_ACK, ok),
        frame(0, asked, answered, PSH_ACK, second),
        frame(1, answered, asked + second.len() as u32, PSH_ACK, failed),
    ]
}

pub(crate) fn pcap() -> Vec<u8> {
    let at = (0u32..).map(|index| index * 1_000);
    file(&at.zip(frames()).collect::<Vec<_>>())
}

/// Packets, so many microseconds after its beginning.
pub(crate) fn file(packets: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[2, 0, 4, 0]);
    for field in [0u32, 0, 65_535, 101] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    for (at_us, frame) in packets {
        let length = frame.len() as u32;
        for field in [1_000_000_000, *at_us, length, length] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
    }
    bytes
}

/// Big endian, time in nanoseconds.
pub(crate) fn pcapng() -> Vec<u8> {
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = (12 + padded) as u32;
        let mut bytes = [kind.to_be_bytes(), length.to_be_bytes()].concat();
        bytes.extend_from_slice(body);
        bytes.resize(8 + padded, 0);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    }
    let section = [&0x1a2b_3c4d_u32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat();
    let interface = [&[0, 101, 0, 0, 0, 0, 0xff, 0xff][..], &[0, 9, 0, 1, 9, 0, 0, 0], &[0; 4]].concat();
    let mut bytes = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for (index, frame) in frames().iter().enumerate() {
        let time = 1_000_000_000_000_000_000 + index as u64 * 1_000_000;
        let length = (frame.len() as u32).to_be_bytes();
        let body = [&[0; 4][..], &time.to_be_bytes(), &length, &length, frame].concat();
        bytes.extend_from_slice(&block(6, &body));
    }
    bytes
}

pub(crate) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn weir(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("read")
        .args(arguments)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // It may end before it has read everything, and writes while it reads.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The records of `-o jsonl`, the summary the last.
pub(crate) fn records(arguments: &[&str], input: &[u8]) -> Vec<Value> {
    let text = stdout(&weir(&[&["-o", "jsonl", "-"], arguments].concat(), input));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is refused, and with which words.
#[track_caller]
pub(crate) fn refused(arguments: &[&str], input: &[u8], code: i32, says: &str) {
    let output = weir(&[arguments, &["-"]].concat(), input);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(code) && text.contains(says), "{arguments:?}: {text}");
}

/// A pcapng file, little endian, times in nanoseconds.
pub(crate) struct Pcapng(Vec<u8>);

impl Pcapng {
    pub(crate) fn new() -> Self {
        let mut file = Self(Vec::new());
        file.block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
        file
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let length = (12 + body.len().next_multiple_of(4)) as u32;
        self.0.extend([kind.to_le_bytes(), length.to_le_bytes()].concat());
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend(length.to_le_bytes());
    }

    fn options(options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in options.iter().chain(&[(0, &[][..])]) {
            bytes.extend([code.to_le_bytes(), (value.len() as u16).to_le_bytes()].concat());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// An interface with that link type and these options (2: name, 3: description).
    pub(crate) fn interface(mut self, link: u16, options: &[(u16, &[u8])]) -> Self {
        let options = Self::options(&[&[(9, &[9][..])], options].concat());
        self.block(1, &[&link.to_le_bytes()[..], &[0; 2], &[0xff, 0xff, 0, 0], &options].concat());
        self
    }

    /// A frame, so many milliseconds after the beginning; `flags`: 1 came in, 2 went out.
    pub(crate) fn frame(self, interface: u32, at_ms: u64, flags: Option<u32>, frame: &[u8]) -> Self {
        self.frame_at(interface, 1_000_000_000_000_000_000 + at_ms * 1_000_000, flags, frame)
    }

    /// The same, so many nanoseconds after 1970.
    pub(crate) fn frame_at(mut self, interface: u32, time: u64, flags: Option<u32>, frame: &[u8]) -> Self {
        let (high, low) = ((time >> 32) as u32, time as u32);
        let length = frame.len() as u32;
        let mut body = [interface, high, low, length, length].map(u32::to_le_bytes).concat();
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        if let Some(flags) = flags {
            body.extend(Self::options(&[(2, &flags.to_le_bytes())]));
        }
        self.block(6, &body);
        self
    }

    /// A frame without a time, of the first interface.
    pub(crate) fn simple(mut self, frame: &[u8]) -> Self {
        self.block(3, &[&(frame.len() as u32).to_le_bytes()[..], frame].concat());
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}
