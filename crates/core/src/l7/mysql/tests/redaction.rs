use super::*;

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
