//! MySQL.

use super::{NAME_BYTES, PREPARED, SELECT, UPDATE};
use crate::dialogue::{Dialogue, Turn};

const QUERY: u8 = 3;
const PREPARE: u8 = 22;
const EXECUTE: u8 = 23;
const PLUGIN: &[u8] = b"mysql_native_password\0";
// Protocol 4.1, authentication by plugin, no EOF packets.
const CAPABILITIES: [u8; 4] = 0x0108_a201_u32.to_le_bytes();

pub(in crate::dialogue) fn dialogues() -> Vec<Dialogue> {
    vec![
        simple("MySQL, a statement that changes a row", UPDATE, packet(1, &[0, 1, 0, 2, 0, 0, 0])),
        simple("MySQL, a query with 10 rows", SELECT, result(10, &text_row())),
        simple("MySQL, a query with 1,000 rows", SELECT, result(1_000, &text_row())),
        prepared("MySQL, a prepared statement with 10 rows", 10),
    ]
}

/// A packet with its number.
fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_le_bytes();
    [&length[..3], &[number], body].concat()
}

fn opening() -> Vec<Turn> {
    let [a, b, c, d] = CAPABILITIES;
    let greeting = [
        b"\x0a8.0.36\0".as_slice(),
        &[7, 0, 0, 0],
        b"12345678\0",
        &[a, b, 45, 2, 0, c, d, 21],
        &[0; 10],
        b"123456789012\0",
        PLUGIN,
    ]
    .concat();
    let login = [&CAPABILITIES[..], &[0, 0, 0, 1, 45], &[0; 23], b"bob\0\x14", &[7; 20], PLUGIN].concat();
    let ok = [0, 0, 0, 2, 0, 0, 0];
    vec![(false, packet(0, &greeting)), (true, packet(1, &login)), (false, packet(2, &ok))]
}

fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    packet(0, &[&[kind], body].concat())
}

fn column(name: &str, kind: u8) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let names = ["def", "shop", "orders", "orders", name, name].map(text).concat();
    [names.as_slice(), &[12, 45, 0, 128, 0, 0, 0, kind, 0, 0, 0, 0, 0]].concat()
}

fn columns() -> [Vec<u8>; 2] {
    [column("id", 3), column("name", 253)]
}

fn name() -> Vec<u8> {
    [&[NAME_BYTES][..], &[b'x'; NAME_BYTES as usize]].concat()
}

fn text_row() -> Vec<u8> {
    [b"\x041234", name().as_slice()].concat()
}

/// Of a prepared statement: no nulls, a number as such, a text.
fn binary_row() -> Vec<u8> {
    [&[0, 0, 0xd2, 4, 0, 0], name().as_slice()].concat()
}

/// Columns, rows, and the packet that ends them.
fn result(count: usize, row: &[u8]) -> Vec<u8> {
    let mut packets = vec![vec![2]];
    packets.extend(columns());
    packets.extend(vec![row.to_vec(); count]);
    packets.push(vec![0xfe, 0, 0, 2, 0, 0, 0]);
    packets.iter().zip(1_usize..).flat_map(|(body, number)| packet(number as u8, body)).collect()
}

fn simple(name: &'static str, sql: &str, answer: Vec<u8>) -> Dialogue {
    Dialogue {
        name,
        protocol: "mysql",
        port: 3306,
        opening: opening(),
        turns: vec![(true, command(QUERY, sql.as_bytes())), (false, answer)],
        requests: 1,
        tshark_field: "mysql.command",
        ..Dialogue::default()
    }
}

fn prepared(name: &'static str, count: usize) -> Dialogue {
    let mut opening = opening();
    opening.push((true, command(PREPARE, &[PREPARED.as_bytes(), b"?"].concat())));
    // Statement 1 with two columns, one parameter and no warnings.
    let answer = [vec![0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0], column("?", 253)];
    let answer = answer.into_iter().chain(columns()).zip(1..);
    opening.push((false, answer.flat_map(|(body, number)| packet(number, &body)).collect()));
    // No cursor, once, no nulls, types follow: a number of 8 bytes.
    let asked = command(EXECUTE, &[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 8, 0, 0x67, 0x12, 0, 0, 0, 0, 0, 0]);
    Dialogue {
        opening,
        turns: vec![(true, asked), (false, result(count, &binary_row()))],
        ..simple(name, "", Vec::new())
    }
}
