use super::*;
use crate::reveal::Class;

fn texts(exchanges: &[Exchange]) -> String {
    format!("{exchanges:?}")
}

#[test]
fn no_secret_leaves_the_parser() {
    for dialogue in [old(), new(), ahead(), compressed::of(&new(), compressed::zlib)] {
        let all = play(&PROTOCOL, &dialogue);
        assert!(!texts(&all).contains("SECRET"), "{}", texts(&all));
        let total: usize = dialogue.iter().map(|turn| turn.bytes().len()).sum();
        for hole in (0..total).step_by(3) {
            // Broken off, and joined late.
            for late in [false, true] {
                let mut played = if late { Played::late(&PROTOCOL) } else { Played::new(&PROTOCOL) };
                let mut place = 0;
                for turn in &dialogue {
                    let cut = hole.saturating_sub(place).min(turn.bytes().len());
                    let (before, after) = turn.bytes().split_at(cut);
                    let part = if late { after } else { before };
                    if !part.is_empty() {
                        played.data(turn.direction(), part);
                    }
                    place += turn.bytes().len();
                }
                played.finish(End::Fin);
                assert!(!texts(&played.exchanges).contains("SECRET"), "{hole}: {}", texts(&played.exchanges));
            }
        }
    }
}

#[test]
fn passwords_in_statements_are_left_out() {
    let mut turns = hello(OLD);
    for sql in [
        "CREATE USER a IDENTIFIED BY 'SECRET'",
        "SET PASSWORD FOR a = PASSWORD('SECRET')",
        "ALTER USER a IDENTIFIED WITH b AS 'SECRET'",
        "GRANT ALL ON *.* TO a IDENTIFIED BY \"SECRET\"",
        "CHANGE MASTER TO MASTER_PASSWORD='SECRET'",
        "/*!50000 SELECT 'SECRET' */",
        "SELECT 'cut off SECRET",
    ] {
        turns.push(ask(query(sql)));
        turns.push(answer(ok(1)));
    }
    let exchanges = play(&PROTOCOL, &turns);
    assert_eq!(exchanges.len(), 8);
    assert!(!texts(&exchanges).contains("SECRET"), "{}", texts(&exchanges));
}

#[test]
fn what_a_backslash_means_is_what_the_server_says() {
    let sql = r"SELECT 'a\', SECRET, 'b'";
    let mut turns = hello(OLD);
    turns.push(ask(query(sql)));
    turns.push(answer(packet(1, ok_body(0, 2 | 0x0200, 0))));
    turns.push(ask(query(sql)));
    turns.push(answer(ok(1)));
    let exchanges = play(&PROTOCOL, &turns);
    // First it escapes, then it does not: the name of a column is no secret.
    assert!(!exchanges[1].target.as_deref().unwrap().contains("SECRET"));
    assert_eq!(exchanges[2].target.as_deref(), Some("SELECT ?, SECRET, ?"));
}

fn revealing(turns: &[Turn], classes: &[Class]) -> Vec<Exchange> {
    let mut played = Played::new(&PROTOCOL).revealing(classes.iter().copied().collect());
    played.turns(turns).finish(End::Fin);
    played.exchanges
}

/// A statement with parameters that is prepared and executed twice.
fn bound(sql: &str) -> Vec<Turn> {
    let mut turns = hello(OLD | 1 << 24);
    turns.push(ask(command(0x16, sql)));
    turns.push(answer(packets(1, &[&prepared_body(1, 0, 2), &column("?"), &column("?")])));
    let values = b"\x01\0\0\0\0\x01\0\0\0\0\x01\xfd\0\x03\0\x04data\x07\0\0\0";
    turns.push(ask(command(0x17, values)));
    turns.push(answer(packet(1, error_body(1062, "23000", "Duplicate entry 'data' for key 'k'"))));
    turns.push(ask(command(0x17, b"\x01\0\0\0\0\x01\0\0\0\0\0\x04more\x08\0\0\0")));
    turns.push(answer(ok(1)));
    turns
}

fn parameters(exchange: &Exchange) -> &[String] {
    match exchange.attributes.get(Attribute::DbParameters) {
        Some(AttributeValue::Texts(texts)) => texts,
        _ => &[],
    }
}

#[test]
fn what_may_be_shown_is_shown_and_told_to_be() {
    let turns = bound("INSERT INTO t VALUES (?, ?, 'literal')");
    let all = revealing(&turns, &Class::ALL);
    assert_eq!(all[1].target.as_deref(), Some("INSERT INTO t VALUES (?, ?, 'literal')"));
    assert_eq!(parameters(&all[2]), ["data", "7"]);
    assert_eq!(parameters(&all[3]), ["more", "8"], "of the types that were told before");
    assert_eq!(all[2].error.as_deref(), Some("23000: Duplicate entry 'data' for key 'k'"));
    let classes: Vec<_> = all[2].revealed.classes().collect();
    assert_eq!(classes, [Class::SqlLiterals, Class::Parameters, Class::ErrorText]);
    for nothing in [play(&PROTOCOL, &turns), revealing(&turns, &[Class::RedisValues])] {
        assert!(!texts(&nothing).contains("data") && !texts(&nothing).contains("literal"));
        assert!(nothing.iter().all(|one| one.revealed.is_empty()));
    }
}

#[test]
fn passwords_are_never_shown() {
    for turns in
        [bound("UPDATE t SET password = ? WHERE id = ?"), old(), compressed::of(&new(), compressed::zlib)]
    {
        let all = revealing(&turns, &[Class::Parameters]);
        assert!(!texts(&all).contains("data"), "{}", texts(&all));
    }
    let mut turns = hello(OLD);
    for sql in [
        "SET PASSWORD = 'SECRET'",
        "CREATE USER a IDENTIFIED BY 'SECRET'",
        "SELECT MD5('SECRET') AS password",
    ] {
        turns.push(ask(query(sql)));
        turns.push(answer(packet(1, error_body(1064, "42000", "near 'SECRET'"))));
    }
    let all = revealing(&turns, &Class::ALL);
    assert!(!texts(&all).contains("SECRET"), "{}", texts(&all));
}

#[test]
fn the_parser_keeps_every_promise_while_it_shows_values() {
    let turns = bound("INSERT INTO t VALUES (?, ?)");
    let whole = revealing(&turns, &Class::ALL);
    for size in 1..40 {
        let mut played = Played::new(&PROTOCOL).revealing(Class::ALL.into_iter().collect());
        for turn in &turns {
            turn.bytes().chunks(size).for_each(|piece| {
                played.data(turn.direction(), piece);
            });
        }
        played.finish(End::Fin);
        assert_eq!(played.exchanges, whole, "{size}");
    }
}
