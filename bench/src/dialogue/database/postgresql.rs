//! PostgreSQL.

use super::{NAME_BYTES, PREPARED, SELECT, UPDATE};
use crate::dialogue::{Dialogue, Turn};

pub(in crate::dialogue) fn dialogues() -> Vec<Dialogue> {
    let updated = [message(b'C', b"UPDATE 1\0"), message(b'Z', b"I")].concat();
    vec![
        simple("PostgreSQL, a statement that changes a row", UPDATE, updated),
        simple("PostgreSQL, a query with 10 rows", SELECT, result(10)),
        simple("PostgreSQL, a query with 1,000 rows", SELECT, result(1_000)),
        prepared("PostgreSQL, a prepared statement with 10 rows", 10),
    ]
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn opening() -> Vec<Turn> {
    let parameters = b"user\0bob\0database\0shop\0\0";
    let startup =
        [&(parameters.len() as u32 + 8).to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_slice()].concat();
    vec![(true, startup), (false, [message(b'R', &[0; 4]), message(b'Z', b"I")].concat())]
}

fn rows(count: usize) -> Vec<u8> {
    let name = [b'x'; NAME_BYTES as usize];
    let row = [&[0, 2, 0, 0, 0, 4][..], b"1234", &[0, 0, 0, NAME_BYTES], &name].concat();
    [message(b'D', &row).repeat(count), message(b'C', format!("SELECT {count}\0").as_bytes())].concat()
}

/// Of a simple query: what its columns are comes first.
fn result(count: usize) -> Vec<u8> {
    let column = |name: &str, kind: u8| {
        [name.as_bytes(), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kind, 0, 4, 255, 255, 255, 255, 0, 0]].concat()
    };
    let columns = [&[0, 2][..], &column("id", 23), &column("name", 25)].concat();
    [message(b'T', &columns), rows(count), message(b'Z', b"I")].concat()
}

fn simple(name: &'static str, sql: &str, answer: Vec<u8>) -> Dialogue {
    let asked = message(b'Q', &[sql.as_bytes(), &[0]].concat());
    Dialogue {
        name,
        protocol: "postgresql",
        port: 5432,
        opening: opening(),
        turns: vec![(true, asked), (false, answer)],
        requests: 1,
        tshark_field: "pgsql.type",
        ..Dialogue::default()
    }
}

fn prepared(name: &'static str, count: usize) -> Dialogue {
    let prepare = message(b'P', &[b"one\0", PREPARED.as_bytes(), b"$1\0\0\0"].concat());
    let mut opening = opening();
    opening.push((true, [prepare, message(b'S', b"")].concat()));
    opening.push((false, [message(b'1', b""), message(b'Z', b"I")].concat()));
    let bind = message(b'B', b"\0one\0\0\0\0\x01\0\0\0\x044711\0\0");
    let asked = [bind, message(b'E', &[0; 5]), message(b'S', b"")].concat();
    let answer = [message(b'2', b""), rows(count), message(b'Z', b"I")].concat();
    Dialogue {
        opening,
        turns: vec![(true, asked), (false, answer)],
        tshark_field: "pgsql.statement",
        ..simple(name, "", Vec::new())
    }
}
