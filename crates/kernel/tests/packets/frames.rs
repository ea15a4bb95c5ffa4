//! Frames of HTTP/2: their contents are left out where user space has seen that
//! they are frames, and nothing else ever is.

use std::num::NonZeroU32;

use weir_core::capture::Frames;
use weir_testkit::require_root;

use crate::expect::{A, B};
use crate::lab::{Lab, Piece};
use crate::payload::{Talk, counting};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// As bpf/frames.h has them: what is copied of a long frame, and when it is long.
const HEAD_BYTES: usize = 64;
const LONG_BYTES: usize = 4096;
/// Where both ends begin.
const FIRST_SEQ: u32 = 1001;
const PACKET_BYTES: usize = 1400;

/// What an end sends, and which of it nobody needs.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// By byte.
    needed: Vec<bool>,
}

impl Stream {
    fn settings() -> Self {
        Self::default().frame(SETTINGS, 12)
    }

    fn frame(mut self, kind: u8, length: usize) -> Self {
        let [_, high, middle, low] = (length as u32).to_be_bytes();
        let stream = u8::from(kind != SETTINGS);
        self.bytes.extend([high, middle, low, kind, 0, 0, 0, 0, stream]);
        self.bytes.extend(counting(length));
        let is_long = kind == DATA && length >= LONG_BYTES;
        let needed = if is_long { HEAD_BYTES } else { 9 + length };
        self.needed.extend((0..9 + length).map(|at| at < needed));
        self
    }

    fn unneeded(&self) -> usize {
        self.needed.iter().filter(|needed| !**needed).count()
    }

    /// Holds what was told against what was sent: what is copied is right, and what is
    /// left out is not needed. How many bytes are copied, left out, and neither.
    #[track_caller]
    fn check(&self, pieces: &[Piece]) -> [usize; 3] {
        let mut told = vec![None; self.bytes.len()];
        for piece in pieces {
            let start = (piece.seq - FIRST_SEQ) as usize;
            let end = start + piece.payload.len();
            assert_eq!(piece.payload, self.bytes[start..end], "from {start}");
            told[start..end].fill(Some(true));
            let after = start + piece.payload_bytes as usize;
            let left_out = after..after + piece.left_out_bytes as usize;
            for (needed, told) in self.needed[left_out.clone()].iter().zip(&mut told[left_out]) {
                assert!(!needed, "what is left out is of a frame's head, or another's: {piece:?}");
                told.get_or_insert(false);
            }
        }
        [Some(true), Some(false), None].map(|what| told.iter().filter(|one| **one == what).count())
    }
}

/// A server's stream, over one connection.
struct Download<'lab> {
    talk: Talk<'lab>,
    turns: u32,
    /// As user space would tell it.
    told: Option<Frames>,
}

impl<'lab> Download<'lab> {
    fn new(lab: &'lab mut Lab) -> Self {
        let talk = Talk::opened(lab);
        talk.client("PA", 1001, 1001, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        Self { talk, turns: 0, told: None }
    }

    /// One packet of the server's, in a turn of its own: turns are not what this is about.
    fn send(&mut self, stream: &Stream, from: usize, to: usize, flags: &str) -> Vec<Piece> {
        self.turns += 1;
        self.talk.client("PA", 2000 + self.turns, 1001, b"x");
        self.talk.pieces();
        self.talk.server(flags, FIRST_SEQ + from as u32, 2001 + self.turns, &stream.bytes[from..to]);
        self.talk.pieces()
    }

    fn tell(&mut self, frames: Option<Frames>) {
        self.told = frames;
        let mut both = [None; 2];
        both[self.talk.client.other().index()] = frames;
        self.talk.lab.want_frames(&self.talk.key, both);
    }

    /// Says that these frames really are frames.
    fn believe(&mut self, chain: NonZeroU32) {
        self.tell(Some(Frames { seq: FIRST_SEQ, bytes: 9, chain: Some(chain) }));
    }

    /// Sends all of it in order, in packets of these lengths by turns.
    fn send_all(&mut self, stream: &Stream, from: usize, lengths: &[usize]) -> Vec<Piece> {
        let mut at = from;
        let mut pieces = Vec::new();
        for length in lengths.iter().cycle() {
            let end = (at + length).min(stream.bytes.len());
            if at == end {
                break;
            }
            pieces.extend(self.send(stream, at, end, "A"));
            at = end;
        }
        pieces
    }
}

fn chain_of(pieces: &[Piece]) -> Option<NonZeroU32> {
    pieces.iter().find_map(|piece| piece.frame_chain)
}

#[test]
fn root_contents_of_frames_are_left_out_once_they_are_believed() {
    require_root!();
    Lab::with_payload(|lab| {
        let stream = Stream::settings().frame(HEADERS, 50).frame(DATA, 10_000).frame(DATA, 100);
        let mut download = Download::new(lab);
        let first = download.send(&stream, 0, 21, "A");
        assert_eq!((first.len(), first[0].seq), (1, FIRST_SEQ));
        download.believe(chain_of(&first).unwrap());
        // HEADERS, and the beginning of the body.
        let told = |pieces: &[Piece]| -> Vec<_> {
            let of =
                |one: &Piece| (one.seq - FIRST_SEQ, one.payload_bytes, one.payload.len(), one.left_out_bytes);
            pieces.iter().map(of).collect()
        };
        assert_eq!(told(&download.send(&stream, 21, 1000, "A")), [(21, 59 + 64, 59 + 64, 10_009 - 64)]);
        assert_eq!(told(&download.send(&stream, 1000, 3000, "A")), [], "inside of it nothing is told");
        assert_eq!(told(&download.send(&stream, 1000, 2000, "A")), [], "nor is it when it is sent again");
        assert_eq!(told(&download.send(&stream, 3000, 5000, "A")), []);
        assert_eq!(told(&download.send(&stream, 5000, 7500, "A")), []);
        // Where it ends, and what follows.
        let end = 21 + 59 + 10_009;
        assert_eq!(told(&download.send(&stream, 7500, end, "A")), [(end as u32, 0, 0, 0)]);
        assert_eq!(told(&download.send(&stream, end, end + 109, "FA")), [(end as u32, 109, 109, 0)]);
    });
}

/// Every way to cut headers, heads and contents, at any place of a packet.
#[test]
fn root_every_byte_is_told_once_however_frames_are_cut() {
    require_root!();
    Lab::with_payload(|lab| {
        let stream = Stream::settings()
            .frame(HEADERS, 100)
            .frame(DATA, LONG_BYTES)
            .frame(DATA, LONG_BYTES - 1)
            .frame(HEADERS, LONG_BYTES)
            .frame(DATA, 5000)
            .frame(DATA, 0)
            .frame(DATA, 6000)
            .frame(HEADERS, 3);
        for first in
            (21..2_000).step_by(83).chain([22, 23, 24, 25, 26, 30, 131, 132, 133, 134, 193, 194, 195])
        {
            lab.clear();
            let mut download = Download::new(lab);
            let mut pieces = download.send(&stream, 0, 21, "A");
            download.believe(chain_of(&pieces).unwrap());
            let lengths = [first - 21, PACKET_BYTES, 1, 2999, 4098];
            let lengths = lengths.map(|length| length.clamp(1, 3000));
            pieces.extend(download.send_all(&stream, 21, &lengths));
            let [copied, left_out, untold] = stream.check(&pieces);
            assert_eq!(
                (copied, left_out, untold),
                (stream.bytes.len() - stream.unneeded(), stream.unneeded(), 0)
            );
        }
    });
}

#[test]
fn root_frames_that_nobody_believes_are_copied() {
    require_root!();
    Lab::with_payload(|lab| {
        let stream = Stream::settings().frame(DATA, 8000).frame(DATA, 8000).frame(HEADERS, 3);
        let mut download = Download::new(lab);
        let pieces = download.send_all(&stream, 0, &[PACKET_BYTES]);
        assert_eq!(stream.check(&pieces), [stream.bytes.len(), 0, 0]);
        // Where frames are presumed to begin is told by a record that begins there.
        let presumed: Vec<_> =
            pieces.iter().filter(|one| one.frame_chain.is_some()).map(|one| one.seq - FIRST_SEQ).collect();
        assert_eq!(presumed, [0, 21 + 8009, 21 + 2 * 8009]);
        // Another chain than the one that is believed.
        let other = NonZeroU32::MIN.saturating_add(chain_of(&pieces).unwrap().get());
        lab.clear();
        let mut download = Download::new(lab);
        let mut pieces = download.send(&stream, 0, 21, "A");
        download.believe(other);
        pieces.extend(download.send_all(&stream, 21, &[PACKET_BYTES]));
        assert_eq!(stream.check(&pieces), [stream.bytes.len(), 0, 0]);
    });
}

/// Packets that are missed, come late or twice: what is left out is what may be, always.
#[test]
fn root_nothing_needed_is_left_out_whatever_happens_to_packets() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut random = 1u64;
        let mut below = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % bound
        };
        let (mut left_out_in_all, mut broken) = (0, 0);
        for _ in 0..40 {
            let mut stream = Stream::settings();
            for _ in 0..12 {
                let (kind, length) =
                    [(DATA, 8192), (DATA, 4096), (HEADERS, 60), (DATA, 20), (HEADERS, 5000)][below(5)];
                stream = stream.frame(kind, length + below(3));
            }
            lab.clear();
            let mut download = Download::new(lab);
            let mut packets = Vec::new();
            let mut at = 21;
            while at < stream.bytes.len() {
                let end = (at + 1 + below(2 * PACKET_BYTES)).min(stream.bytes.len());
                packets.push(at..end);
                at = end;
            }
            for _ in 0..below(4) {
                let at = below(packets.len());
                match below(3) {
                    0 => drop(packets.remove(at)),
                    1 => packets.insert(at, packets[below(at + 1)].clone()),
                    _ => {
                        let other = below(packets.len());
                        packets.swap(at, other);
                    }
                }
            }
            let mut pieces = download.send(&stream, 0, 21, "A");
            download.believe(chain_of(&pieces).unwrap());
            for packet in packets {
                let told = download.send(&stream, packet.start, packet.end, "A");
                broken += usize::from(chain_of(&told).is_some());
                pieces.extend(told);
            }
            let [_, left_out, _] = stream.check(&pieces);
            left_out_in_all += left_out;
        }
        assert!(left_out_in_all > 40 * 5_000, "{left_out_in_all}");
        assert!(broken > 0, "chains that were broken go on as others");
    });
}

/// What user space knows is some packets old: the frames since then are presumed to be
/// like the last one it knows, and it is asked again.
#[test]
fn root_frames_of_a_connection_that_is_joined_late_are_found_again() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut stream = Stream::default().frame(HEADERS, 70);
        for _ in 0..8 {
            stream = stream.frame(DATA, 5000);
        }
        let mut download = Download { talk: Talk::new(lab, [A, B], 40000), turns: 0, told: None };
        let mut pieces = download.send(&stream, 0, 79, "A");
        pieces.extend(download.send(&stream, 79, 1000, "A"));
        assert_eq!(chain_of(&pieces), None, "where a chain begins is not known");
        // Three frames late.
        for start in (1000..20_000).step_by(1000) {
            pieces.extend(download.send(&stream, start, start + 1000, "A"));
        }
        download.tell(Some(Frames { seq: FIRST_SEQ + 79, bytes: 5009, chain: None }));
        let asked = download.send(&stream, 20_000, 21_000, "A");
        let [before, here] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!((before.frame_chain, before.seq), (None, FIRST_SEQ + 20_000));
        assert_eq!(here.seq, FIRST_SEQ + 79 + 4 * 5009);
        let chain = here.frame_chain;
        assert!(chain.is_some());
        pieces.extend(asked);
        download.tell(Some(Frames { seq: FIRST_SEQ + 79, bytes: 5009, chain }));
        let rest = download.send_all(&stream, 21_000, &[PACKET_BYTES]);
        pieces.extend(rest);
        let [_, left_out, untold] = stream.check(&pieces);
        assert_eq!(untold, 0);
        // All but those that passed before the answer.
        assert_eq!(left_out, 3 * (5009 - HEAD_BYTES));
    });
}

/// While nobody reads, nobody follows: sequence numbers may come round meanwhile. And who
/// reads then has seen no frames.
#[test]
fn root_a_chain_ends_where_nobody_reads() {
    require_root!();
    Lab::with_payload(|lab| {
        let stream = Stream::settings().frame(DATA, 5000).frame(DATA, 5000).frame(HEADERS, 3);
        for unread in [2000, 0] {
            lab.clear();
            let mut download = Download::new(lab);
            let first = download.send(&stream, 0, 21, "A");
            download.believe(chain_of(&first).unwrap());
            download.talk.lab.copy_payload(false);
            if unread > 0 {
                download.send(&stream, 21, 21 + unread, "A");
            }
            download.talk.lab.copy_payload(true);
            let pieces = download.send_all(&stream, 21 + unread, &[PACKET_BYTES]);
            let [copied, left_out, _] = stream.check(&pieces);
            assert_eq!((copied, left_out), (stream.bytes.len() - 21 - unread, 0));
        }
    });
}

/// The client's frames come after the words that it begins with.
#[test]
fn root_what_a_client_sends_is_followed_too() {
    require_root!();
    Lab::with_payload(|lab| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(Stream::settings().frame(DATA, 5000).bytes);
        let mut talk = Talk::opened(lab);
        talk.client("PA", 1001, 1001, &bytes[..1000]);
        let pieces = talk.pieces();
        let [words, frames] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!((words.payload.len(), words.frame_chain), (24, None));
        assert_eq!((frames.seq, frames.payload.len()), (1025, 1000 - 24));
        assert!(frames.frame_chain.is_some());
    });
}
