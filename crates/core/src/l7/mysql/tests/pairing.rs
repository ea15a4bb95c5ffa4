use super::*;
use crate::l7::Direction::{ToClient, ToServer};

fn select(name: &str) -> Vec<u8> {
    query(&format!("SELECT {name} FROM t"))
}

/// Asked and answered, or one of both only.
fn pairs(exchanges: &[Exchange]) -> Vec<(&str, bool, bool)> {
    exchanges
        .iter()
        .map(|one| (one.target.as_deref().unwrap_or("-"), one.request.is_some(), one.response.is_some()))
        .collect()
}

#[test]
fn a_late_join_pairs_what_it_can_be_sure_of() {
    let mut played = Played::late(&PROTOCOL);
    played.data(ToClient, &packet(7, b"\x03row of an older answer"));
    played.data(ToServer, &select("a")).data(ToClient, &rows(1, &["1"], 2));
    played.pause();
    played.data(ToServer, &select("b")).data(ToClient, &rows(1, &["2"], 2));
    played.data(ToServer, &execute(7, 0)).data(ToClient, &ok(1));
    played.finish(End::Fin);
    assert_eq!(
        pairs(&played.exchanges),
        [
            ("SELECT a FROM t", true, false),
            ("-", false, true),
            ("SELECT b FROM t", true, true),
            ("stmt#7", true, true)
        ]
    );
    assert!(played.exchanges.iter().all(|one| one.capture == Capture::Midstream));
}

#[test]
fn of_a_client_alone_everything_is_told_without_answers() {
    let mut played = Played::new(&PROTOCOL);
    played.data(ToServer, &packet(1, login_body(OLD)));
    played.data(ToServer, &select("a")).data(ToServer, &select("b")).finish(End::Fin);
    assert_eq!(
        pairs(&played.exchanges),
        [("shop", true, false), ("SELECT a FROM t", true, false), ("SELECT b FROM t", true, false)]
    );
}

#[test]
fn a_hole_in_a_row_changes_nothing() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&hello(OLD)).data(ToServer, &select("a"));
    let long = "x".repeat(200);
    let bytes = rows(1, &[&long, "2"], 2);
    let (before, rest) = bytes.split_at(90);
    played.data(ToClient, before).gap(ToClient, 100, Gap::Lost).data(ToClient, &rest[100..]);
    played.finish(End::Fin);
    let last = played.exchanges.last().unwrap();
    assert_eq!((last.status.as_deref(), last.capture), (Some("OK"), Capture::Gap));
    assert_eq!(number(last, Attribute::DbResponseReturnedRows), Some(2));
    assert_eq!(last.response.unwrap().bytes, bytes.len() as u64);
}

#[test]
fn after_a_lost_answer_the_next_one_is_paired() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&hello(OLD)).data(ToServer, &select("a"));
    let bytes = rows(1, &["1"], 2);
    played.data(ToClient, &bytes[..7]).gap(ToClient, 9, Gap::Lost).data(ToClient, &bytes[16..]);
    played.data(ToServer, &select("b")).data(ToClient, &rows(1, &["2", "3"], 2));
    played.finish(End::Fin);
    assert_eq!(
        told(&played.exchanges),
        [("LOGIN", "shop", "OK"), ("SELECT", "SELECT a FROM t", "-"), ("SELECT", "SELECT b FROM t", "OK")]
    );
}

#[test]
fn after_a_lost_command_its_answer_stands_alone() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&hello(OLD));
    let lost = select("lost");
    played.data(ToServer, &lost[..12]).gap(ToServer, lost.len() as u64 - 12, Gap::Lost);
    played.data(ToClient, &rows(1, &["1"], 2));
    played.data(ToServer, &select("b")).data(ToClient, &rows(1, &["2"], 2));
    played.finish(End::Fin);
    assert_eq!(
        pairs(&played.exchanges)[1..],
        [("SELECT…", true, false), ("-", false, true), ("SELECT b FROM t", true, true)]
    );
}

#[test]
fn after_a_lost_command_without_an_answer_it_finds_its_feet() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&hello(OLD)).data(ToServer, &select("a")).data(ToClient, &rows(1, &["1"], 2));
    let close = command(0x19, 7_u32.to_le_bytes());
    played.gap(ToServer, close.len() as u64, Gap::Lost);
    for name in ["b", "c", "d", "e"] {
        if name == "e" {
            played.pause();
        }
        played.data(ToServer, &select(name)).data(ToClient, &rows(1, &["1"], 2));
    }
    played.finish(End::Fin);
    let paired: Vec<_> = pairs(&played.exchanges).into_iter().filter(|one| one.1 && one.2).collect();
    assert_eq!(
        paired,
        [("shop", true, true), ("SELECT a FROM t", true, true), ("SELECT e FROM t", true, true)]
    );
}

#[test]
fn long_messages_are_counted_and_not_kept() {
    let long = 0xff_ffff;
    let mut played = Played::new(&PROTOCOL);
    played.turns(&hello(OLD));
    let begin = b"\x03INSERT INTO t VALUES ('SECRET";
    played.data(
        ToServer,
        &[&[0xff, 0xff, 0xff, 0], begin.as_slice(), &vec![b'x'; long - begin.len()]].concat(),
    );
    played.data(ToServer, &packet(1, b"SECRET')"));
    played.data(ToClient, &packet(2, ok_body(1, 2, 0)));
    // Exactly as long as a packet, with an empty one after it.
    played.data(ToServer, &select("b"));
    played.data(ToClient, &packets(1, &[&[1], &column("a"), &eof_body(2)]));
    played.data(ToClient, &[&[0xff, 0xff, 0xff, 4, 0xfd], vec![b'x'; long - 1].as_slice()].concat());
    played.data(ToClient, &[packet(5, b""), packet(6, b"\x01x"), packet(7, eof_body(2))].concat());
    played.finish(End::Fin);
    let [_, insert, select] = played.exchanges.as_slice() else { panic!("{:?}", told(&played.exchanges)) };
    assert_eq!((insert.status.as_deref(), insert.capture), (Some("OK"), Capture::Truncated));
    assert_eq!(insert.request.unwrap().bytes, (4 + long + 4 + 8) as u64);
    assert_eq!(number(select, Attribute::DbResponseReturnedRows), Some(2));
    assert_eq!(select.capture, Capture::Complete);
}

#[test]
fn a_file_of_more_packets_than_numbers_is_no_command() {
    let mut turns = hello(OLD);
    turns.push(ask(query("LOAD DATA LOCAL INFILE 'a' INTO TABLE t")));
    turns.push(answer(packet(1, b"\xfba")));
    let file: Vec<u8> = (2..700_u32).flat_map(|number| packet(number as u8, b"\x03SELECT SECRET")).collect();
    let end = (700_u32 % 256) as u8;
    turns.push(ask([file, packet(end, b"")].concat()));
    turns.push(answer(packet(end.wrapping_add(1), ok_body(9, 2, 0))));
    turns.push(ask(select("a")));
    turns.push(answer(rows(1, &["1"], 2)));
    let exchanges = play(&PROTOCOL, &turns);
    assert_eq!(
        told(&exchanges)[1..],
        [("LOAD", "LOAD DATA LOCAL INFILE ? INTO TABLE t", "OK"), ("SELECT", "SELECT a FROM t", "OK")]
    );
}

#[test]
fn tls_takes_over() {
    let mut played = Played::new(&PROTOCOL);
    let request = [&(OLD | SSL).to_le_bytes()[..], &[0, 0, 0, 1, 0x21], &[0; 23]].concat();
    played.turns(&[answer(greeting_of("8.0.36", NEW | SSL))]);
    let hello = b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x03";
    let hello = [hello.as_slice(), &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    played.data(ToServer, &[packet(1, request), hello].concat());
    played.data(ToClient, &[0x15, 3, 1, 0, 2, 2, 40]);
    played.finish(End::Fin);
    assert_eq!(told(&played.exchanges)[0], ("SSLREQUEST", "-", "-"));
    assert_eq!((played.exchanges[1].operation.as_str(), played.exchanges[1].ok), ("hello", Some(false)));
}

#[test]
fn refusals_are_told() {
    let mut played = Played::new(&PROTOCOL);
    played.data(ToClient, &packet(0, b"\xff\x10\x04Too many connections")).finish(End::Fin);
    assert_eq!(told(&played.exchanges), [("LOGIN", "-", "1040")]);
    let mut turns = vec![greeting(OLD), login(OLD)];
    turns.push(answer(packet(2, error_body(1045, "28000", "Access denied for user 'SECRET'@'SECRET'"))));
    let exchanges = play(&PROTOCOL, &turns);
    assert_eq!(told(&exchanges), [("LOGIN", "shop", "1045")]);
    assert_eq!(exchanges[0].error.as_deref(), Some("28000: Access denied for user '?'"));
    // A server that is shut down says so unasked.
    let mut turns = hello(OLD);
    turns.push(answer(packet(0, error_body(1927, "70100", "Connection was killed"))));
    assert_eq!(told(&play(&PROTOCOL, &turns))[1..], [("", "-", "1927")]);
}

#[test]
fn replication_is_left_alone() {
    let mut turns = hello(OLD);
    turns.push(ask(command(0x15, [7; 18])));
    turns.push(answer(ok(1)));
    turns.push(ask(command(0x12, b"\x04\0\0\0\0\0\x07\0\0\0binlog.000001")));
    turns.push(answer([packet(1, [0; 60]), packet(2, [0; 60])].concat()));
    turns.push(answer(packet(3, [0; 60])));
    turns.push(ask(query("SELECT nothing")));
    assert_eq!(
        told(&play(&PROTOCOL, &turns))[1..],
        [("REGISTER REPLICA", "-", "OK"), ("BINLOG DUMP", "-", "OK")]
    );
}

#[test]
fn an_answer_out_of_step_is_not_believed() {
    let mut turns = hello(OLD);
    turns.push(ask(select("a")));
    turns.push(answer(packet(5, ok_body(0, 2, 0))));
    turns.push(ask(select("b")));
    turns.push(answer(rows(1, &["1"], 2)));
    let exchanges = play(&PROTOCOL, &turns);
    assert_eq!(pairs(&exchanges)[1..], [("SELECT a FROM t", true, false), ("SELECT b FROM t", true, true)]);
}

#[test]
fn latency_and_total_are_of_the_whole_exchange() {
    let mut played = Played::new(&PROTOCOL);
    played.turns(&hello(OLD));
    played.at(100).data(ToServer, &select("a")[..9]).at(200).data(ToServer, &select("a")[9..]);
    let bytes = rows(1, &["1"], 2);
    played.at(700).data(ToClient, &bytes[..20]).at(900).data(ToClient, &bytes[20..]);
    played.finish(End::Fin);
    let last = played.exchanges.last().unwrap();
    let (request, response) = (last.request.unwrap(), last.response.unwrap());
    assert_eq!((request.first_ns, request.last_ns), (100, 200));
    assert_eq!((response.first_ns, response.last_ns), (700, 900));
}

#[test]
fn of_clients_that_ask_ahead_no_pair_is_certain_and_wrong() {
    harness::check_asking_ahead(&PROTOCOL, &hello(OLD), |number| {
        let error = [b"\xff", (3_000 + number as u16).to_le_bytes().as_slice(), b"#HY000no"].concat();
        (select(&format!("c{number}")), packet(1, error))
    });
}
