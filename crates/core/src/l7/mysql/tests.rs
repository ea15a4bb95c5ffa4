mod compressed;
mod pairing;
mod redaction;

use super::*;
use crate::l7::harness::{self, Played, Turn, answer, ask, play};
use crate::l7::{Attribute, Exchange};
use crate::record::{AttributeValue, Capture};

const LONG_PASSWORD: u32 = 1;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const SECURE: u32 = 1 << 15 | 1 << 19;
const SESSION_TRACK: u32 = 1 << 23;
const DEPRECATE_EOF: u32 = 1 << 24;
const QUERY_ATTRIBUTES: u32 = 1 << 27;
const OLD: u32 = LONG_PASSWORD | CONNECT_WITH_DB | PROTOCOL_41 | SECURE;
const NEW: u32 = OLD | SESSION_TRACK | DEPRECATE_EOF | QUERY_ATTRIBUTES;

/// More results follow; a cursor is open; no index was used.
const MORE: u16 = 0x0008;
const CURSOR: u16 = 0x0040;
const NO_INDEX: u16 = 0x0020;

fn packet(sequence: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let [a, b, c, _] = (body.as_ref().len() as u32).to_le_bytes();
    [&[a, b, c, sequence], body.as_ref()].concat()
}

/// Packets that follow each other.
fn packets(first: u8, bodies: &[&[u8]]) -> Vec<u8> {
    bodies
        .iter()
        .enumerate()
        .flat_map(|(index, body)| packet(first.wrapping_add(index as u8), body))
        .collect()
}

fn greeting_of(version: &str, capabilities: u32) -> Vec<u8> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    let body = [
        b"\x0a",
        version.as_bytes(),
        b"\0\x07\0\0\0SECRET!!\0",
        &[a, b, 0x21, 2, 0, c, d, 21],
        &[0; 10],
        b"SECRETSECRET\0mysql_native_password\0",
    ];
    packet(0, body.concat())
}

fn greeting(capabilities: u32) -> Turn {
    answer(greeting_of("8.0.36", capabilities))
}

fn login_body(capabilities: u32) -> Vec<u8> {
    let fixed = [&capabilities.to_le_bytes()[..], &[0, 0, 0, 1, 0x21], &[0; 23]].concat();
    [&fixed[..], b"joe\0\x06SECRETshop\0mysql_native_password\0"].concat()
}

fn login(capabilities: u32) -> Turn {
    ask(packet(1, login_body(capabilities)))
}

fn command(code: u8, rest: impl AsRef<[u8]>) -> Vec<u8> {
    packet(0, [&[code], rest.as_ref()].concat())
}

fn query(sql: &str) -> Vec<u8> {
    command(0x03, sql)
}

fn ok_body(affected: u8, status: u16, warnings: u8) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    vec![0, affected, 0, low, high, warnings, 0]
}

fn ok(sequence: u8) -> Vec<u8> {
    packet(sequence, ok_body(0, 2, 0))
}

fn eof_body(status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    vec![0xfe, 0, 0, low, high]
}

/// An OK packet in the place of an EOF packet.
fn end_body(status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    vec![0xfe, 0, 0, low, high, 0, 0]
}

fn error_body(code: u16, state: &str, message: &str) -> Vec<u8> {
    [&[0xff], &code.to_le_bytes()[..], b"#", state.as_bytes(), message.as_bytes()].concat()
}

fn column(name: &str) -> Vec<u8> {
    let mut body = b"\x03def\x04shop\x01t\x01t".to_vec();
    body.push(name.len() as u8);
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(&[0, 0x0c, 0x21, 0, 0xff, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
    body
}

/// Rows as text, with EOF packets; numbers go on from `first`.
fn rows(first: u8, rows: &[&str], status: u16) -> Vec<u8> {
    let columns = column("a");
    let (middle, end) = (eof_body(2), eof_body(status));
    let values: Vec<Vec<u8>> = rows.iter().map(|row| [&[row.len() as u8], row.as_bytes()].concat()).collect();
    let mut bodies: Vec<&[u8]> = vec![&[1], &columns, &middle];
    bodies.extend(values.iter().map(Vec::as_slice));
    bodies.push(&end);
    packets(first, &bodies)
}

fn hello(capabilities: u32) -> Vec<Turn> {
    vec![greeting(capabilities), login(capabilities), answer(ok(2))]
}

/// Everything that a client of before 2015 says.
fn old() -> Vec<Turn> {
    let columns = [column("a"), column("b"), eof_body(2)];
    let columns: Vec<&[u8]> = columns.iter().map(Vec::as_slice).collect();
    vec![
        greeting(OLD),
        login(OLD),
        answer(packet(2, b"\xfecaching_sha2_password\0SECRETSECRETSECRETSE\0")),
        ask(packet(3, b"SECRETSECRETSECRETSECRETSECRET32")),
        answer(packet(4, b"\x01\x04")),
        ask(packet(5, b"\x02")),
        answer(packet(6, b"\x01-----BEGIN PUBLIC KEY-----")),
        ask(packet(7, [b"SECRET".as_slice(), &[0x9c; 250]].concat())),
        answer(ok(8)),
        ask(query("SELECT a FROM t WHERE b = 'SECRET'")),
        answer(rows(1, &["SECRET", "", "SECRET2"], 2 | NO_INDEX)),
        ask(query("SELECT a FROM empty")),
        answer(rows(1, &[], 2)),
        ask(query("INSERT INTO t VALUES ('SECRET'); SELECT 2; UPDATE t SET a = 3")),
        answer(
            [packet(1, ok_body(1, 2 | MORE, 1)), rows(2, &["2"], 2 | MORE), packet(7, ok_body(4, 2, 0))]
                .concat(),
        ),
        ask(query("SELECT broken")),
        answer(packet(1, error_body(1054, "42S22", "Unknown column 'SECRET' in 'field list'"))),
        ask(query("CALL half()")),
        answer([rows(1, &["1"], 2 | MORE), packet(6, error_body(1644, "45000", "SECRET"))].concat()),
        ask(command(0x02, "other")),
        answer(ok(1)),
        ask(command(0x04, "t\0%")),
        answer(packets(1, &columns)),
        ask(command(0x09, "")),
        answer(packet(1, "Uptime: 12  Threads: 1")),
        ask(query("LOAD DATA LOCAL INFILE '/SECRET' INTO TABLE t")),
        answer(packet(1, b"\xfb/SECRET")),
        ask([packet(2, b"SECRET\nSECRET\n"), packet(3, b"SECRET\n"), packet(4, b"")].concat()),
        answer(packet(5, [&ok_body(3, 2, 0)[..], b"Records: 3"].concat())),
        ask(command(0x1b, [0, 0])),
        answer(packet(1, eof_body(2))),
        ask(command(0x11, b"ann\0\x06SECRETlast\0\x21\0mysql_native_password\0")),
        answer(packet(1, b"\xfemysql_native_password\0SECRETSECRETSECRETSE\0")),
        ask(packet(2, b"SECRETSECRETSECRETSE")),
        answer(ok(3)),
        ask(query("SELECT last FROM t")),
        answer(rows(1, &["x"], 2)),
        ask(command(0x01, "")),
    ]
}

fn prepared_body(number: u32, columns: u8, parameters: u8) -> Vec<u8> {
    [&[0], &number.to_le_bytes()[..], &[columns, 0, parameters, 0, 0, 0, 0]].concat()
}

fn execute(number: u32, cursor: u8) -> Vec<u8> {
    command(0x17, [&number.to_le_bytes()[..], &[cursor, 1, 0, 0, 0, 0, 1, 0xfd, 0, 6], b"SECRET"].concat())
}

/// Prepared statements, as they are spoken since EOF packets went.
fn new() -> Vec<Turn> {
    let (a, end) = (column("a"), end_body(2));
    vec![
        greeting(NEW),
        login(NEW),
        answer(ok(2)),
        ask(command(0x03, b"\x01\x01\0\x01\xfd\0\x05trace\x06SECRETSELECT traced FROM t")),
        answer(packets(1, &[&[1], &a, b"\x06SECRET", &end])),
        ask(command(0x16, "SELECT a FROM t WHERE b = ? AND c = 'SECRET'")),
        answer(packets(1, &[&prepared_body(1, 1, 1), &a, &a])),
        ask(execute(1, 0)),
        answer(packets(1, &[&[1], &a, b"\0\0\x06SECRET", b"\0\0\x06SECRET", &end])),
        // Closed and prepared in one segment.
        ask([command(0x19, 1_u32.to_le_bytes()), command(0x16, "UPDATE t SET a = ?")].concat()),
        answer(packets(1, &[&prepared_body(2, 0, 1), &a])),
        ask([command(0x18, b"\x02\0\0\0\0\0SECRET"), command(0x18, b"\x02\0\0\0\0\0SECRET")].concat()),
        ask(execute(2, 0)),
        answer(packet(1, ok_body(5, 2, 0))),
        ask(command(0x1a, 2_u32.to_le_bytes())),
        answer(ok(1)),
        ask(command(0x16, "SELECT cursor FROM t")),
        answer(packets(1, &[&prepared_body(3, 1, 0), &a])),
        ask(execute(3, 1)),
        answer(packets(1, &[&[1], &a, &end_body(2 | CURSOR)])),
        ask(command(0x1c, b"\x03\0\0\0\x0a\0\0\0")),
        answer(packets(1, &[b"\0\0\x06SECRET", b"\0\0\x06SECRET", &end_body(2 | 0x80)])),
        ask(command(0x16, "SELECT broken")),
        answer(packet(1, error_body(1064, "42000", "near 'SECRET' at line 1"))),
        ask(command(0x03, b"\0\x01USE new_one")),
        answer(packet(1, b"\0\0\0\x02\x40\0\0\0\x0a\x01\x08\x07new_one")),
        ask(command(0x0e, "")),
        answer(ok(1)),
        ask(command(0x1f, "")),
        answer(ok(1)),
        ask(execute(3, 0)),
        answer(packet(1, error_body(1243, "HY000", "Unknown prepared statement handler"))),
    ]
}

/// One execution sent with its preparation, as MariaDB's clients do.
fn ahead() -> Vec<Turn> {
    let (a, end) = (column("a"), end_body(2));
    vec![
        answer(greeting_of("5.5.5-10.11.6-MariaDB", NEW & !LONG_PASSWORD)),
        login(NEW & !(LONG_PASSWORD | QUERY_ATTRIBUTES)),
        answer(ok(2)),
        ask([command(0x16, "SELECT one"), execute(u32::MAX, 0)].concat()),
        answer(
            [packets(1, &[&prepared_body(1, 1, 0), &a]), packets(1, &[&[1], &a, b"\0\0\x01x", &end])]
                .concat(),
        ),
        ask([query("SELECT two"), query("SELECT three")].concat()),
        answer([packets(1, &[&[1], &a, &end]), packet(1, ok_body(1, 2, 0))].concat()),
        ask(query("SELECT four")),
        answer(
            [packet(1, b"\xff\xff\xff\x01\x01\x02\0\0\0\x04Copy"), packets(2, &[&[1, 1], &a, &end])].concat(),
        ),
        // The columns are those of the last time.
        ask(query("SELECT five")),
        answer(packets(1, &[&[1, 0], b"\x01x", &end])),
    ]
}

fn told(exchanges: &[Exchange]) -> Vec<(&str, &str, &str)> {
    exchanges
        .iter()
        .map(|one| {
            (
                one.operation.as_str(),
                one.target.as_deref().unwrap_or("-"),
                one.status.as_deref().unwrap_or("-"),
            )
        })
        .collect()
}

fn number(exchange: &Exchange, attribute: Attribute) -> Option<u64> {
    match exchange.attributes.get(attribute) {
        Some(AttributeValue::Number(number)) => Some(*number),
        _ => None,
    }
}

fn text(exchange: &Exchange, attribute: Attribute) -> &str {
    match exchange.attributes.get(attribute) {
        Some(AttributeValue::Text(text)) => text,
        _ => "-",
    }
}

#[test]
fn a_dialogue_with_eof_packets_is_told() {
    let exchanges = play(&PROTOCOL, &old());
    assert_eq!(
        told(&exchanges),
        [
            ("LOGIN", "shop", "OK"),
            ("SELECT", "SELECT a FROM t WHERE b = ?", "OK"),
            ("SELECT", "SELECT a FROM empty", "OK"),
            ("INSERT", "INSERT INTO t VALUES (?); SELECT ?; UPDATE t SET a = ?", "OK"),
            ("SELECT", "SELECT broken", "1054"),
            ("CALL", "CALL half()", "1644"),
            ("INIT DB", "other", "OK"),
            ("FIELD LIST", "t", "OK"),
            ("STATISTICS", "-", "OK"),
            ("LOAD", "LOAD DATA LOCAL INFILE ? INTO TABLE t", "OK"),
            ("SET OPTION", "multi statements on", "OK"),
            ("CHANGE USER", "last", "OK"),
            ("SELECT", "SELECT last FROM t", "OK"),
        ]
    );
    let returned: Vec<_> =
        exchanges.iter().map(|one| number(one, Attribute::DbResponseReturnedRows)).collect();
    assert_eq!(returned[1..6], [Some(3), Some(0), Some(1), None, Some(1)]);
    assert_eq!(number(&exchanges[3], Attribute::DbAffectedRows), Some(5));
    assert_eq!(number(&exchanges[3], Attribute::DbWarnings), Some(1));
    assert_eq!(number(&exchanges[3], Attribute::DbOperationBatchSize), Some(3));
    assert_eq!(number(&exchanges[9], Attribute::DbAffectedRows), Some(3));
    assert_eq!(
        exchanges[1].attributes.get(Attribute::DbHints),
        Some(&vec!["no_index_used".to_owned()].into())
    );
    assert_eq!(exchanges[4].error.as_deref(), Some("42S22: Unknown column '?'"));
    assert_eq!(exchanges[5].error.as_deref(), Some("45000: ?"));
    assert!(exchanges.iter().all(|one| one.capture == Capture::Complete));
    let users = [&exchanges[0], &exchanges[11], &exchanges[12]].map(|one| text(one, Attribute::UserName));
    assert_eq!(users, ["joe", "ann", "ann"]);
    let databases = [0, 6, 7, 12].map(|index: usize| text(&exchanges[index], Attribute::DbNamespace));
    assert_eq!(databases, ["shop", "shop", "other", "last"]);
    // The file is part of the request.
    assert_eq!(exchanges[9].request.unwrap().bytes, 50 + 18 + 11 + 4);
}

#[test]
fn prepared_statements_are_told_by_their_text() {
    let exchanges = play(&PROTOCOL, &new());
    assert_eq!(
        told(&exchanges),
        [
            ("LOGIN", "shop", "OK"),
            ("SELECT", "SELECT traced FROM t", "OK"),
            ("PREPARE", "SELECT a FROM t WHERE b = ? AND c = ?", "OK"),
            ("SELECT", "SELECT a FROM t WHERE b = ? AND c = ?", "OK"),
            ("PREPARE", "UPDATE t SET a = ?", "OK"),
            ("UPDATE", "UPDATE t SET a = ?", "OK"),
            ("RESET STATEMENT", "UPDATE t SET a = ?", "OK"),
            ("PREPARE", "SELECT cursor FROM t", "OK"),
            ("SELECT", "SELECT cursor FROM t", "OK"),
            ("FETCH", "SELECT cursor FROM t", "OK"),
            ("PREPARE", "SELECT broken", "1064"),
            ("USE", "USE new_one", "OK"),
            ("PING", "-", "OK"),
            ("RESET CONNECTION", "-", "OK"),
            ("EXECUTE", "stmt#3", "1243"),
        ]
    );
    let returned = [3, 8, 9].map(|index: usize| number(&exchanges[index], Attribute::DbResponseReturnedRows));
    assert_eq!(returned, [Some(2), Some(0), Some(2)]);
    assert_eq!(text(&exchanges[12], Attribute::DbNamespace), "new_one");
    assert_eq!(text(&exchanges[3], Attribute::DbQueryText), "SELECT a FROM t WHERE b = ? AND c = ?");
    // What was sent ahead of the execution is part of it.
    assert_eq!(exchanges[5].request.unwrap().bytes, 2 * 17 + 25);
}

#[test]
fn what_was_asked_ahead_is_told() {
    let exchanges = play(&PROTOCOL, &ahead());
    assert_eq!(
        told(&exchanges),
        [
            ("LOGIN", "shop", "OK"),
            ("PREPARE", "SELECT one", "OK"),
            ("SELECT", "SELECT one", "OK"),
            ("SELECT", "SELECT two", "OK"),
            ("SELECT", "SELECT three", "OK"),
            ("SELECT", "SELECT four", "OK"),
            ("SELECT", "SELECT five", "OK"),
        ]
    );
    assert_eq!(text(&exchanges[1], Attribute::DbSystemName), "mariadb");
    assert_eq!(number(&exchanges[6], Attribute::DbResponseReturnedRows), Some(1));
}

#[test]
fn the_parser_keeps_every_promise() {
    for dialogue in [old(), new(), ahead()] {
        harness::check(&PROTOCOL, &dialogue);
    }
}

#[test]
fn time_is_linear() {
    harness::check_linear(&PROTOCOL, |length| {
        let mut turns = hello(OLD);
        for index in 0..length / 250 {
            turns.push(ask(query(&format!("SELECT a FROM t WHERE b = {index}"))));
            turns.push(answer(rows(1, &["one row", "another row"], 2)));
        }
        turns
    });
    harness::check_linear(&PROTOCOL, |length| {
        let values = "('value'),".repeat(length / 10);
        let sent = ask(query(&format!("INSERT INTO t VALUES {values}")));
        [hello(OLD), vec![sent, answer(ok(1))]].concat()
    });
}
