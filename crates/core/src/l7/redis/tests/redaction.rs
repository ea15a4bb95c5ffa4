//! What leaves the parser, and what must not.

use super::*;

fn text(words: &str) -> String {
    attribute(&one(&[commands(&[words])]), Attribute::DbQueryText)
}

#[test]
fn names_and_keys_are_shown_and_nothing_else() {
    for (words, expected, target) in [
        ("get k", "GET k", "k"),
        ("SET k v EX 60", "SET k ? ? ?", "k"),
        ("HMSET h f1 v1 f2 v2", "HMSET h ? ? ? ?", "h"),
        ("DEL a b c", "DEL a b c", "a b c"),
        ("MSET a 1 b 2", "MSET a ? b ?", "a b"),
        ("BLPOP a b 0", "BLPOP a b ?", "a b"),
        ("RENAME a b", "RENAME a b", "a b"),
        ("BITOP AND d a b", "BITOP ? d a b", "d a b"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "ZUNIONSTORE d ? a b ? ? ?", "d a b"),
        ("ZINTER 2 a b WITHSCORES", "ZINTER ? a b ?", "a b"),
        ("BLMPOP 0 2 a b LEFT", "BLMPOP ? ? a b ?", "a b"),
        ("LMPOP 9999999 a LEFT", "LMPOP ? a LEFT", "a LEFT"),
        ("EVAL return(1) 1 k v", "EVAL ? ? k ?", "k"),
        ("FCALL fn 1 k v", "FCALL fn ? k ?", "k"),
        ("XREAD COUNT 2 STREAMS s1 s2 0-0 0-0", "XREAD ? ? ? s1 s2 ? ?", "s1 s2"),
        ("XREADGROUP GROUP streams c STREAMS s >", "XREADGROUP ? ? ? ? s ?", "s"),
        ("XADD s * f v", "XADD s ? ? ?", "s"),
        ("OBJECT ENCODING k", "OBJECT ENCODING k", "k"),
        ("PUBLISH ch secret", "PUBLISH ch ?", "ch"),
        ("SELECT 3", "SELECT 3", ""),
        ("CLIENT REPLY foo", "CLIENT REPLY ?", ""),
        ("CLIENT SETNAME me", "CLIENT SETNAME ?", ""),
        ("CONFIG GET max*", "CONFIG GET ?", ""),
        ("CONFIG GET maxmemory", "CONFIG GET maxmemory", ""),
        ("JSON.SET doc $ {}", "JSON.SET doc ? ?", "doc"),
        ("MYMOD.DO a b", "MYMOD.DO ? ?", ""),
        ("b840fc02 a", "B840FC02 ?", ""),
    ] {
        let exchange = one(&[commands(&[words]), answer(":1\r\n")]);
        assert_eq!(attribute(&exchange, Attribute::DbQueryText), expected, "{words}");
        assert_eq!(exchange.target.as_deref().unwrap_or_default(), target, "{words}");
        assert_eq!(attribute(&exchange, Attribute::DbSystemName), "redis");
    }
}

#[test]
fn long_commands_are_cut() {
    let keys: Vec<String> = (0..5_000).map(|key| format!("key:{key}")).collect();
    let shown = text(&format!("DEL {}", keys.join(" ")));
    assert!(
        shown.starts_with("DEL key:0 key:1 ") && shown.ends_with(" ...") && shown.len() <= 512,
        "{shown}"
    );
    let long = text(&format!("GET {}", "k".repeat(600)));
    assert_eq!(long, "GET ?");
    assert_eq!(text("MYMOD.DO a b"), "?", "no answer says that there is such a command");
    assert_eq!(one(&[ask("*2\r\n$3\r\nGET\r\n$4\r\na \0\"\r\n")]).target.as_deref(), Some(r#""a \x00\"""#));
}

#[test]
fn errors_keep_their_words_and_lose_those_of_others() {
    for (asked, answered, code, error) in [
        ("SET a b", "-WRONGTYPE Operation against a key", "WRONGTYPE", "WRONGTYPE Operation against a key"),
        (
            "FOO x",
            "-ERR unknown command 'FOO', with args beginning with: 'it's' 'x' ",
            "ERR",
            "ERR unknown command '?'",
        ),
        (
            "FOO x",
            "-ERR unknown command `FOO`, with args beginning with: `x`, ",
            "ERR",
            "ERR unknown command `?`,",
        ),
        ("GET x", "-ERR Can't execute 'get': only PING", "ERR", "ERR Can't execute '?': only PING"),
        ("GET x", "-ERR unbalanced 'secret", "ERR", "ERR unbalanced '?'"),
        ("GET x", "-MOVED 3999 127.0.0.1:6381", "MOVED", "MOVED 3999 127.0.0.1:6381"),
        ("EVAL b 0", "-MYERR secret words", "MYERR", "MYERR ?"),
        ("FT.SEARCH i q", "-Syntax error near secret", "", "?"),
    ] {
        let exchange = one(&[commands(&[asked]), answer(format!("{answered}\r\n"))]);
        assert_eq!(attribute(&exchange, Attribute::DbResponseStatusCode), code, "{answered}");
        assert_eq!((exchange.error.as_deref(), exchange.ok), (Some(error), Some(false)));
    }
    let long = one(&[commands(&["GET x"]), answer(format!("-ERR '{}' secret\r\n", "x ".repeat(400)))]);
    assert_eq!(long.error.as_deref(), Some("ERR '?'"), "what was cut may have had no second mark");
}

const SECRET: &str = "hunter2";

/// Each with the secret in it, in every place where one may be.
fn planted() -> Vec<Turn> {
    let mut turns = Vec::new();
    let all = [
        "AUTH hunter2",
        "AUTH hunter2 hunter2",
        "auth default hunter2",
        "HELLO 3 AUTH default hunter2 SETNAME hunter2",
        "HELLO hunter2",
        "CONFIG SET requirepass hunter2",
        "CONFIG SET masterauth correct hunter2 battery",
        "CONFIG SET hunter2",
        "ACL SETUSER alice on >hunter2 ~* +@all",
        "ACL DELUSER hunter2",
        "MIGRATE 10.0.0.1 6379 k 0 5000 COPY AUTH hunter2 KEYS k1",
        "MIGRATE 10.0.0.1 6379 k 0 5000 AUTH2 hunter2 hunter2 KEYS k1",
        "SENTINEL SET mymaster auth-pass hunter2",
        "SET k hunter2",
        "HSET h f hunter2",
        "MSET a hunter2 b hunter2",
        "EVAL hunter2 1 k hunter2",
        "EVALSHA hunter2 0",
        "UNKNOWN hunter2",
        "REPLICAOF hunter2 1",
        "CLIENT hunter2",
        "SCRIPT LOAD hunter2",
        "ECHO hunter2",
        "SELECT hunter2",
    ];
    for words in all {
        turns.push(commands(&[words]));
        turns.push(answer("-ERR unknown command 'x', with args beginning with: 'hunter2' \r\n"));
        turns.push(ask(format!("{words}\r\n")));
        turns.push(answer("$7\r\nhunter2\r\n"));
        turns.push(commands(&[words]));
        turns.push(answer("+hunter2\r\n"));
    }
    for words in ["hunter2", "hunter2 k"] {
        turns.push(commands(&[words]));
        turns.push(answer("-ERR unknown command 'hunter2', with args beginning with: \r\n"));
    }
    turns.push(ask("hunter2\r\n\"hunter2\r\nSET k \"a hunter2\r\nAuthorization: hunter2\r\n"));
    turns.push(answer(":1\r\n".repeat(4)));
    turns.push(commands(&["SUBSCRIBE c"]));
    turns.push(answer(array("*3", "subscribe c :1") + &array("*3", "message c hunter2")));
    turns.push(answer(array(">2", "hunter2 hunter2") + &array(">2", "hunter hunter2")));
    turns
}

fn no_secret(exchanges: &[Exchange], how: &str) {
    for exchange in exchanges {
        let all = format!("{exchange:?}");
        assert!(!all.contains(SECRET), "{how}: {all}");
        assert!(!all.contains(&SECRET.to_ascii_uppercase()), "{how}: {all}");
    }
}

#[test]
fn planted_secrets_stay_inside() {
    let turns = planted();
    let whole = play(&PROTOCOL, &turns);
    assert!(whole.len() >= turns.len() / 2, "{}", whole.len());
    no_secret(&whole, "whole");
    for size in [1, 2, 3, 5, 7, 11, 40] {
        let mut played = Played::new(&PROTOCOL);
        for turn in &turns {
            turn.bytes().chunks(size).for_each(|piece| {
                played.data(turn.direction(), piece);
            });
        }
        no_secret(&played.finish(End::Fin).exchanges, "in pieces");
    }
}

#[test]
fn planted_secrets_stay_inside_of_what_breaks_off() {
    for pair in planted().chunks(2) {
        let all: Vec<u8> = pair[0].bytes().to_vec();
        for length in 0..=all.len() {
            for gap in [0, 1, 9] {
                let mut played = Played::new(&PROTOCOL);
                played.data(Direction::ToServer, &command("PING")).data(Direction::ToServer, &all[..length]);
                if gap > 0 {
                    played.gap(Direction::ToServer, gap, Gap::Lost);
                    let after = (length + gap as usize).min(all.len());
                    played.data(Direction::ToServer, &all[after..]);
                }
                no_secret(&played.finish(End::Reset).exchanges, &format!("after {length} without {gap}"));
            }
        }
    }
}
