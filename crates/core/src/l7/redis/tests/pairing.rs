//! Which answer belongs to which command.

use super::*;

#[test]
fn pipelines_of_any_depth() {
    let all: Vec<String> = (0..10_000).map(|key| format!("GET key:{key}")).collect();
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    let answers: String = (0..10_000).map(|number| format!(":{number}\r\n")).collect();
    let exchanges = play(&PROTOCOL, &[commands(&words), answer(answers)]);
    assert_eq!(exchanges.len(), 10_000);
    for (number, exchange) in exchanges.iter().enumerate() {
        assert_eq!(exchange.target.as_deref(), Some(format!("key:{number}").as_str()));
        assert_eq!(exchange.response.unwrap().bytes, 3 + number.to_string().len() as u64);
    }
}

#[test]
fn subscriptions_are_answered_once_for_each_channel() {
    let expected = [
        "SUBSCRIBE news sport -> array",
        "(message news) -> array",
        "PSUBSCRIBE w* -> array",
        "(pmessage weather) -> array",
        "(message sport) -> array",
        "PING -> array",
        "UNSUBSCRIBE -> array",
        "PUNSUBSCRIBE w* -> array",
        "GET after -> string",
    ];
    assert_eq!(lines(&subscriber()), expected);
}

#[test]
fn pushes_stand_between_answers() {
    let turns = [
        commands(&["HELLO 3"]),
        answer("%1\r\n$5\r\nproto\r\n:3\r\n"),
        commands(&["SUBSCRIBE a b", "GET k"]),
        answer(array(">3", "subscribe a :1") + &array(">3", "message a x") + &array(">3", "subscribe b :2")),
        answer(array(">3", "message b y") + "$1\r\nv\r\n"),
        commands(&["LRANGE list 0 -1", "UNSUBSCRIBE"]),
        answer(
            array("*3", "message a x") + &array(">3", "unsubscribe b :1") + &array(">3", "unsubscribe a :0"),
        ),
    ];
    let expected = [
        "HELLO -> map",
        "(message a) -> push",
        "SUBSCRIBE a b -> push",
        "(message b) -> push",
        "GET k -> string",
        "LRANGE list -> array",
        "UNSUBSCRIBE -> push",
    ];
    assert_eq!(lines(&turns), expected);
}

#[test]
fn an_array_that_looks_like_a_message_is_an_answer_where_nothing_is_subscribed() {
    let turns = [commands(&["LRANGE list 0 -1", "PING"]), answer(array("*3", "message a x") + "+PONG\r\n")];
    assert_eq!(lines(&turns), ["LRANGE list -> array", "PING -> PONG"]);
}

#[test]
fn attributes_belong_to_what_follows_them() {
    let turns = [
        commands(&["FAKE x", "GET k"]),
        answer(
            "|1\r\n+key-popularity\r\n%2\r\n$1\r\na\r\n,0.19\r\n$1\r\nb\r\n,0.01\r\n*2\r\n:1\r\n|1\r\n+ttl\r\n:3\r\n:2\r\n+OK\r\n",
        ),
    ];
    let exchanges = play(&PROTOCOL, &turns);
    assert_eq!(exchanges.iter().map(shown).collect::<Vec<_>>(), ["FAKE -> array", "GET k -> OK"]);
    assert_eq!(exchanges[1].response.unwrap().bytes, 5);
}

#[test]
fn streamed_values_end_where_they_say() {
    let turns = [
        commands(&["GET s", "LRANGE l 0 -1", "PING"]),
        answer(
            "$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n*?\r\n:1\r\n*2\r\n:1\r\n*?\r\n.\r\n%?\r\n+a\r\n:1\r\n.\r\n.\r\n+PONG\r\n",
        ),
    ];
    assert_eq!(lines(&turns), ["GET s -> string", "LRANGE l -> array", "PING -> PONG"]);
}

#[test]
fn every_type_of_version_3() {
    let turns = [
        commands(&["GET a", "GET b", "GET c", "GET d", "GET e", "GET f", "GET g"]),
        answer("_\r\n#f\r\n,inf\r\n(3492890328409238509324850943850943825024385\r\n"),
        answer("!21\r\nSYNTAX invalid syntax\r\n=8\r\ntxt:Some\r\n~0\r\n"),
    ];
    let expected = ["nil", "boolean", "double", "big number", "SYNTAX", "verbatim string", "set"];
    let found: Vec<_> = play(&PROTOCOL, &turns).into_iter().filter_map(|one| one.status).collect();
    assert_eq!(found, expected);
}

#[test]
fn silence_shifts_nothing() {
    for (asked, answered, expected) in [
        (
            vec!["CLIENT REPLY SKIP", "SET a 1", "GET b"],
            ":1\r\n",
            vec!["CLIENT REPLY -> -", "SET a -> -", "GET b -> integer"],
        ),
        (
            vec!["CLIENT REPLY OFF", "SET a 1", "CLIENT REPLY SKIP", "SET b 1", "CLIENT REPLY ON", "GET c"],
            "+OK\r\n:1\r\n",
            vec![
                "CLIENT REPLY -> -",
                "SET a -> -",
                "CLIENT REPLY -> -",
                "SET b -> -",
                "CLIENT REPLY -> OK",
                "GET c -> integer",
            ],
        ),
        (
            vec!["CLIENT REPLY OFF", "RESET", "GET a"],
            "+RESET\r\n:1\r\n",
            vec!["CLIENT REPLY -> -", "RESET -> RESET", "GET a -> integer"],
        ),
        // The client was not allowed to be left alone.
        (
            vec!["CLIENT REPLY SKIP", "GET a", "GET b"],
            "-NOAUTH x\r\n-NOAUTH x\r\n-NOAUTH x\r\n",
            vec![
                "CLIENT REPLY -> -",
                "GET a -> -",
                "GET b -> -",
                "() -> NOAUTH",
                "() -> NOAUTH",
                "() -> NOAUTH",
            ],
        ),
        (
            vec!["CLIENT REPLY MAYBE", "GET a"],
            "-ERR syntax error\r\n:1\r\n",
            vec!["CLIENT REPLY -> ERR", "GET a -> integer"],
        ),
    ] {
        assert_eq!(lines(&[commands(&asked), answer(answered)]), expected, "{asked:?}");
    }
}

#[test]
fn transactions_count_what_they_executed() {
    let exchanges = play(&PROTOCOL, &transaction());
    let exec = exchanges.iter().find(|one| one.operation == "EXEC").unwrap();
    assert_eq!(attribute(exec, Attribute::DbOperationBatchSize), "Number(2)");
    assert_eq!(exec.ok, Some(false), "one of them failed");
    assert_eq!(attribute(exec, Attribute::DbResponseStatusCode), "ERR");
    assert_eq!(exec.status.as_deref(), Some("array"));
    for (answered, status, ok) in [
        ("*-1\r\n", "nil", true),
        ("_\r\n", "nil", true),
        ("-EXECABORT Transaction discarded\r\n", "EXECABORT", false),
    ] {
        let aborted = play(
            &PROTOCOL,
            &[commands(&["MULTI", "GET a", "EXEC"]), answer(format!("+OK\r\n+QUEUED\r\n{answered}"))],
        );
        assert_eq!((aborted[2].status.as_deref(), aborted[2].ok), (Some(status), Some(ok)));
        assert_eq!(attribute(&aborted[2], Attribute::DbOperationBatchSize), "", "one is no batch");
    }
}

#[test]
fn the_database_is_that_of_the_last_select() {
    let turns = [
        commands(&["GET a", "SELECT 3", "GET b", "SELECT 99", "GET c", "RESET", "GET d"]),
        answer(":1\r\n+OK\r\n:1\r\n-ERR DB index is out of range\r\n:1\r\n+RESET\r\n:1\r\n"),
    ];
    let databases: Vec<_> =
        play(&PROTOCOL, &turns).iter().map(|one| attribute(one, Attribute::DbNamespace)).collect();
    assert_eq!(databases, ["0", "3", "3", "3", "3", "0", "0"]);
}

#[test]
fn a_blocked_command_is_answered_when_something_comes() {
    let mut played = Played::new(&PROTOCOL);
    played.at(10).data(Direction::ToServer, &command("BLPOP jobs urgent 0"));
    played.at(5_000).data(Direction::ToClient, array("*2", "jobs payload").as_bytes());
    let exchange = &played.exchanges[0];
    assert_eq!(shown(exchange), "BLPOP jobs urgent -> array");
    assert_eq!(exchange.response.unwrap().first_ns, 5_000);
}

#[test]
fn streams_of_commands_are_left_alone() {
    let monitored = "+1339518083.107412 [0 127.0.0.1:60866] \"set\" \"k\" \"secret\"\r\n";
    for (asked, answered, expected) in [
        ("MONITOR", format!("+OK\r\n{monitored}"), vec!["MONITOR -> OK"]),
        ("PSYNC ? -1", "\n\n+FULLRESYNC 0123 0\r\n$9\r\nREDIS0011\r\n".to_owned(), vec!["PSYNC -> string"]),
        ("PSYNC ? -1", "+CONTINUE\r\n*1\r\n$4\r\nPING\r\n".to_owned(), vec!["PSYNC -> string"]),
        ("SYNC", "\n$EOF:0123456789012345678901234567890123456789\r\nREDIS".to_owned(), vec!["SYNC -> -"]),
        ("SYNC", "$5\r\nREDIS*1\r\n$4\r\nPING\r\n".to_owned(), vec!["SYNC -> -"]),
    ] {
        let turns = [commands(&[asked]), answer(answered), commands(&["REPLCONF ACK 0"])];
        assert_eq!(lines(&turns), expected, "{asked}");
    }
    let refused =
        [commands(&["PSYNC ? -1", "MONITOR", "PING"]), answer("-NOMASTERLINK x\r\n-NOPERM x\r\n+PONG\r\n")];
    assert_eq!(lines(&refused), ["PSYNC -> NOMASTERLINK", "MONITOR -> NOPERM", "PING -> PONG"]);
    let mut late = Played::late(&PROTOCOL);
    late.data(Direction::ToServer, &command("REPLCONF ACK 1234"));
    late.data(Direction::ToClient, &command("SET k secret")).data(Direction::ToServer, &command("GET a"));
    assert!(late.finish(End::Fin).exchanges.is_empty());
}

#[test]
fn claims_cost_nothing() {
    let deep = "*1\r\n".repeat(100_000);
    let turns = [commands(&["GET deep", "PING"]), answer(format!("{deep}:1\r\n+PONG\r\n"))];
    assert_eq!(lines(&turns), ["GET deep -> array", "PING -> PONG"]);
    for answered in [
        "*1000000000\r\n".to_owned(),
        "*4294967295\r\n".repeat(1_000),
        "*4294967296\r\n".to_owned(),
        format!("${}\r\n", u64::MAX),
        "*?\r\n".repeat(100_000),
        "$?\r\n;1\r\n".to_owned(),
        "$-2\r\n".to_owned(),
        "|1000000000\r\n".repeat(100),
    ] {
        let found = lines(&[commands(&["GET a"]), answer(&answered), commands(&["GET b"])]);
        assert!(found.iter().any(|line| line.starts_with("GET a -> ")), "{found:?}");
    }
    let asked = [commands(&["PING"]), ask("*2147483647\r\n$3\r\nDEL\r\n$1\r\na\r\n")];
    assert_eq!(lines(&asked), ["DEL a -> -", "PING -> -"]);
    assert!(
        lines(&[commands(&["GET a"]), ask("*1\r\n$99999999999999\r\n"), ask("*-7\r\n*0\r\n")])
            .contains(&"GET a -> -".to_owned())
    );
}

#[test]
fn values_of_any_size_go_by() {
    let mut played = Played::new(&PROTOCOL);
    let mebibytes = 512;
    let size = mebibytes << 20;
    played.data(Direction::ToServer, format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${size}\r\n").as_bytes());
    played
        .gap(Direction::ToServer, size as u64 + 2, Gap::NotSeen)
        .data(Direction::ToServer, &command("GET k"));
    played.data(Direction::ToClient, format!("+OK\r\n${size}\r\n").as_bytes());
    played.gap(Direction::ToClient, size as u64, Gap::Cut).data(Direction::ToClient, b"\r\n");
    let exchanges = &played.exchanges;
    assert_eq!(exchanges.iter().map(shown).collect::<Vec<_>>(), ["SET k -> OK", "GET k -> string"]);
    assert_eq!(exchanges[1].response.unwrap().bytes, 12 + size as u64 + 2);
    assert_eq!((exchanges[0].capture, exchanges[1].capture), (Capture::Gap, Capture::Truncated));
}

#[test]
fn the_server_may_speak_first() {
    let refused = one(&[answer("-DENIED Redis is running in protected mode\r\n")]);
    assert_eq!((refused.status.as_deref(), refused.request), (Some("DENIED"), None));
    let mut late = Played::late(&PROTOCOL);
    late.data(Direction::ToClient, array("*3", "message news x").as_bytes());
    late.data(Direction::ToClient, array("*3", "message news y").as_bytes());
    assert_eq!(late.exchanges.iter().map(shown).collect::<Vec<_>>(), ["(message news) -> array"; 2]);
}

#[test]
fn a_late_join_finds_its_feet() {
    let mut late = Played::late(&PROTOCOL);
    late.data(Direction::ToClient, b"lf of a value\r\n$3\r\nabc\r\n");
    late.data(Direction::ToServer, &command("GET a"));
    late.data(Direction::ToClient, b"$1\r\na\r\n");
    late.pause().data(Direction::ToServer, &command("GET b")).data(Direction::ToClient, b":1\r\n");
    let found: Vec<_> = late.exchanges.iter().map(|one| (shown(one), one.capture)).collect();
    let midstream = |line: &str| (line.to_owned(), Capture::Midstream);
    assert_eq!(found, [midstream("GET a -> -"), midstream("() -> string"), midstream("GET b -> integer"),]);
}

#[test]
fn after_a_hole_in_the_answers_only_a_new_question_pairs() {
    let mut played = Played::new(&PROTOCOL);
    played.data(Direction::ToServer, &command("PING")).data(Direction::ToClient, b"+PONG\r\n");
    played.data(Direction::ToServer, &command("LRANGE l 0 -1"));
    played.data(Direction::ToClient, b"*4\r\n$1\r\na\r\n").gap(Direction::ToClient, 7, Gap::Lost);
    played.data(Direction::ToClient, b"$1\r\nc\r\n$1\r\nd\r\n");
    played.data(Direction::ToServer, &command("GET k")).data(Direction::ToClient, b"$-1\r\n");
    let found: Vec<_> = played.exchanges.iter().map(shown).collect();
    assert_eq!(found, ["PING -> PONG", "LRANGE l -> array", "GET k -> nil"]);
    assert_eq!(played.exchanges[1].capture, Capture::Gap);
}

#[test]
fn an_answer_that_is_passed_over_is_nobody_elses() {
    let mut played = Played::new(&PROTOCOL);
    played.data(Direction::ToServer, &command("PING")).data(Direction::ToClient, b"+PONG\r\n");
    played.data(Direction::ToServer, &command("GET a")).gap(Direction::ToClient, 7, Gap::Lost);
    played.data(Direction::ToServer, &command("EVAL x 0")).data(Direction::ToClient, b"+OK then\r\n");
    played.data(Direction::ToServer, &command("GET b")).data(Direction::ToClient, b":1\r\n");
    let found: Vec<_> = played.exchanges.iter().map(shown).collect();
    assert_eq!(found, ["PING -> PONG", "GET a -> -", "EVAL -> -", "GET b -> integer"]);
}

#[test]
fn a_silence_that_was_not_seen_to_begin_pairs_nothing_wrongly() {
    let mut played = Played::new(&PROTOCOL);
    played.data(Direction::ToServer, &command("PING")).data(Direction::ToClient, b"+PONG\r\n");
    // GET x; GET y; CLIENT REPLY OFF
    played.gap(Direction::ToServer, 90, Gap::Lost).data(Direction::ToClient, b":1\r\n:2\r\n");
    played.data(Direction::ToServer, &command("SET a 1"));
    played.data(Direction::ToServer, &command("CLIENT REPLY ON")).data(Direction::ToClient, b"+OK\r\n");
    for key in ["b", "c"] {
        played
            .data(Direction::ToServer, &command(&format!("GET {key}")))
            .data(Direction::ToClient, b"$-1\r\n");
    }
    for exchange in &played.finish(End::Fin).exchanges {
        let paired = exchange.request.is_some() && exchange.response.is_some();
        assert!(!paired || exchange.operation == "PING", "{exchange:?}");
    }
}

#[test]
fn a_client_that_waits_is_paired_again_after_a_hole() {
    let mut played = Played::new(&PROTOCOL);
    played.data(Direction::ToServer, &command("PING")).data(Direction::ToClient, b"+PONG\r\n");
    played.gap(Direction::ToServer, 20, Gap::Lost).data(Direction::ToClient, b":1\r\n");
    for key in ["a", "b", "c"] {
        played
            .data(Direction::ToServer, &command(&format!("GET {key}")))
            .data(Direction::ToClient, b":2\r\n");
    }
    let found: Vec<_> = played.exchanges.iter().map(shown).collect();
    assert_eq!(
        found,
        [
            "PING -> PONG",
            "() -> integer",
            "GET a -> -",
            "() -> integer",
            "GET b -> integer",
            "GET c -> integer"
        ]
    );
}

#[test]
fn of_clients_that_ask_ahead_no_pair_is_certain_and_wrong() {
    harness::check_asking_ahead(&PROTOCOL, &[], |number| {
        (command(&format!("GET {number}")), format!("-E{number} no\r\n").into_bytes())
    });
}
