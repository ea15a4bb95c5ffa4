use miniz_oxide::deflate::compress_to_vec_zlib;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;
use crate::l7::Direction;

const COMPRESS: u32 = 1 << 5;
const ZSTD: u32 = 1 << 26;

type Compress = fn(&[u8]) -> Vec<u8>;

pub(super) fn zlib(content: &[u8]) -> Vec<u8> {
    compress_to_vec_zlib(content, 6)
}

pub(super) fn zstd(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, CompressionLevel::Fastest)
}

fn frame(sequence: u8, content: &[u8], compress: Option<Compress>) -> Vec<u8> {
    let (payload, length) = match compress {
        Some(compress) => (compress(content), content.len() as u32),
        None => (content.to_vec(), 0),
    };
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    let [d, e, f, _] = length.to_le_bytes();
    [&[a, b, c, sequence, d, e, f], payload.as_slice()].concat()
}

/// The same dialogue, of which everything after the login is compressed, in
/// pieces of a few bytes; every third of them as it is.
pub(super) fn of(turns: &[Turn], compress: Compress) -> Vec<Turn> {
    let mut number = 0;
    let mut compressed = Vec::new();
    for (index, turn) in turns.iter().enumerate() {
        let asks = turn.direction() == Direction::ToServer;
        let mut bytes = turn.bytes().to_vec();
        if index == 0 || index == 1 {
            // The capabilities stand where they do in all of these dialogues.
            let at = if index == 0 { bytes.len() - 53 } else { 4 };
            bytes[at] |= COMPRESS as u8;
        } else if index > 2 {
            number = if asks { 0 } else { number };
            let size = if asks { bytes.len() } else { 40 };
            bytes = bytes
                .chunks(size)
                .flat_map(|piece| {
                    let frame = frame(number, piece, (number % 3 != 2).then_some(compress));
                    number = number.wrapping_add(1);
                    frame
                })
                .collect();
        }
        compressed.push(if asks { ask(bytes) } else { answer(bytes) });
    }
    compressed
}

fn without_sizes(exchanges: &[Exchange]) -> Vec<Exchange> {
    let mut plain = exchanges.to_vec();
    for one in &mut plain {
        for part in [&mut one.request, &mut one.response].into_iter().flatten() {
            part.bytes = 0;
        }
    }
    plain
}

#[test]
fn compressed_packets_say_the_same_as_plain_ones() {
    let plain = play(&PROTOCOL, &new());
    for compress in [zlib, zstd] {
        let turns = of(&new(), compress);
        let compressed = play(&PROTOCOL, &turns);
        assert_eq!(without_sizes(&compressed), without_sizes(&plain));
        // Sizes are those on the wire, all of them.
        let bytes = |direction| -> u64 {
            turns
                .iter()
                .filter(|turn| turn.direction() == direction)
                .map(|turn| turn.bytes().len() as u64)
                .sum()
        };
        let asked: u64 = compressed.iter().filter_map(|one| one.request).map(|part| part.bytes).sum();
        let answered: u64 = compressed.iter().filter_map(|one| one.response).map(|part| part.bytes).sum();
        assert_eq!(asked, bytes(Direction::ToServer));
        assert_eq!(answered, bytes(Direction::ToClient) - turns[0].bytes().len() as u64);
    }
}

#[test]
fn the_parser_keeps_every_promise_when_it_decompresses() {
    for compress in [zlib, zstd] {
        harness::check(&PROTOCOL, &of(&new(), compress));
    }
}

#[test]
fn time_is_linear_when_it_decompresses() {
    for compress in [zlib, zstd] {
        harness::check_linear(&PROTOCOL, |length| {
            let mut turns = hello(OLD);
            for index in 0..length / 250 {
                turns.push(ask(query(&format!("SELECT a FROM t WHERE b = {index}"))));
                turns.push(answer(rows(1, &["one row", "another row"], 2)));
            }
            of(&turns, compress)
        });
    }
}

/// A greeting, a login and its answer, with zlib or zstd agreed upon.
fn hello_compressed(flag: u32) -> Vec<Turn> {
    hello(OLD | flag)
}

#[test]
fn what_zstd_itself_made_is_read() {
    let content = b"SELECT compressed FROM zstd WHERE compressed = 'it';\n".repeat(20);
    // Of `zstd -3`, which adds a checksum.
    let made = b"(\xb5/\xfd\x04X\xa5\x01\x00\x94\x02SELECT compressed FROM zstd WHERE= 'it';\x0a\x02\x00\xec\xb1\xaax\x9c\x9bO(\x0a\x91Y";
    for size in [1, 2, 7, made.len()] {
        let mut decoder = decoder::Decoder::default();
        let mut read = Vec::new();
        for piece in made.chunks(size) {
            assert_eq!(decoder.feed(piece, &mut |bytes| read.extend_from_slice(bytes)), Ok(()));
        }
        assert_eq!(read, content);
        assert_eq!(decoder.feed(b"more", &mut |_| {}), Err(decoder::Broken));
    }
}

#[test]
fn a_compressed_answer_with_a_hole_keeps_its_place() {
    let big = "x".repeat(200);
    let values: Vec<&str> = (0..200).map(|_| big.as_str()).collect();
    let content = rows(1, &values, 2);
    for (flag, compress) in [(COMPRESS, zlib as Compress), (ZSTD, zstd)] {
        let mut played = Played::new(&PROTOCOL);
        played.turns(&hello_compressed(flag));
        played.data(Direction::ToServer, &frame(0, &query("SELECT a FROM t"), None));
        let whole = frame(1, &content, Some(compress));
        played.data(Direction::ToClient, &whole[..whole.len() / 2]);
        played.gap(Direction::ToClient, (whole.len() - whole.len() / 2) as u64, Gap::Lost);
        for index in 0..3 {
            played.data(
                Direction::ToServer,
                &frame(0, &query(&format!("SELECT {index}, b FROM c{index}")), None),
            );
            played.data(Direction::ToClient, &frame(1, &rows(1, &["1"], 2), Some(compress)));
        }
        played.finish(End::Fin);
        let statuses: Vec<_> = played.exchanges.iter().map(|one| one.status.as_deref()).collect();
        assert_eq!(statuses, [Some("OK"), None, Some("OK"), Some("OK"), Some("OK")]);
        assert_eq!(played.exchanges[1].capture, Capture::Gap);
    }
}

#[test]
fn a_row_that_is_not_looked_at_is_not_decompressed() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&hello_compressed(COMPRESS));
    played.data(Direction::ToServer, &frame(0, &query("SELECT blob FROM t"), None));
    let row = packet(4, [&[0xfd, 0x40, 0x0d, 0x03], vec![b'x'; 200_000].as_slice()].concat());
    let head = packets(1, &[&[1], &column("a"), &eof_body(2)]);
    let all = [head.as_slice(), &row, &packet(5, eof_body(2))].concat();
    let (first, rest) = all.split_at(1_000);
    let (second, third) = rest.split_at(150_000);
    played.data(Direction::ToClient, &frame(1, first, Some(zlib)));
    // No decoder could read this.
    let [a, b, c, _] = (second.len() as u32).to_le_bytes();
    played.data(Direction::ToClient, &[&[4, 0, 0, 2, a, b, c], b"\xff\xff\xff\xff".as_slice()].concat());
    played.data(Direction::ToClient, &frame(3, third, Some(zlib)));
    played.finish(End::Fin);
    let last = played.exchanges.last().unwrap();
    assert_eq!((last.status.as_deref(), last.capture), (Some("OK"), Capture::Complete));
    assert_eq!(number(last, Attribute::DbResponseReturnedRows), Some(1));
}

#[test]
fn a_late_join_finds_out_that_it_is_compressed() {
    let mut played = Played::late(&PROTOCOL);
    for index in 0..3 {
        let sql = format!("SELECT {index}, c{index} FROM a_table_with_a_long_name WHERE b = 'SECRET'");
        played.pause().data(Direction::ToServer, &frame(0, &query(&sql), Some(zlib)));
        played.data(Direction::ToClient, &frame(1, &rows(1, &["1", "2"], 2), Some(zlib)));
    }
    played.finish(End::Fin);
    let paired: Vec<_> =
        played.exchanges.iter().filter(|one| one.request.is_some() && one.response.is_some()).collect();
    assert_eq!(paired.len(), 2, "{:?}", told(&played.exchanges));
    assert_eq!(number(paired[0], Attribute::DbResponseReturnedRows), Some(2));
}

#[test]
fn hostile_sizes_do_not_cost_memory() {
    let bomb = compress_to_vec_zlib(&vec![0; 16 << 20], 9);
    let mut zeros = frame(1, &[], None);
    zeros.clear();
    let [a, b, c, _] = (bomb.len() as u32).to_le_bytes();
    zeros.extend_from_slice(&[a, b, c, 1, 0xff, 0xff, 0xff]);
    zeros.extend_from_slice(&bomb);
    // A window of 2 GiB.
    let window =
        [&[12, 0, 0, 1, 0xff, 0xff, 0xff][..], b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00\x00\x00\x00"].concat();
    // Blocks that repeat one byte 128 kB long, without an end.
    let block = [0x02, 0x00, 0x10, 0x61];
    let mut repeats = b"\x28\xb5\x2f\xfd\x00\x68".to_vec();
    repeats.extend_from_slice(&block.repeat(2_000));
    let [a, b, c, _] = (repeats.len() as u32).to_le_bytes();
    let repeated = [&[a, b, c, 1, 0xff, 0xff, 0xff][..], &repeats].concat();
    for answer in [zeros, window, repeated] {
        let mut played = Played::new(&PROTOCOL);
        played.turns(&hello_compressed(COMPRESS | ZSTD));
        played.data(Direction::ToServer, &frame(0, &query("SELECT 1"), None));
        for piece in answer.chunks(1_448) {
            played.data(Direction::ToClient, piece);
            assert!(played.memory_bytes() < 12 << 20, "{}", played.memory_bytes());
        }
        played.finish(End::Fin);
    }
}
