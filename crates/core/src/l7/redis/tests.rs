use super::*;
use crate::l7::harness::{self, Played, Turn, answer, ask, play};
use crate::l7::{Attribute, Exchange, Guess, Heads};
use crate::record::AttributeValue;

mod pairing;
mod redaction;

/// A command as clients send it.
fn command(words: &str) -> Vec<u8> {
    let words: Vec<&str> = words.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}

fn commands(all: &[&str]) -> Turn {
    ask(all.iter().flat_map(|words| command(words)).collect::<Vec<_>>())
}

/// `array("*3", "message news hello")`.
fn array(head: &str, words: &str) -> String {
    let items = words.split(' ').map(|word| match word.strip_prefix(':') {
        Some(number) => format!(":{number}\r\n"),
        None => format!("${}\r\n{word}\r\n", word.len()),
    });
    format!("{head}\r\n{}", items.collect::<String>())
}

fn attribute(exchange: &Exchange, attribute: Attribute) -> String {
    match exchange.attributes.get(attribute) {
        Some(AttributeValue::Text(text)) => text.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

/// `GET a -> string`; `-` for what is not there.
fn shown(exchange: &Exchange) -> String {
    let answer = match (&exchange.status, exchange.response) {
        (Some(status), _) => status.as_str(),
        (None, Some(_)) => "?",
        (None, None) => "-",
    };
    let asked = match (exchange.request, &exchange.target) {
        (None, None) => format!("({})", exchange.operation),
        (None, Some(target)) => format!("({} {target})", exchange.operation),
        (Some(_), Some(target)) => format!("{} {target}", exchange.operation),
        (Some(_), None) => exchange.operation.to_string(),
    };
    format!("{asked} -> {answer}")
}

fn lines(turns: &[Turn]) -> Vec<String> {
    play(&PROTOCOL, turns).iter().map(shown).collect()
}

/// The one exchange.
fn one(turns: &[Turn]) -> Exchange {
    let mut exchanges = play(&PROTOCOL, turns);
    assert_eq!(exchanges.len(), 1, "{exchanges:?}");
    exchanges.remove(0)
}

/// Strings, errors, numbers, nulls, large and nested answers, pipelines.
fn plain() -> Vec<Turn> {
    let large = "x".repeat(5_000);
    vec![
        commands(&["SET user:1 secret EX 60"]),
        answer("+OK\r\n"),
        commands(&["GET user:1", "INCR hits", "GET nothing", "LPUSH user:1 a"]),
        answer("$6\r\nsecret\r\n:42\r\n$-1\r\n-WRONGTYPE Operation against a key\r\n"),
        commands(&[&format!("SET large {large}")]),
        answer("+OK\r\n"),
        commands(&["GET large"]),
        answer(format!("$5000\r\n{large}\r\n")),
        commands(&["LRANGE list 0 -1"]),
        answer("*4\r\n$3\r\none\r\n:2\r\n*2\r\n$3\r\n+OK\r\n$-1\r\n*0\r\n"),
        commands(&["MGET a b"]),
        answer("*2\r\n$1\r\na\r\n$-1\r\n"),
    ]
}

fn transaction() -> Vec<Turn> {
    vec![
        commands(&["WATCH w"]),
        answer("+OK\r\n"),
        commands(&["MULTI", "SET t1 x", "INCR t2", "EXEC"]),
        answer("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n-ERR value is not an integer\r\n"),
        commands(&["HELLO 3"]),
        answer("%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"),
        commands(&["HGETALL h"]),
        answer("|1\r\n+ttl\r\n:3600\r\n%1\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        commands(&["SMEMBERS s"]),
        answer(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nh\r\n~2\r\n$1\r\na\r\n#t\r\n"),
    ]
}

fn subscriber() -> Vec<Turn> {
    vec![
        commands(&["SUBSCRIBE news sport", "PSUBSCRIBE w*"]),
        answer(array("*3", "subscribe news :1") + &array("*3", "subscribe sport :2")),
        answer(array("*3", "message news secret-news") + &array("*3", "psubscribe w* :3")),
        answer(array("*4", "pmessage w* weather secret-rain")),
        commands(&["PING"]),
        answer(array("*3", "message sport secret-goal") + "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        commands(&["UNSUBSCRIBE"]),
        answer(array("*3", "unsubscribe news :2") + &array("*3", "unsubscribe sport :1")),
        commands(&["PUNSUBSCRIBE w*"]),
        answer(array("*3", "punsubscribe w* :0")),
        commands(&["GET after"]),
        answer("$1\r\nx\r\n"),
    ]
}

#[test]
fn every_property_holds_for_plain_commands() {
    harness::check(&PROTOCOL, &plain());
}

#[test]
fn every_property_holds_for_transactions_and_version_3() {
    harness::check(&PROTOCOL, &transaction());
}

#[test]
fn every_property_holds_for_subscribers() {
    harness::check(&PROTOCOL, &subscriber());
}

#[test]
fn every_property_holds_for_lines_of_text_and_silence() {
    harness::check(
        &PROTOCOL,
        &[
            ask("PING\r\n"),
            answer("+PONG\r\n"),
            ask("set k1 \"two words\"\r\nget k1\nCLIENT REPLY SKIP\r\nset k2 2\r\nget k3\r\n"),
            answer("+OK\r\n$9\r\ntwo words\r\n:3\r\n"),
            commands(&["CLIENT REPLY OFF", "SET k4 4", "CLIENT REPLY ON", "GET k5"]),
            answer("+OK\r\n$1\r\n5\r\n"),
        ],
    );
}

#[test]
fn time_grows_with_the_length_only() {
    harness::check_linear(&PROTOCOL, |length| {
        let pairs = length / 30;
        vec![ask(command("GET a").repeat(pairs)), answer("$3\r\nabc\r\n".repeat(pairs))]
    });
    harness::check_linear(&PROTOCOL, |length| {
        vec![ask(command("GET a")), answer(format!("*{length}\r\n{}", "*1\r\n".repeat(length / 4)))]
    });
    harness::check_linear(&PROTOCOL, |length| {
        vec![ask(format!("GET {}\r\n", "a ".repeat(length / 2))), answer("+".repeat(length))]
    });
}

#[test]
fn it_is_told_from_others() {
    let guess = |to_server: &str, to_client: &str| {
        let (to_server, to_client) = (to_server.as_bytes(), to_client.as_bytes());
        super::probe::probe(&Heads { to_server, to_client, transport: Transport::Tcp })
    };
    for (to_server, to_client, expected) in [
        ("*1\r\n$4\r\nPING\r\n", "", Guess::Sure),
        ("*2\r\n$3\r\nget\r\n$1\r\na\r\n", "", Guess::Sure),
        ("*2\r\n$3\r\nge", "", Guess::More),
        ("*", "", Guess::More),
        ("*1\r\n$6\r\nMODCMD\r\n", "", Guess::Maybe),
        ("*1\r\n$6\r\nMODCMD\r\n", "+OK\r\n", Guess::Sure),
        ("PING\r\n", "", Guess::Maybe),
        ("PING\r\n", "+PONG\r\n", Guess::Sure),
        ("PING\r\n", "PONG\r\n", Guess::No),
        ("FAKE COMMAND\r\n", "*1\r\n:1\r\n", Guess::Maybe),
        ("EHLO mail.example\r\n", "250 OK\r\n", Guess::No),
        ("NICK me\r\n", ":irc.example NOTICE\r\n", Guess::No),
        ("GET / HTTP/1.1\r\n", "", Guess::No),
        ("get key\r\n", "VALUE key 0 1\r\n", Guess::No),
        ("AUTH PLAIN\r\n", "334 x\r\n", Guess::No),
        ("QUIT\r\n", "+OK POP3 server ready\r\n", Guess::No),
        ("", "-DENIED Redis is running in protected mode\r\n", Guess::Sure),
        ("", "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n", Guess::Sure),
        ("", "220 mail.example ESMTP\r\n", Guess::No),
        ("\x16\x03\x01", "", Guess::No),
    ] {
        assert_eq!(guess(to_server, to_client), expected, "{to_server:?} {to_client:?}");
    }
}

#[test]
fn sizes_and_times_are_those_of_the_wire() {
    let mut played = Played::new(&PROTOCOL);
    let value = "v".repeat(100_000);
    let request = command(&format!("SET k {value}"));
    played.at(10).data(Direction::ToServer, &request[..40]);
    played.at(20).data(Direction::ToServer, &request[40..60_000]);
    played.at(30).gap(Direction::ToServer, 20_000, Gap::Cut);
    played.at(40).data(Direction::ToServer, &request[80_000..]);
    played.at(50).data(Direction::ToClient, b"+O").at(60).data(Direction::ToClient, b"K\r\n");
    let exchange = &played.exchanges[0];
    let request_bytes = request.len() as u64;
    let part = |first_ns, last_ns, bytes| Some(crate::l7::Part { first_ns, last_ns, bytes });
    assert_eq!(shown(exchange), "SET k -> OK");
    assert_eq!(exchange.request, part(10, 40, request_bytes));
    assert_eq!(exchange.response, part(50, 60, 5));
    assert_eq!(exchange.capture, Capture::Truncated);
}
