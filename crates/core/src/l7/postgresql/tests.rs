mod redaction;

use super::*;
use crate::l7::Attribute;
use crate::l7::harness::{self, Played, Turn, answer, ask, play};
use crate::record::{AttributeValue, Capture};

fn typed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], (body.len() as u32 + 4).to_be_bytes().as_slice(), body].concat()
}

fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
    [(body.len() as u32 + 8).to_be_bytes().as_slice(), &code.to_be_bytes(), body].concat()
}

fn startup() -> Vec<u8> {
    untyped(0x0003_0000, b"user\0joe\0database\0shop\0application_name\0psql\0\0")
}

fn query(sql: &str) -> Vec<u8> {
    typed(b'Q', format!("{sql}\0").as_bytes())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    typed(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str, value: &str) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0\0\u{1}").into_bytes();
    body.extend_from_slice(&(value.len() as u32).to_be_bytes());
    body.extend_from_slice(value.as_bytes());
    body.extend_from_slice(&[0, 0]);
    typed(b'B', &body)
}

fn execute(portal: &str) -> Vec<u8> {
    typed(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

fn row(value: &str) -> Vec<u8> {
    typed(b'D', &[&[0, 1], (value.len() as u32).to_be_bytes().as_slice(), value.as_bytes()].concat())
}

fn columns() -> Vec<u8> {
    typed(b'T', &[[0, 1].as_slice(), b"name\0", &[0; 18]].concat())
}

fn done(tag: &str) -> Vec<u8> {
    typed(b'C', format!("{tag}\0").as_bytes())
}

fn failure(code: &str, message: &str) -> Vec<u8> {
    typed(b'E', format!("SFEHLER\0VERROR\0C{code}\0M{message}\0DKey (a)=(SECRET)\0\0").as_bytes())
}

fn ready() -> Vec<u8> {
    typed(b'Z', b"I")
}

fn simple() -> Vec<Turn> {
    vec![
        ask(untyped(80_877_103, b"")),
        answer(b"N"),
        ask(startup()),
        answer(typed(b'R', &[0, 0, 0, 5, 1, 2, 3, 4])),
        ask(typed(b'p', b"md5SECRET\0")),
        answer(
            [typed(b'R', &[0; 4]), typed(b'S', b"server_version\x0018\0"), typed(b'K', b"SECRET!!"), ready()]
                .concat(),
        ),
        ask(query("SELECT name FROM a WHERE b = 'SECRET'")),
        answer([columns(), row("SECRET"), row(""), done("SELECT 2"), ready()].concat()),
        ask(query("INSERT INTO t VALUES (1); SELECT 2; UPDATE t SET a = 3")),
        answer(
            [done("INSERT 0 1"), columns(), row("2"), done("SELECT 1"), done("UPDATE 4"), ready()].concat(),
        ),
        ask(query("SELECT broken")),
        answer([failure("42703", "column \"SECRET\" does not exist"), ready()].concat()),
        ask(query("COPY t FROM STDIN")),
        answer(typed(b'G', &[0, 0, 1, 0, 0])),
        ask([typed(b'd', b"SECRET\n"), typed(b'd', b"SECRET\n"), typed(b'c', b"")].concat()),
        answer([done("COPY 2"), ready()].concat()),
        ask(query("COPY t TO STDOUT")),
        answer(
            [
                typed(b'H', &[0, 0, 1, 0, 0]),
                typed(b'd', b"SECRET\n"),
                typed(b'c', b""),
                done("COPY 1"),
                ready(),
            ]
            .concat(),
        ),
        ask(query(";")),
        answer([typed(b'I', b""), ready()].concat()),
        answer(typed(b'A', b"\0\0\0\x07channel\0SECRET\0")),
        ask(typed(b'F', &[0, 0, 3, 232, 0, 0, 0, 0, 0, 0])),
        answer([typed(b'N', b"SNOTICE\0\0"), typed(b'V', &[0xff; 4]), ready()].concat()),
        ask(typed(b'X', b"")),
    ]
}

fn extended() -> Vec<Turn> {
    let sync = || typed(b'S', b"");
    let (parsed, bound) = (|| typed(b'1', b""), || typed(b'2', b""));
    vec![
        ask(startup()),
        answer([typed(b'R', &[0; 4]), ready()].concat()),
        ask([parse("s1", "SELECT a FROM t WHERE b = $1"), typed(b'D', b"Ss1\0"), sync()].concat()),
        answer([parsed(), typed(b't', &[0, 1, 0, 0, 0, 23]), columns(), ready()].concat()),
        ask([bind("", "s1", "SECRET"), execute(""), sync()].concat()),
        answer([bound(), row("SECRET"), done("SELECT 1"), ready()].concat()),
        // Pipelined: one group with three executions, then another one.
        ask([
            parse("", "UPDATE t SET a = $1"),
            bind("", "", "SECRET"),
            typed(b'D', b"P\0"),
            execute(""),
            parse("s2", "DELETE FROM t"),
            bind("p2", "s2", "x"),
            execute("p2"),
            typed(b'H', b""),
            execute("p2"),
            sync(),
            parse("", "SELECT c FROM d"),
            bind("", "", "x"),
            execute(""),
            sync(),
        ]
        .concat()),
        answer(
            [
                parsed(),
                bound(),
                typed(b'n', b""),
                done("UPDATE 3"),
                parsed(),
                bound(),
                typed(b's', b""),
                done("DELETE 9"),
                ready(),
                parsed(),
                bound(),
                row("1"),
                row("2"),
                done("SELECT 2"),
                ready(),
            ]
            .concat(),
        ),
        // The first fails, the second is passed over.
        ask([
            parse("", "SELECT bad"),
            bind("", "", "x"),
            execute(""),
            parse("", "SELECT passed_over"),
            bind("", "", "x"),
            execute(""),
            typed(b'C', b"Ss1\0"),
            sync(),
        ]
        .concat()),
        answer([failure("42601", "syntax error at or near \"SECRET\""), ready()].concat()),
        ask([parse("", "SELECT never run"), sync()].concat()),
        answer([failure("42P01", "relation 'SECRET' is missing"), ready()].concat()),
        // The transaction fails at its end.
        ask([parse("", "INSERT INTO u VALUES ($1)"), bind("", "", "x"), execute(""), sync()].concat()),
        answer([parsed(), bound(), done("INSERT 0 1"), failure("23503", "foreign key"), ready()].concat()),
        // The Sync before the data is ignored.
        ask([parse("", "COPY u FROM STDIN"), bind("", "", "x"), execute(""), sync()].concat()),
        answer([parsed(), bound(), typed(b'G', &[0, 0, 0])].concat()),
        ask([typed(b'd', b"SECRET"), typed(b'c', b""), sync()].concat()),
        answer([done("COPY 7"), ready()].concat()),
        ask([parse("s3", "DELETE FROM v"), bind("", "s3", "x"), execute(""), sync()].concat()),
        answer([parsed(), bound(), done("DELETE 0"), ready()].concat()),
        // Without a Sync: one ReadyForQuery is for all.
        ask([parse("", "UPDATE w SET x = $1"), bind("", "", "x"), execute(""), query("COMMIT")].concat()),
        answer([parsed(), bound(), done("UPDATE 1"), done("ROLLBACK"), ready()].concat()),
    ]
}

fn shown(exchange: &Exchange) -> String {
    let number = |attribute| match exchange.attributes.get(attribute) {
        Some(AttributeValue::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    };
    format!(
        "{} | {} | {} | {}/{} | {}/{}",
        exchange.operation,
        exchange.target.as_deref().unwrap_or("-"),
        exchange.status.as_deref().unwrap_or("-"),
        number(Attribute::DbResponseReturnedRows),
        number(Attribute::DbAffectedRows),
        exchange.request.map_or(0, |part| part.bytes),
        exchange.response.map_or(0, |part| part.bytes),
    )
}

#[track_caller]
fn all_shown(turns: &[Turn], expected: &[&str]) {
    let exchanges = play(&PROTOCOL, turns);
    assert_eq!(exchanges.iter().map(shown).collect::<Vec<_>>(), expected);
    no_secret(&exchanges);
}

#[track_caller]
fn no_secret(exchanges: &[Exchange]) {
    let all = format!("{exchanges:?}").to_uppercase();
    assert!(!all.contains("SECRE"), "{all}");
}

#[test]
fn every_property_holds_for_simple_queries() {
    harness::check(&PROTOCOL, &simple());
}

#[test]
fn every_property_holds_for_prepared_statements() {
    harness::check(&PROTOCOL, &extended());
}

#[test]
fn every_property_holds_for_encryption() {
    let asked = [ask(untyped(80_877_104, b"")), answer(b"N"), ask(untyped(80_877_103, b"")), answer(b"S")];
    let turns = [asked.to_vec(), tls::tests::old_handshake()].concat();
    harness::check(&PROTOCOL, &turns);
    all_shown(
        &turns,
        &[
            "GSSENCREQUEST | - | N | -/- | 8/1",
            "SSLREQUEST | - | S | -/- | 8/1",
            "hello | shop.example | TLSv1.2 | -/- | 1414/58",
        ],
    );
    let turns = [ask(untyped(80_877_104, b"")), answer(b"G"), ask(b"\0\0\0\x04SECRET")];
    all_shown(&turns, &["GSSENCREQUEST | - | G | -/- | 8/1"]);
}

#[test]
fn time_grows_with_the_length_only() {
    harness::check_linear(&PROTOCOL, |length| {
        let rows = row("12345").repeat(length / 16);
        vec![
            ask(startup()),
            answer([typed(b'R', &[0; 4]), ready()].concat()),
            ask(query(&"x ".repeat(length / 16))),
            answer([rows, done("SELECT 1"), ready()].concat()),
        ]
    });
}

#[test]
fn simple_queries() {
    all_shown(
        &simple(),
        &[
            "SSLREQUEST | - | N | -/- | 8/1",
            "STARTUP | shop | OK | -/- | 54/64",
            "SELECT | SELECT name FROM a WHERE b = ? | OK | 2/- | 43/78",
            "INSERT | INSERT INTO t VALUES (?); SELECT ?; UPDATE t SET a = ? | OK | 1/5 | 60/92",
            "SELECT | SELECT broken | 42703 | -/- | 19/84",
            "COPY | COPY t FROM STDIN | OK | -/2 | 23/28",
            "COPY | COPY t TO STDOUT | OK | -/1 | 22/45",
            " | ; | OK | -/- | 7/11",
            "FUNCTION CALL | oid 1000 | OK | -/- | 15/15",
        ],
    );
}

#[test]
fn prepared_statements() {
    all_shown(
        &extended(),
        &[
            "STARTUP | shop | OK | -/- | 54/15",
            "SELECT | SELECT a FROM t WHERE b = $1 | OK | 1/- | 35/36",
            "UPDATE | UPDATE t SET a = $1 | OK | -/3 | 68/29",
            "DELETE | DELETE FROM t | SUSPENDED | -/- | 58/15",
            "DELETE | DELETE FROM t | OK | -/9 | 12/14",
            "SELECT | SELECT c FROM d | OK | 2/- | 52/48",
            "SELECT | SELECT bad | 42601 | -/- | 47/80",
            "SELECT | SELECT passed_over | - | -/- | 55/0",
            "SELECT | SELECT never run | 42P01 | -/- | 25/76",
            "INSERT | INSERT INTO u VALUES ($1) | OK | -/1 | 62/26",
            "SYNC | - | 23503 | -/- | 5/59",
            "COPY | COPY u FROM STDIN | OK | -/7 | 54/30",
            "DELETE | DELETE FROM v | OK | -/0 | 54/24",
            "UPDATE | UPDATE w SET x = $1 | OK | -/1 | 56/24",
            "COMMIT | COMMIT | ROLLBACK | -/- | 12/20",
        ],
    );
}

#[test]
fn a_query_without_a_sync_before_it_is_passed_over_after_an_error() {
    let steps = |sql| [parse("", sql), bind("", "", "x"), execute("")].concat();
    let sync = || typed(b'S', b"");
    let failed = || failure("22012", "division by zero");
    let start = [ask(startup()), answer([typed(b'R', &[0; 4]), ready()].concat())];
    let rows = [typed(b'1', b""), typed(b'2', b""), row("1"), done("SELECT 1"), ready()].concat();
    let turns = [
        ask([steps("SELECT g"), typed(b'H', b"")].concat()),
        answer(failed()),
        ask([query("SELECT h"), sync()].concat()),
        answer(ready()),
        ask([steps("SELECT i"), sync()].concat()),
        answer(&rows),
    ];
    all_shown(
        &[&start[..], &turns].concat(),
        &[
            "STARTUP | shop | OK | -/- | 54/15",
            "SELECT | SELECT g | 22012 | -/- | 45/64",
            "SELECT | SELECT h | - | -/- | 14/0",
            "SELECT | SELECT i | OK | 1/- | 45/36",
        ],
    );
    // Where the error is seen after the Sync, it cannot be told whose end that
    // was: nothing is paired then.
    let turns = [
        ask([steps("SELECT g"), query("SELECT h"), sync(), steps("SELECT i"), sync()].concat()),
        answer([failed(), ready(), rows].concat()),
    ];
    let exchanges = play(&PROTOCOL, &[&start[..], &turns].concat());
    let lines: Vec<_> = exchanges.iter().map(shown).collect();
    let expected = [
        "SELECT | SELECT g | 22012 | -/- | 45/64",
        "SELECT | SELECT h | - | -/- | 14/0",
        "SELECT | SELECT i | - | -/- | 45/0",
        " | - | OK | -/- | 0/36",
    ];
    assert_eq!(lines[1..], expected);
}

#[test]
fn errors_are_told_by_code_and_without_what_they_cite() {
    let exchanges = play(&PROTOCOL, &simple());
    let failed = &exchanges[4];
    assert_eq!(failed.ok, Some(false));
    assert_eq!(failed.error.as_deref(), Some("ERROR: column \"?\" does not exist"));
    assert_eq!(failed.attributes.get(Attribute::DbResponseStatusCode), Some(&AttributeValue::from("42703")));
    assert_eq!(exchanges[2].attributes.get(Attribute::DbNamespace), Some(&AttributeValue::from("shop")));
    assert_eq!(
        exchanges[3].attributes.get(Attribute::DbOperationBatchSize),
        Some(&AttributeValue::Number(3))
    );
}

#[test]
fn authentication_that_fails_is_an_answer() {
    for exchange in [
        vec![typed(b'R', &[0, 0, 0, 3])],
        vec![
            typed(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
            typed(b'R', b"\0\0\0\x0br=SECRET"),
            typed(b'R', b"\0\0\0\x0cv=SECRET"),
        ],
        vec![typed(b'R', &[0, 0, 0, 7]), typed(b'R', b"\0\0\0\x08SECRET")],
    ] {
        let mut turns = vec![ask(startup())];
        for request in exchange {
            turns.push(answer(request));
            turns.push(ask(typed(b'p', b"SECRET\0")));
        }
        turns.push(answer(typed(
            b'E',
            b"SFATAL\0C28P01\0Mpassword authentication failed for user \"SECRET\"\0\0",
        )));
        harness::check(&PROTOCOL, &turns);
        let exchanges = play(&PROTOCOL, &turns);
        assert_eq!(exchanges.len(), 1);
        assert_eq!(exchanges[0].status.as_deref(), Some("28P01"));
        assert_eq!(
            exchanges[0].error.as_deref(),
            Some("FATAL: password authentication failed for user \"?\"")
        );
        no_secret(&exchanges);
    }
}

#[test]
fn a_cancellation_tells_no_key() {
    all_shown(&[ask(untyped(80_877_102, b"\0\0\0\x01SECR"))], &["CANCEL | - | - | -/- | 16/0"]);
}

#[test]
fn replication_is_not_made_of_requests() {
    let turns = [
        ask(untyped(0x0003_0000, b"user\0joe\0replication\0true\0\0")),
        answer([typed(b'R', &[0; 4]), ready()].concat()),
        ask(query("START_REPLICATION 0/0")),
        answer([typed(b'W', &[0, 0, 0]), typed(b'd', b"SECRET")].concat()),
        ask(typed(b'd', b"SECRET")),
        answer(typed(b'd', b"SECRET")),
    ];
    all_shown(
        &turns,
        &["STARTUP | joe | OK | -/- | 35/15", "START_REPLICATION | START_REPLICATION ?/? | OK | -/- | 27/8"],
    );
}

#[test]
fn long_messages_are_not_kept() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&[ask(startup()), answer([typed(b'R', &[0; 4]), ready()].concat())]);
    let long = query(&format!("INSERT INTO t VALUES ('{}')", "SECRET".repeat(1_000_000)));
    for piece in long.chunks(1_448) {
        played.data(Direction::ToServer, piece);
    }
    let rows = [columns(), row(&"SECRET".repeat(1_000_000)), row("x"), done("INSERT 0 2"), ready()].concat();
    played.data(Direction::ToClient, &rows[..100]);
    // Of a row nothing is needed, not even all its bytes.
    played.gap(Direction::ToClient, 5_000_000, Gap::Lost).data(Direction::ToClient, &rows[5_000_100..]);
    played.finish(End::Fin);
    let last = &played.exchanges[1];
    assert_eq!(
        shown(last),
        format!("INSERT | INSERT INTO t VALUES (?… | OK | 2/2 | {}/{}", long.len(), rows.len())
    );
    assert_eq!(last.capture, Capture::Gap);
    no_secret(&played.exchanges);
}

#[test]
fn a_query_that_was_captured_in_part_is_told_in_part() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&[ask(startup()), answer([typed(b'R', &[0; 4]), ready()].concat())]);
    let sql = query("SELECT a FROM t WHERE b = 'SECRET' AND c = 1");
    played.data(Direction::ToServer, &sql[..37]).gap(Direction::ToServer, sql.len() as u64 - 37, Gap::Cut);
    played.data(Direction::ToClient, &[columns(), row("x"), done("SELECT 1"), ready()].concat());
    played
        .turns(&[ask(query("SELECT 2")), answer([columns(), row("x"), done("SELECT 1"), ready()].concat())]);
    played.finish(End::Fin);
    let lines: Vec<_> = played.exchanges.iter().map(shown).collect();
    assert_eq!(lines[1], "SELECT | SELECT a FROM t WHERE b = ?… | - | -/- | 50/0");
    assert_eq!(lines.last().unwrap(), "SELECT | SELECT ? | OK | 1/- | 14/62");
    no_secret(&played.exchanges);
}

#[test]
fn a_late_join_finds_its_feet() {
    let mut played = Played::late(&PROTOCOL);
    played.turns(&[
        answer([row("x"), done("SELECT 1"), ready()].concat()),
        ask([bind("", "s1", "SECRET"), execute(""), typed(b'S', b"")].concat()),
        answer([typed(b'2', b""), row("x"), done("SELECT 1"), ready()].concat()),
        ask(query("SELECT 'SECRET'")),
        answer([columns(), row("x"), done("SELECT 1"), ready()].concat()),
    ]);
    played
        .pause()
        .turns(&[ask(query("SELECT 2")), answer([columns(), row("x"), done("SELECT 1"), ready()].concat())]);
    played.finish(End::Fin);
    let last = played.exchanges.last().unwrap();
    assert_eq!(shown(last), "SELECT | SELECT ? | OK | 1/- | 14/62");
    assert_eq!(last.capture, Capture::Midstream);
    no_secret(&played.exchanges);
}

#[test]
fn a_lost_preparation_leaves_no_old_text() {
    let mut played = Played::new(&PROTOCOL);
    let turns = extended();
    played.turns(&turns[..4]);
    played.gap(Direction::ToServer, 100, Gap::Lost);
    played.turns(&turns[4..6]).turns(&turns[4..6]).finish(End::Fin);
    assert!(played.exchanges[1..].iter().all(|one| one.target.is_none()));
}

#[test]
fn other_protocols_are_not_taken_for_it() {
    let cases: [(&[u8], &[u8]); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"", b"\x52\0\0\0\x0a8.0.36\0abcdefghijklmnopqrstuvwxyz"),
        (b"", b"\x4e\0\0\0\x0a8.0.36\0abcdefghijklmnopqrstuvwxyz"),
        (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc", b""),
    ];
    for (to_server, to_client) in cases {
        let heads = Heads { to_server, to_client, transport: Transport::Tcp };
        assert_eq!(probe(&heads), Guess::No, "{to_server:?} {to_client:?}");
    }
}

#[test]
fn of_clients_that_ask_ahead_no_pair_is_certain_and_wrong() {
    let opening = [ask(startup()), answer([typed(b'R', &[0; 4]), ready()].concat())];
    harness::check_asking_ahead(&PROTOCOL, &opening, |number| {
        let asked = query(&format!("SELECT a FROM t{number}"));
        (asked, [failure(&format!("{:05}", 22_000 + number), "no"), ready()].concat())
    });
}
