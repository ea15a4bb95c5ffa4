//! MySQL, which says most in bytes.

use super::{Turn, planted};

/// Capabilities: as they were for long, and without EOF packets.
const OLD: u32 = 1 | 1 << 3 | 1 << 9 | 1 << 15 | 1 << 19;
const NEW: u32 = OLD | 1 << 24 | 1 << 27;

/// A packet; its text may hold secrets.
fn packet(client: bool, number: u8, body: &str) -> Turn {
    raw(client, number, &planted(body))
}

fn raw(client: bool, number: u8, body: &[u8]) -> Turn {
    let [a, b, c, _] = (body.len() as u32).to_le_bytes();
    (client, [&[a, b, c, number], body].concat())
}

fn together(turns: &[Turn]) -> Turn {
    (turns[0].0, turns.iter().flat_map(|(_, bytes)| bytes.clone()).collect())
}

fn ok(number: u8) -> Turn {
    packet(false, number, "\0\0\0\u{2}\0\0\0")
}

fn error(number: u8, text: &str) -> Turn {
    raw(false, number, &[b"\xff\x26\x04#23000", planted(text).as_slice()].concat())
}

fn login(capabilities: u32) -> Vec<Turn> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    let greeting = [
        &b"\x0a8.0.36\0\x07\0\0\0"[..],
        &planted("{never}")[..8],
        &[0, a, b, 0x21, 2, 0, c, d, 21],
        &[0; 10],
        &planted("{never}")[..12],
        b"\0mysql_native_password\0",
    ];
    let response = [
        &capabilities.to_le_bytes()[..],
        &[0, 0, 0, 1, 0x21],
        &[0; 23],
        &planted("bob\0\u{10}{never}shop\0mysql_native_password\0"),
    ];
    vec![raw(false, 0, &greeting.concat()), raw(true, 1, &response.concat())]
}

fn rows(first: u8, value: &str) -> Turn {
    let column = "\u{3}def\u{4}shop\u{1}t\u{1}t\u{1}a\0\u{c}!\0\u{10}\0\0\0\u{7d}\0\0\0\0\0";
    let end = |number| raw(false, number, &[0xfe, 0, 0, 2, 0]);
    let row = format!("\u{10}{value}");
    together(&[
        packet(false, first, "\u{1}"),
        packet(false, first + 1, column),
        end(first + 2),
        packet(false, first + 3, &row),
        end(first + 4),
    ])
}

pub(crate) fn queries() -> Vec<Turn> {
    let mut turns = login(OLD);
    turns.extend([
        raw(false, 2, &[b"\xfecaching_sha2_password\0", planted("{never}").as_slice()].concat()),
        packet(true, 3, "{never}"),
        packet(false, 4, "\u{1}\u{4}"),
        packet(true, 5, "{never}\0"),
        ok(6),
        packet(true, 0, "\u{3}SELECT a FROM t WHERE b = '{sql}' /* {never} */"),
        rows(1, "{never}"),
        packet(true, 0, "\u{3}SELECT a FROM t WHERE b = \"{sql}\" AND c = '\\'{sql}'"),
        error(1, "Duplicate entry '{error}' for key 'a'"),
        packet(true, 0, "\u{3}CALL p('{sql}') /*!99999 it's */ + '{never}'"),
        ok(1),
        packet(true, 0, "\u{3}CALL p('{sql}')"),
        raw(false, 1, &[b"\xff\xe9\x03#45000", planted("no user {error}").as_slice()].concat()),
        packet(true, 0, "\u{3}SET PASSWORD FOR bob = PASSWORD('{never}')"),
        error(1, "near '{never}' at line 1"),
        packet(true, 0, "\u{3}CREATE USER ann IDENTIFIED BY '{never}'"),
        ok(1),
        packet(true, 0, "\u{3}INSERT INTO users (name, password) VALUES ('{never}', '{never}')"),
        error(1, "Incorrect string value: '{never}'"),
        packet(true, 0, "\u{3}LOAD DATA LOCAL INFILE '{sql}' INTO TABLE t"),
        raw(false, 1, &[b"\xfb", planted("{never}").as_slice()].concat()),
        together(&[packet(true, 2, "{never}\n{never}\n"), packet(true, 3, "{never}\n"), packet(true, 4, "")]),
        ok(5),
        packet(true, 0, "\u{11}ann\0\u{10}{never}other\0!\0mysql_native_password\0"),
        raw(false, 1, &[b"\xfemysql_native_password\0", planted("{never}").as_slice()].concat()),
        packet(true, 2, "{never}"),
        ok(3),
        packet(true, 0, "\u{7f}{never}"),
        error(1, "Unknown command '{never}'"),
        packet(true, 0, "\u{9}"),
        packet(false, 1, "Uptime: 12 {never}"),
    ]);
    turns
}

pub(crate) fn executions() -> Vec<Turn> {
    let prepared = |number: u8| {
        let column = "\u{3}def\0\0\0\u{1}?\0\u{c}?\0\0\0\0\0\u{7d}\0\0\0\0\0";
        let begin = [0, number, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        together(&[raw(false, 1, &begin), packet(false, 2, column)])
    };
    let execute = |number: u8, value: &str| {
        let begin = [0x17, number, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0xfd, 0, 1, b'n', 16];
        raw(true, 0, &[&begin[..], &planted(value)].concat())
    };
    let mut turns = login(NEW);
    turns.extend([
        ok(2),
        // An attribute of a query.
        raw(
            true,
            0,
            &[b"\x03\x01\x01\0\x01\xfd\0\x05trace\x10", &planted("{never}SELECT '{sql}'")[..]].concat(),
        ),
        ok(1),
        packet(true, 0, "\u{16}INSERT INTO t VALUES (?, '{sql}')"),
        prepared(1),
        execute(1, "{parameter}"),
        error(1, "Duplicate entry '{error}' for key 'a'"),
        packet(true, 0, "\u{18}\u{1}\0\0\0\0\0{never}"),
        execute(1, ""),
        ok(1),
        packet(true, 0, "\u{16}UPDATE users SET password = ?"),
        prepared(2),
        execute(2, "{never}"),
        error(1, "Data '{never}' is too long"),
    ]);
    turns
}
